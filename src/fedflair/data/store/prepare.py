"""``fedflair prepare``: a dataset in any of its forms, into one packed store."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedflair.data import open_source
from fedflair.data.images.jpeg import ImageEncoding
from fedflair.data.store.packed import is_store
from fedflair.data.store.packing import PrepareSummary, pack
from fedflair.errors import DataError


def prepare(
    *,
    source: Path,
    output: Path,
    source_format: str | None = None,
    skip_bad_images: bool = False,
    ignore_label_relation: bool = False,
    image_encoding: ImageEncoding = "png",
    not_group_data_by_user: bool = False,
) -> PrepareSummary:
    """Turn a dataset in any of its forms into one packed store.

    JPEGs of 256x256 RGB are stored byte for byte; any other image, such as a full-size one, is decoded, turned upright,
    resized whole to 256x256 (Lanczos, the aspect ratio is not kept) and stored as JPEG of quality 95, and counted.

    Args:
        source: Folder of the hub's parquet files or of Apple's release, or a parquet or HDF5 file.
        output: The store to write; appears under this name only once it is whole.
        source_format: huggingface, apple, apple-raw (the full-size images where the small ones lie beside them) or
            hdf5, where it should not be recognised from the files.
        skip_bad_images: Leave out images that cannot be decoded, and list them, instead of stopping at the first.
        ignore_label_relation: Accept labels that contradict the source's label_relationship.txt.
        image_encoding: How the bare pixels of an HDF5 source are stored: png loses nothing, jpeg is far smaller.
        not_group_data_by_user: Write ml-flair's central layout (decoded pixels, one group an image), not a store.
    """
    check_output(source, output)
    opened = open_source(source, source_format)
    write = partial(
        pack,
        opened,
        encoding=image_encoding,
        skip_bad_images=skip_bad_images,
        check_relation=not ignore_label_relation,
    )
    if not_group_data_by_user:
        from fedflair.data.store.convert import write_through_store

        summary = write_through_store(output, "ml-flair-central", write)
    else:
        summary = write(output)
    print(describe_summary(summary))
    return summary


def check_output(source: Path, output: Path) -> None:
    """Raises DataError where ``output`` is a folder, or is the source itself, which would be lost."""
    if output.is_dir():
        raise DataError(f"{output}: is a folder; give the name of the file to write")
    if source.exists() and output.exists() and source.samefile(output):
        raise DataError(f"{output}: is the source itself; choose another name for the output")


def describe_summary(summary: PrepareSummary) -> str:
    """The summary as the lines that prepare prints, the next command last."""
    lines = [f"{summary.output}: {summary.num_bytes / 1e6:,.1f} MB in {summary.seconds:.1f} s from {summary.source}"]
    for name in summary.users:
        lines.append(f"  {name:5} {summary.users[name]:>8,} users {summary.images[name]:>9,} images")
    lines.append(f"  {summary.labels} labels, {summary.fine_grained_labels} fine-grained labels")
    for reason, count in summary.reencoded.items():
        lines.append(f"  re-encoded {count:,}: {reason}")
    for line in summary.skipped:
        lines.append(f"  skipped {line}")
    if is_store(summary.output):
        lines.append(f"Next: fedflair describe {summary.output}")
    return "\n".join(lines)
