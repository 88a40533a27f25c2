"""A dataset in any of its forms, into one packed store."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedflair.data.images.jpeg import ImageEncoding
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.preparation.layouts import write_through_store
from fedflair.data.preparation.packing import PrepareSummary, Track, pack, untracked
from fedflair.data.sources import open_source
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
    limits: Limits = DEFAULT,
    track: Track = untracked,
) -> PrepareSummary:
    """Writes ``output`` from the dataset at ``source``; the options are those of ``fedflair prepare``.

    Raises DataError where the source is not what it should be or the output cannot be written.
    """
    check_output(source, output)
    write = partial(
        pack,
        open_source(source, source_format, limits),
        encoding=image_encoding,
        skip_bad_images=skip_bad_images,
        check_relation=not ignore_label_relation,
        limits=limits,
        track=track,
    )
    if not_group_data_by_user:
        return write_through_store(output, "ml-flair-central", write)
    return write(output)


def check_output(source: Path, output: Path) -> None:
    """Raises DataError where ``output`` is a folder, or is the source itself, which would be lost."""
    if output.is_dir():
        raise DataError(f"{output}: is a folder; give the name of the file to write")
    if source.exists() and output.exists() and source.samefile(output):
        raise DataError(f"{output}: is the source itself; choose another name for the output")
