"""``fedflair convert``: between the packed store and the layouts of other tools."""

from __future__ import annotations

from pathlib import Path

from fedflair.commands.prepare import words_of
from fedflair.commands.progress import track
from fedflair.data.images.jpeg import ImageEncoding
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.preparation import convert as conversion
from fedflair.data.preparation.convert import Layout
from fedflair.system.terminal import say


def convert(
    source: Path,
    output: Path,
    *,
    layout: Layout,
    image_encoding: ImageEncoding | None = None,
    max_image_pixels: int = DEFAULT.image_pixels,
    max_image_bytes: int = DEFAULT.image_bytes,
    max_image_scans: int = DEFAULT.image_scans,
    max_label_bytes: int = DEFAULT.label_bytes,
    max_archive_growth: int = DEFAULT.archive_growth,
) -> None:
    """Turn a dataset into another tool's layout, or into the packed store.

    Args:
        source: A packed store, an HDF5 file of pfl-research or ml-flair, or anything else that prepare reads.
        output: The file to write, or for parquet and webdataset the folder; appears under this name only once it is
            whole.
        layout: packed (this project's store), pfl (pfl-research), ml-flair, ml-flair-central (not grouped by user),
            parquet (the hub's files, for Hugging Face datasets too), or webdataset (tar shards).
        image_encoding: How bare pixels become files, and PNG files that were made of such: png loses nothing and is the
            default; jpeg, of quality 95, takes about a third of the room and loses a little.

    Bounds on what is not trusted:
        max_image_pixels: Pixels that one photograph may have; more are refused before they are decoded.
        max_image_bytes: Bytes that one encoded photograph may have.
        max_image_scans: Scans that one progressive JPEG may have.
        max_label_bytes: Bytes that a file of labels may have.
        max_archive_growth: How many times an archive or a parquet column may grow when it is unpacked.
    """
    summary = conversion.convert(
        source,
        output,
        layout=layout,
        image_encoding=image_encoding,
        limits=Limits(
            image_pixels=max_image_pixels,
            image_bytes=max_image_bytes,
            image_scans=max_image_scans,
            label_bytes=max_label_bytes,
            archive_growth=max_archive_growth,
        ),
        track=track,
    )
    if summary is not None:
        say(words_of(summary))
    if layout in ("parquet", "webdataset"):
        num_bytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        say(f"{output}: {num_bytes / 1e6:,.1f} MB in the layout {layout}; images are kept byte for byte")
    elif layout != "packed":
        size = f"{output.stat().st_size / 1e6:,.1f} MB"
        say(f"{output}: {size} in the layout {layout}; pixels are kept, JPEG bytes are not")
    if layout not in ("packed", "webdataset"):
        say(f"Next: fedflair convert {output} STORE --layout packed   (leads back)")
