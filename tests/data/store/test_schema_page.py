"""docs/store.md against a store that was just made: every name, kind, type and shape, and the fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fedflair.data.preparation.prepare import prepare
from fedflair.data.store.packed import FORMAT, PARTITIONS, SCHEMA_VERSION, open_store
from tests.data.own_photographs import write_own
from tests.data.releases import records, write_hub

PAGE = (Path(__file__).parents[3] / "docs" / "store.md").read_text(encoding="utf-8")
KINDS = {"bytes": "|S", "int64": "<i8", "uint16": "<u2", "uint8": "|u1"}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, less the header."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a release, and of people's own photographs, without fine labels."""
    folder = tmp_path_factory.mktemp("stores")
    prepare(source=write_hub(folder / "hub", records()), output=folder / "hub.hdf5")
    photographs, table = write_own(folder)
    prepare(source=photographs, labels=table, output=folder / "own.hdf5")
    return [folder / "hub.hdf5", folder / "own.hdf5"]


def test_the_root(stores: list[Path]) -> None:
    described = {name: (kind, of) for cell, kind, of, _ in rows("The root") for name in names(cell)}
    for store in stores:
        with h5py.File(store) as file:
            found = {
                name: ("attribute", "text" if isinstance(value, str) else "integer")
                for name, value in file.attrs.items()
            }
            for name, item in file.items():
                found[name] = ("group", "") if isinstance(item, h5py.Group) else ("dataset", f"{item.dtype} [bytes]")
            assert found == described
            assert (file.attrs["format"], file.attrs["schema_version"]) == (FORMAT, SCHEMA_VERSION)
    assert f"always `{FORMAT}`" in PAGE
    assert max(int(version) for version, *_ in rows("Versions")) == SCHEMA_VERSION


def test_a_partition(stores: list[Path]) -> None:
    described = {names(cell)[0]: (kind, shape) for cell, kind, shape, _ in rows("A partition")}
    for store in stores:
        with h5py.File(store) as file:
            for partition in PARTITIONS:
                group = file[partition]
                assert set(group) == set(described)
                sizes = {"u": len(group["user_ids"]), "n": len(group["image_ids"]), "bytes": len(group["images"])}
                sizes |= {"l": len(group["label_indices"]), "f": len(group["fine_label_indices"])}
                for name, (kind, shape) in described.items():
                    size, _, more = shape.strip("[]").partition(" + ")
                    assert group[name].shape == (sizes[size] + int(more or 0),), name
                    assert group[name].dtype.str.startswith(KINDS[kind]), name
                    assert group[name].chunks is None and group[name].compression is None
                for name in names("`user_offsets` `image_offsets` `label_offsets` `fine_label_offsets`"):
                    assert group[name][0] == 0 and (np.diff(group[name][:]) >= 0).all()


def test_the_metadata_and_the_fingerprint(stores: list[Path]) -> None:
    described = [names(cell)[0] for cell, _ in rows("The metadata")]
    told = names(PAGE.split("`provenance` has ", 1)[1].split("A reader depends", 1)[0])
    for store in stores:
        with h5py.File(store) as file:
            metadata: dict[str, Any] = json.loads(file["metadata"][()].tobytes())
            assert list(metadata) == described
            lists = {key: metadata[key] for key in ("labels", "fine_grained_labels", "fine_to_coarse")}
            columns = hashlib.sha256(json.dumps(lists, sort_keys=True).encode())
            for partition in sorted(PARTITIONS):
                for name in sorted(set(file[partition]) - {"images"}):
                    column = file[partition][name][:]
                    if name == "user_ids":
                        content = json.dumps([user_id.decode() for user_id in column]).encode()
                    else:
                        content = column.astype(column.dtype.newbyteorder("<")).tobytes()
                    columns.update(f"\n{partition} {name} {len(content)}\n".encode() + content)
            images = {name: hashlib.sha256(file[name]["images"][:].tobytes()).hexdigest() for name in PARTITIONS}
        assert metadata["digests"] == {"columns": columns.hexdigest(), "images": images}
        both = json.dumps([columns.hexdigest(), images], sort_keys=True).encode()
        assert open_store(store).fingerprint == "sha256:" + hashlib.sha256(both).hexdigest()
        own = metadata["provenance"]["source"] == "photographs"
        assert set(metadata["provenance"]) == set(told) - (set() if own else {"labels", "labels_sha256", "seed"})
