"""``fedflair describe``: the tables of a dataset, in the terminal or as JSON."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from fedflair.data.statistics import LabelStatistics, Statistics


def describe(store: Path, *, json: bool = False, output: Path | None = None) -> None:
    """Show a dataset's users, images, labels and their distributions beside FLAIR's published values.

    Args:
        store: A packed store, as written by prepare or synthesize.
        json: Print one machine-readable JSON object instead of tables.
        output: Also write plots and a browsable index.html into this folder.
    """
    from fedflair.data.statistics import store_statistics
    from fedflair.data.store import open_store

    opened = open_store(store)
    by_partition = store_statistics(opened)
    if json:
        print(json_format.dumps(as_json(by_partition), indent=2))
        return
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    for table in tables(by_partition):
        console.print(table)


def as_json(by_partition: dict[str, Statistics]) -> dict[str, Any]:
    """Every number as plain types: partition -> statistics; labels as name -> count, in index order."""
    return {name: _as_json(statistics) for name, statistics in by_partition.items()}


def _as_json(statistics: Statistics) -> dict[str, Any]:
    return {
        "users": statistics.num_users,
        "images": statistics.num_images,
        "image_bytes": statistics.image_bytes,
        "images_per_user": asdict(statistics.images_per_user),
        "labels": _labels_as_json(statistics.coarse),
        "fine_grained_labels": _labels_as_json(statistics.fine),
    }


def _labels_as_json(labels: LabelStatistics) -> dict[str, Any]:
    return {
        "images_per_label": dict(zip(labels.names, labels.images.tolist())),
        "users_per_label": dict(zip(labels.names, labels.users.tolist())),
        "labels_per_image": asdict(labels.per_image),
        "distinct_labels_per_user": asdict(labels.per_user),
        "divergence_from_population": asdict(labels.divergence),
        "divergence_if_iid": asdict(labels.divergence_if_iid),
    }


def tables(by_partition: dict[str, Statistics]) -> list[Table]:
    """The terminal's tables, for the statistics of :func:`fedflair.data.statistics.store_statistics`."""
    return [_partition_table(by_partition), _label_table(by_partition)]


def _partition_table(by_partition: dict[str, Statistics]) -> Table:
    table = _table("Users and images", "partition", ["users", "images", "MB"])
    for name, statistics in by_partition.items():
        row = [statistics.num_users, statistics.num_images, round(statistics.image_bytes / 1e6)]
        table.add_row(name, *[f"{value:,}" for value in row])
    return table


def _label_table(by_partition: dict[str, Statistics]) -> Table:
    from fedflair.data.statistics import most_frequent

    table = _table("Images per label", "label", list(by_partition))
    for label in most_frequent(by_partition["all"].coarse, len(by_partition["all"].coarse.names)).tolist():
        name = printable(by_partition["all"].coarse.names[label])
        table.add_row(name, *[f"{statistics.coarse.images[label]:,}" for statistics in by_partition.values()])
    return table


def _table(title: str, first: str, numbers: list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def printable(text: str) -> str:
    """Text from a dataset with control characters spelled out, so that it cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
