"""Between the packed store and the layouts of other tools."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from fedflair.data.images.jpeg import ImageEncoding
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.preparation.layouts import write_layout, write_through_store
from fedflair.data.preparation.packing import PrepareSummary, Track, pack, untracked
from fedflair.data.preparation.prepare import check_output, prepare
from fedflair.data.sources import open_source
from fedflair.data.store.packed import is_store, open_store
from fedflair.errors import ConfigError

Layout = Literal["packed", "pfl", "ml-flair", "ml-flair-central", "parquet", "webdataset"]


def convert(
    source: Path,
    output: Path,
    *,
    layout: Layout,
    image_encoding: ImageEncoding | None = None,
    limits: Limits = DEFAULT,
    track: Track = untracked,
) -> PrepareSummary | None:
    """Writes the dataset at ``source`` to ``output`` in a layout; what went through a new store has a summary.

    image_encoding: of bare pixels, and of the PNG files that were made of such; None keeps PNG files, and makes more of
    bare pixels. Raises DataError where the source cannot be read, or the layout cannot hold what it holds, ConfigError
    where a layout of bare pixels is given an encoding.
    """
    if layout == "packed":
        return prepare(source=source, output=output, image_encoding=image_encoding or "png", limits=limits, track=track)
    if layout == "parquet" or layout == "webdataset":
        # Here, because it loads pyarrow.
        from fedflair.data.preparation.folders import write_folder, write_folder_through_store

        if is_store(source) and image_encoding != "jpeg":
            write_folder(open_store(source), output, layout)
            return None
        return write_folder_through_store(
            output,
            layout,
            partial(
                pack,
                open_source(source, limits=limits),
                encoding=image_encoding or "png",
                limits=limits,
                track=track,
            ),
        )
    if image_encoding is not None:
        raise ConfigError(f"image_encoding: {image_encoding} has no effect on layout {layout}, which has bare pixels")
    check_output(source, output)
    if is_store(source):
        write_layout(open_store(source), output, layout)
        return None
    return write_through_store(
        output, layout, partial(pack, open_source(source, limits=limits), limits=limits, track=track)
    )
