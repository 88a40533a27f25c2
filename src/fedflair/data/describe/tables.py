"""The tables of a dataset for the terminal."""

from __future__ import annotations

from typing import Any

from fedflair.data.describe.comparison import (
    DISTRIBUTIONS,
    DIVERGENCES,
    MOMENTS,
    distribution_rows,
    has_fine_labels,
    label_table,
    most_frequent,
    partition_table,
)
from fedflair.system.console import Table, table

HEAD = 20  # fine labels that are shown; as many as are published


def tables(plain: dict[str, Any]) -> list[Table]:
    """One table for each question, of what :func:`fedflair.data.describe.comparison.as_plain` returns."""
    everything = plain["all"]
    coarse = most_frequent(everything, "labels", len(everything["labels"]["images_per_label"]))
    fine = most_frequent(everything, "fine_grained_labels", HEAD)
    in_use = everything["fine_grained_labels"]["in_use"]
    shown = [
        _table("Users and images", *partition_table(plain)),
        _table(
            "Distributions (labels per user: distinct ones)",
            ["", *MOMENTS],
            distribution_rows(plain, DISTRIBUTIONS),
        ),
        _table(
            "Divergence of users from the population, Jensen-Shannon, 0 to 1 bit",
            ["", *MOMENTS],
            distribution_rows(plain, DIVERGENCES),
        ),
        _table("Images per coarse label", *label_table(plain, "labels", coarse)),
    ]
    if has_fine_labels(plain):
        title = f"Images per fine label: the {len(fine)} most frequent of {in_use:,} in use"
        shown.append(_table(title, *label_table(plain, "fine_grained_labels", fine)))
    return shown


def _table(title: str, header: list[str], rows: list[list[str]]) -> Table:
    """The first column is text; published figures are faint."""
    columns = {
        position
        for position, name in enumerate(header)
        if "in FLAIR" in header[max(position - 1, 0) : position + 1] and name in ("in FLAIR", "%")
    }
    published = {position for position, row in enumerate(rows) if row[0] == "in FLAIR"}
    shown = [["  in FLAIR" if position in published else row[0], *row[1:]] for position, row in enumerate(rows)]
    return table(title, header, shown, framed=False, faint_columns=columns, faint_rows=published)
