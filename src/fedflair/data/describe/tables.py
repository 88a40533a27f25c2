"""``fedflair describe``: the tables of a dataset, in the terminal, as JSON or as a page."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedflair.data.describe.comparison import (
    DISTRIBUTIONS,
    DIVERGENCES,
    MOMENTS,
    PUBLISHED,
    as_plain,
    distribution_rows,
    label_rows,
    most_frequent,
    partition_rows,
)
from fedflair.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

HEAD = 20  # fine labels that are shown; as many as are published


def describe(store: Path, *, json: bool = False, output: Path | None = None) -> None:
    """Show a dataset's users, images, labels and their distributions beside FLAIR's published values.

    Args:
        store: A packed store, as written by prepare or synthesize.
        json: Print one machine-readable JSON object instead of tables.
        output: Also write plots and a page with a browsable gallery, index.html, into this folder.
    """
    from fedflair.data.describe.statistics import store_statistics
    from fedflair.data.store.packed import open_store

    opened = open_store(store)
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"output: {output} is a file; name a folder")
    by_partition = store_statistics(opened)
    plain = as_plain(by_partition)
    if json:
        print(json_format.dumps(_finite({"store": str(store), "partitions": plain, "published": PUBLISHED}), indent=2))
    else:
        from rich.console import Console

        console = Console(markup=False, highlight=False)
        for table in tables(plain):
            console.print(table)
    if output is not None:
        from fedflair.data.describe.page import write_page

        page = write_page(opened, by_partition, output)
        if not json:
            console.print(f"Plots and gallery: {page}", soft_wrap=True)


def _finite(value: Any) -> Any:
    """JSON has no nan: what has no value becomes null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and value != value else value


def tables(plain: dict[str, Any]) -> list[Table]:
    """The terminal's tables, for what :func:`fedflair.data.describe.comparison.as_plain` returns."""
    everything = plain["all"]
    partitions = list(plain)
    coarse = most_frequent(everything, "labels", len(everything["labels"]["images_per_label"]))
    fine = most_frequent(everything, "fine_grained_labels", HEAD)
    in_use = everything["fine_grained_labels"]["in_use"]
    return [
        _table("Users and images", ["", "users", "in FLAIR", "images", "in FLAIR", "MB"], partition_rows(plain)),
        _table(
            "Distributions (labels per user: distinct ones)",
            ["", *MOMENTS],
            distribution_rows(everything, DISTRIBUTIONS),
        ),
        _table(
            "Divergence of users from the population, Jensen-Shannon, 0 to 1 bit",
            ["", *MOMENTS],
            distribution_rows(everything, DIVERGENCES),
        ),
        _table(
            "Images per coarse label",
            ["", *partitions, "%", "in FLAIR", "%"],
            label_rows(plain, "labels", coarse),
        ),
        _table(
            f"Images per fine label: the {len(fine)} most frequent of {in_use:,} in use",
            ["", *partitions, "%", "in FLAIR", "%"],
            label_rows(plain, "fine_grained_labels", fine),
        ),
    ]


def _table(title: str, header: list[str], rows: list[list[str]]) -> Table:
    """The first column is text; published figures are dim."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(header):
        published = "in FLAIR" in header[max(position - 1, 0) : position + 1] and name in ("in FLAIR", "%")
        style = "dim" if published else ""
        table.add_column(name, justify="right" if position else "left", style=style, overflow="fold")
    for first, *others in rows:
        reference = first == "in FLAIR"
        table.add_row("  in FLAIR" if reference else printable(first), *others, style="dim" if reference else None)
    return table


def printable(text: str) -> str:
    """Text from a dataset with control characters spelled out, so that it cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
