"""``fedflair prepare``: a dataset in any of its forms, into one packed store."""

from __future__ import annotations

from pathlib import Path

from fedflair.commands.progress import track
from fedflair.data.images.jpeg import ImageEncoding
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.preparation import prepare as preparation
from fedflair.data.preparation.packing import PrepareSummary
from fedflair.data.store.packed import is_store
from fedflair.system.terminal import say


def prepare(
    *,
    source: Path,
    output: Path,
    labels: Path | None = None,
    label_separator: str | None = None,
    seed: int | None = None,
    source_format: str | None = None,
    skip_bad_images: bool = False,
    ignore_label_relation: bool = False,
    image_encoding: ImageEncoding = "png",
    not_group_data_by_user: bool = False,
    max_image_pixels: int = DEFAULT.image_pixels,
    max_image_bytes: int = DEFAULT.image_bytes,
    max_image_scans: int = DEFAULT.image_scans,
    max_label_bytes: int = DEFAULT.label_bytes,
    max_archive_growth: int = DEFAULT.archive_growth,
) -> None:
    """Turn a dataset in any of its forms into one packed store.

    JPEGs of 256x256 RGB are stored byte for byte; any other image, such as a full-size one, is decoded, turned upright,
    resized whole to 256x256 (Lanczos, the aspect ratio is not kept) and stored as JPEG of quality 95, and counted.

    Args:
        source: Folder of the hub's parquet files or of Apple's release, or a parquet or HDF5 file; with --labels, the
            folder of one's own photographs.
        output: The store to write; appears under this name only once it is whole.
        source_format: huggingface, apple, apple-raw (the full-size images where the small ones lie beside them) or
            hdf5, where it should not be recognised from the files.
        skip_bad_images: Leave out images that cannot be decoded, and list them, instead of stopping at the first.
        ignore_label_relation: Accept labels that contradict the source's label_relationship.txt.
        image_encoding: How the bare pixels of an HDF5 source are stored: png loses nothing, jpeg is far smaller.
        not_group_data_by_user: Write ml-flair's central layout (decoded pixels, one group an image), not a store.

    Your own photographs:
        labels: CSV file of one's own photographs, of any size and format, with the columns path (in the folder) and
            labels, and where wanted user (else the path's first folder), fine_labels and partition.
        label_separator: What stands between labels in that file; by default '|'.
        seed: By which users are dealt out 8:1:1 to train, val and test where that file has no column partition; by
            default 0.

    Bounds on what is not trusted:
        max_image_pixels: Pixels that one photograph may have; more are refused before they are decoded.
        max_image_bytes: Bytes that one encoded photograph may have.
        max_image_scans: Scans that one progressive JPEG may have.
        max_label_bytes: Bytes that a file of labels may have.
        max_archive_growth: How many times an archive or a parquet column may grow when it is unpacked.
    """
    summary = preparation.prepare(
        source=source,
        output=output,
        labels=labels,
        label_separator=label_separator,
        seed=seed,
        source_format=source_format,
        skip_bad_images=skip_bad_images,
        ignore_label_relation=ignore_label_relation,
        image_encoding=image_encoding,
        not_group_data_by_user=not_group_data_by_user,
        limits=Limits(
            image_pixels=max_image_pixels,
            image_bytes=max_image_bytes,
            image_scans=max_image_scans,
            label_bytes=max_label_bytes,
            archive_growth=max_archive_growth,
        ),
        track=track,
    )
    say(words_of(summary))


def words_of(summary: PrepareSummary) -> str:
    """The summary as lines for people, the next command last."""
    lines = [f"{summary.output}: {summary.num_bytes / 1e6:,.1f} MB in {summary.seconds:.1f} s from {summary.source}"]
    for name in summary.users:
        lines.append(f"  {name:5} {summary.users[name]:>8,} users {summary.images[name]:>9,} images")
    if not all(summary.users.values()):
        empty = " and ".join(name for name, number in summary.users.items() if not number)
        lines.append(f"  training needs users in train, val and test; there are none in {empty}")
    lines.append(f"  {summary.labels} labels, {summary.fine_grained_labels} fine-grained labels")
    for reason, count in summary.reencoded.items():
        lines.append(f"  re-encoded {count:,}: {reason}")
    for reason, count in summary.ignored.items():
        lines.append(f"  ignored {count:,}: {reason}")
    for line in summary.skipped:
        lines.append(f"  skipped {line}")
    if is_store(summary.output):
        lines.append(f"Next: fedflair describe {summary.output}")
    return "\n".join(lines)
