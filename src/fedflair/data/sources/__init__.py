"""A release, or another tool's file, as records: SOURCES has every form, and ``open_source`` recognises which it is.

A form's reader is imported when the form is asked for: pyarrow and h5py load slowly, and few datasets need both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.sources.records import Source
from fedflair.errors import DataError
from fedflair.system.files import disk_errors

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _huggingface(path: Path, limits: Limits) -> Source:
    from fedflair.data.sources.huggingface import open_huggingface

    return open_huggingface(path, limits)


def _apple(path: Path, limits: Limits) -> Source:
    from fedflair.data.sources.apple import open_apple

    return open_apple(path, limits)


def _apple_raw(path: Path, limits: Limits) -> Source:
    from fedflair.data.sources.apple import open_apple

    return open_apple(path, limits, raw=True)


def _hdf5(path: Path, limits: Limits) -> Source:
    from fedflair.data.sources.hdf5_layouts import open_hdf5

    return open_hdf5(path, limits)


SOURCES: dict[str, Callable[[Path, Limits], Source]] = {
    "huggingface": _huggingface,
    "apple": _apple,
    "apple-raw": _apple_raw,
    "hdf5": _hdf5,
}


def open_source(path: Path, name: str | None = None, limits: Limits = DEFAULT) -> Source:
    """The dataset at ``path``, in the form ``name`` (a key of SOURCES) or in the form that is recognised there.

    Raises DataError where there is nothing, or nothing of a known form.
    """
    if name is not None and name not in SOURCES:
        raise DataError(f"source format {name!r} is unknown; choose one of {', '.join(SOURCES)}")
    with disk_errors(path):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; 'fedflair download' fetches FLAIR, or correct --source")
        return SOURCES[name or _recognise(path)](path, limits)


def _recognise(path: Path) -> str:
    if path.is_file():
        if path.suffix == ".parquet":
            return "huggingface"
        with path.open("rb") as file:
            if file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE:
                return "hdf5"
        raise DataError(f"{path}: neither a .parquet file nor an HDF5 file; give a dataset's folder or file")
    if not path.is_dir():
        raise DataError(f"{path}: neither a file nor a folder; give a dataset's folder or file")
    from fedflair.data.sources.apple import find_labels
    from fedflair.data.sources.huggingface import check_saved, find_parquet

    if find_labels(path) is not None:
        return "apple"
    if find_parquet(path):
        return "huggingface"
    check_saved(path)
    raise DataError(
        f"{path}: no FLAIR dataset in this folder; looked for data/*.parquet and *.parquet (the hub's form), "
        "labels_and_metadata.json and labels/labels_and_metadata.json (Apple's form); an HDF5 file is given by its "
        "name; photographs of your own need a file of --labels"
    )
