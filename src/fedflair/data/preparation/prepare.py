"""A dataset in any of its forms, into one packed store."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedflair.data.images.jpeg import ImageEncoding
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.preparation.layouts import write_through_store
from fedflair.data.preparation.packing import PrepareSummary, Track, pack, untracked
from fedflair.data.sources import open_source
from fedflair.data.sources.photographs import open_photographs
from fedflair.errors import ConfigError, DataError


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
    limits: Limits = DEFAULT,
    track: Track = untracked,
) -> PrepareSummary:
    """Writes ``output`` from the dataset at ``source``; the options are those of ``fedflair prepare``.

    Raises DataError where the source is not what it should be or the output cannot be written, ConfigError for options
    that have no effect.
    """
    check_output(source, output)
    if labels is not None and output.exists() and labels.exists() and labels.samefile(output):
        raise DataError(f"{output}: is the file of labels, which would be lost; choose another name for the output")
    if labels is None:
        for name, value in (("label_separator", label_separator), ("seed", seed)):
            if value is not None:
                raise ConfigError(f"{name}: has no effect without --labels, the CSV file of one's own photographs")
        opened = open_source(source, source_format, limits)
    else:
        if source_format is not None:
            raise ConfigError(f"source_format: {source_format} has no effect with --labels; leave one of them out")
        if label_separator == "":
            raise ConfigError("label_separator: is empty; give the text that stands between labels, such as '|'")
        if not source.exists():
            raise DataError(f"{source}: no such folder; --source is the folder of the photographs")
        opened = open_photographs(source, labels, separator=label_separator, seed=seed, limits=limits)
    write = partial(
        pack,
        opened,
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
