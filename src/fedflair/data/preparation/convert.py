"""Between the packed store and the HDF5 layouts of other tools."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.preparation.layouts import Layout, write_layout, write_through_store
from fedflair.data.preparation.packing import PrepareSummary, Track, pack, untracked
from fedflair.data.preparation.prepare import check_output, prepare
from fedflair.data.sources import open_source
from fedflair.data.store.packed import is_store, open_store


def convert(
    source: Path, output: Path, *, layout: Layout, limits: Limits = DEFAULT, track: Track = untracked
) -> PrepareSummary | None:
    """Writes the dataset at ``source`` to ``output`` in a layout; what went through a new store has a summary.

    Raises DataError where the source cannot be read, or the layout cannot hold what it holds.
    """
    if layout == "packed":
        return prepare(source=source, output=output, limits=limits, track=track)
    check_output(source, output)
    if is_store(source):
        write_layout(open_store(source), output, layout)
        return None
    return write_through_store(
        output, layout, partial(pack, open_source(source, limits=limits), limits=limits, track=track)
    )
