from __future__ import annotations

import fcntl
import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.images.limits import Limits
from fedflair.data.preparation.packing import pack
from fedflair.data.preparation.prepare import prepare
from fedflair.data.sources import open_source
from fedflair.data.sources.hdf5_layouts import group_name, recognise_layout, user_id_of
from fedflair.data.sources.records import Record
from fedflair.data.store.packed import open_store
from fedflair.errors import DataError
from tests.data.releases import contents, records

LABELS = ["animal", "food", "outdoor", "plant"]
FINE = ["bread", "cat", "dog", "sky", "tree"]


def pixels_of(image_id: int) -> np.ndarray:
    coarse = np.random.default_rng(image_id).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return coarse.repeat(32, axis=0).repeat(32, axis=1)


def users(made: list[Record]) -> dict[tuple[str, str], list[Record]]:
    grouped: dict[tuple[str, str], list[Record]] = {}
    for r in made:
        grouped.setdefault((r.partition, r.user_id.replace("/", "_")), []).append(r)
    return grouped


def write_pfl(path: Path) -> Path:
    """As pfl-research's script writes it."""
    with h5py.File(path, "w") as file:
        for (partition, user), own in users(records()).items():
            group = file.create_group(f"/{partition}/{user}")
            for prefix, names, dtype in (("labels", LABELS, np.uint8), ("fine_grained_labels", FINE, np.uint16)):
                pairs = [(row, names.index(name)) for row, r in enumerate(own) for name in getattr(r, prefix)]
                group[f"{prefix}_row"] = np.asarray([row for row, _ in pairs], dtype=np.uint16)
                group[f"{prefix}_col"] = np.asarray([column for _, column in pairs], dtype=dtype)
            group["image_ids"] = np.asarray([r.image_id for r in own], dtype="S")
            group["images"] = np.stack([pixels_of(r.image_id) for r in own])
        file["/metadata/label_mapping"] = json.dumps({name: k for k, name in enumerate(LABELS)})
        file["/metadata/fine_grained_label_mapping"] = json.dumps({name: k for k, name in enumerate(FINE)})
    return path


def write_ml_flair(path: Path) -> Path:
    """As ml-flair's script writes it, grouped by user."""
    with h5py.File(path, "w") as file:
        for (partition, user), own in users(records()).items():
            group = file.create_group(f"/{partition}/{user}")
            for field in ("labels", "fine_grained_labels"):
                group[field] = np.asarray(["|".join(getattr(r, field)) for r in own], dtype="S")
            group["image_ids"] = np.asarray([str(r.image_id) for r in own], dtype="S")
            group["images"] = np.stack([pixels_of(r.image_id) for r in own])
        _write_counters(file)
    return path


def write_central(path: Path) -> Path:
    """As ml-flair's script writes it, not grouped by user."""
    with h5py.File(path, "w") as file:
        for r in records():
            group = file.create_group(f"/{r.partition}/{r.image_id}")
            group["image"] = pixels_of(r.image_id)
            group["labels"] = "|".join(r.labels)
            group["fine_grained_labels"] = "|".join(r.fine_grained_labels)
            group["user_id"] = r.user_id.replace("/", "_")
        _write_counters(file)
    return path


def _write_counters(file: h5py.File) -> None:
    file["/metadata/label_counter"] = json.dumps(Counter(name for r in records() for name in r.labels))
    fine = Counter(name for r in records() for name in r.fine_grained_labels)
    file["/metadata/fine_grained_label_counter"] = json.dumps(fine)


WRITERS = {"pfl": write_pfl, "ml-flair": write_ml_flair, "ml-flair-central": write_central}


@pytest.mark.parametrize("layout", WRITERS)
def test_other_tools_files_are_read(tmp_path: Path, layout: str):
    path = WRITERS[layout](tmp_path / "other.hdf5")
    source = open_source(path)
    assert source.name == recognise_layout(path) == layout
    assert (source.labels, source.fine_grained_labels) == (tuple(LABELS), tuple(FINE))
    summary = pack(source, tmp_path / "store.hdf5")
    assert summary.reencoded == {"pixels": 10}
    store = open_store(tmp_path / "store.hdf5")
    assert store.metadata.labels == tuple(LABELS)
    found = contents(store)
    for r in records():
        user_id, partition, labels, fine, image = found[r.image_id]
        assert (user_id, partition) == (r.user_id.replace("/", "_"), r.partition)
        assert (labels, fine) == (tuple(sorted(r.labels)), tuple(sorted(r.fine_grained_labels)))
        assert image.startswith(b"\x89PNG")


def test_pixels_may_be_stored_as_jpeg(tmp_path: Path):
    path = write_pfl(tmp_path / "other.hdf5")
    pack(open_source(path), tmp_path / "store.hdf5", encoding="jpeg")
    assert all(image.startswith(b"\xff\xd8") for *_, image in contents(open_store(tmp_path / "store.hdf5")).values())


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_every_user_id_has_a_group_name_that_leads_back(user_id: str):
    name = group_name(user_id)
    assert "/" not in name and name not in (".", "..")
    assert user_id_of(name) == user_id


@pytest.mark.parametrize(
    ("user_id", "name"),
    [("a/b", "a%2Fb"), ("..", "%2E%2E"), ("59769174@N00", "59769174@N00"), ("a%2Fb", "a%252Fb"), ("5%", "5%")],
)
def test_group_names(user_id: str, name: str):
    assert group_name(user_id) == name


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(open_source(path).records())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def replaced(path: Path, name: str, value: Any) -> Path:
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value
    return path


def test_a_file_of_another_tool(tmp_path: Path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layer_1/kernel"] = np.zeros(3)
    message = error_of(tmp_path / "weights.h5")
    assert "weights.h5: an HDF5 file of another tool (it holds 'layer_1'); looked for /train" in message
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["train/images"] = np.zeros((3, 4))
    assert "an HDF5 file of another tool (it holds 'train')" in error_of(tmp_path / "other.h5")


@pytest.mark.parametrize("layout", WRITERS)
def test_a_file_cut_short(tmp_path: Path, layout: str):
    path = WRITERS[layout](tmp_path / "other.hdf5")
    whole = path.read_bytes()
    for share in (0.001, 0.5, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert f"{path}: damaged, cut short or not an HDF5 file" in error_of(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("metadata/label_mapping", None, "/metadata/label_mapping is missing; make the file again"),
        ("metadata/label_mapping", "{", "/metadata/label_mapping is damaged (not JSON)"),
        ("metadata/label_mapping", "[1]", "/metadata/label_mapping is not a JSON object"),
        ("metadata/label_mapping", '{"a": 1, "b": 1}', "/metadata/label_mapping does not number its labels 0, 1, 2"),
        ("metadata/label_mapping", "[" * 100_000, "/metadata/label_mapping is damaged (nested too deeply)"),
        ("metadata/label_mapping", '{"a": 0, "\\ud800": 1}', "/metadata/label_mapping holds a name that is not valid"),
        ("metadata/label_mapping", '{"a": [0]}', "/metadata/label_mapping does not number its labels 0, 1, 2"),
        ("metadata/label_mapping", np.zeros(3), "/metadata: 'label_mapping' holds float64, not text"),
        ("train/b@N01/images", None, "/train/b@N01: holds no 'images'"),
        ("train/b@N01/images", np.zeros((3, 256, 256), np.uint8), "/train/b@N01: 'images' has the shape (3, 256, 256)"),
        ("train/b@N01/images", np.zeros((3, 8, 8, 3)), "/train/b@N01: 'images' holds float64, not bytes"),
        ("train/b@N01/images", np.zeros((3, 8, 8, 4), np.uint8), "/train/b@N01: pixels are uint8 [8, 8, 4]"),
        ("train/b@N01/image_ids", np.zeros(3), "/train/b@N01: 'image_ids' holds float64, not whole numbers or text"),
        ("train/b@N01/image_ids", np.array([b"1", b"9" * 5000, b"2"]), "/train/b@N01: image 1: image_id is '999"),
        ("train/a@N01/labels_col", np.array([0, -1], np.int8), "/train/a@N01: labels name image 0 and label -1"),
        ("train/a@N01/labels_row", np.array([0, -1], np.int8), "/train/a@N01: labels name image -1 and label"),
        ("train/a@N01/labels_row", np.array([0, 1], np.uint8), "/train/a@N01: labels name image 1 and label"),
        ("train/a@N01/labels_col", np.array([0, 0.5]), "/train/a@N01: 'labels_col' holds float64, not whole numbers"),
        ("train/a@N01", np.zeros(3), "/train: 'a@N01' is no group"),
        ("train/b@N01/image_ids", np.array([b"1"]), "/train/b@N01: 1 image ids for 3 images"),
        ("train/b@N01/image_ids", np.array([b"1", b"x", b"2"]), "/train/b@N01: image 1: image_id is 'x'"),
        ("train/b@N01/labels_row", np.array([0]), "/train/b@N01: labels_row and labels_col differ in length"),
        ("train/a@N01/labels_col", np.array([0, 9], np.uint8), "/train/a@N01: labels name image 0 and label 9"),
    ],
)
def test_damaged_parts_of_pfl_s_layout(tmp_path: Path, name: str, value: Any, message: str):
    path = replaced(write_pfl(tmp_path / "other.hdf5"), name, value)
    assert f"{path}: {message.removeprefix(': ')}" in error_of(path)


def test_images_without_labels_in_ml_flair_s_layout(tmp_path: Path):
    path = replaced(write_ml_flair(tmp_path / "other.hdf5"), "train/a@N01/labels", np.array([b""]))
    with pytest.raises(DataError, match="/train/a@N01: image 0: image 9 has no labels"):
        pack(open_source(path), tmp_path / "store.hdf5")
    replaced(path, "train/a@N01/labels", np.array([b"a", b"b"]))
    assert "/train/a@N01: as many labels as images were expected" in error_of(path)


def hostile(path: Path, how: str) -> Path:
    """pfl's layout in which one user's images are not plain data inside the file."""
    write_pfl(path)
    secret = path.with_name("secret")
    secret.write_bytes(bytes(range(256)) * 768)
    shape, images = (1, 256, 256, 3), "train/a@N01/images"
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["images"] = np.full(shape, 7, np.uint8)
        other["group/images"] = np.full(shape, 7, np.uint8)
    with h5py.File(path, "r+") as file:
        if how == "group":
            del file["train/a@N01"]
            file["train/a@N01"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "group")
            return path
        del file[images]
        if how == "external storage":
            file.create_dataset(images, shape, np.uint8, external=[(str(secret), 0, 196_608)])
        elif how == "external link":
            file[images] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "images")
        elif how == "soft link":
            file[images] = h5py.SoftLink("/train/b@N01/images")
        elif how == "dangling link":
            file[images] = h5py.ExternalLink("nowhere.h5", "images")
        elif how == "virtual":
            layout = h5py.VirtualLayout(shape, np.uint8)
            layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "images", shape)
            file.create_virtual_dataset(images, layout)
        elif how == "references":
            file.create_dataset(images, shape, h5py.ref_dtype)
        elif how == "a group":
            file.create_group(images)
        elif how == "unwritten":
            file.create_dataset(images, shape, np.uint8)
        elif how == "unwritten chunks":
            file.create_dataset(images, shape, np.uint8, chunks=(1, 64, 256, 3), compression="gzip")[:, :64] = 1
        elif how == "plug-in":
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_chunk(shape)
            properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(file["train/a@N01"].id, b"images", h5py.h5t.NATIVE_UINT8, space, properties)
        elif how == "enormous":
            file.create_dataset(images, (1, 60_000, 60_000, 3), np.uint8, chunks=(1, 256, 256, 3), compression="gzip")
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("external storage", "/train/a@N01: 'images' is made of other files' bytes; copy the data into this file"),
        ("virtual", "/train/a@N01: 'images' is made of other files' bytes"),
        ("external link", "/train/a@N01: 'images' is a link to data elsewhere; copy the data into this file"),
        ("dangling link", "/train/a@N01: 'images' is a link to data elsewhere"),
        ("soft link", "/train/a@N01: 'images' is a link to data elsewhere"),
        ("group", "/train: 'a@N01' is a link to data elsewhere"),
        ("references", "/train/a@N01: 'images' holds object, not bytes"),
        ("a group", "/train/a@N01: 'images' is a group, not an array"),
        ("unwritten", "/train/a@N01: 'images' was not wholly written"),
        ("unwritten chunks", "/train/a@N01: 'images' was not wholly written"),
        ("plug-in", "/train/a@N01: 'images' is packed with a plug-in; repack it"),
        ("enormous", "/train/a@N01: 'images' was not wholly written"),
    ],
)
def test_what_is_no_plain_data_inside_the_file_is_refused(tmp_path: Path, how: str, message: str):
    path = hostile(tmp_path / "other.hdf5", how)
    assert message in error_of(path)
    with pytest.raises(DataError):
        prepare(source=path, output=tmp_path / "store.hdf5")
    assert not (tmp_path / "store.hdf5").exists()


def test_compressed_and_chunked_files_are_read(tmp_path: Path):
    path = write_pfl(tmp_path / "other.hdf5")
    whole = [r.image for r in open_source(path).records()]
    with h5py.File(path, "r+") as file:
        for name in ("train/a@N01/images", "train/b@N01/images"):
            pixels = file[name][()]
            del file[name]
            file.create_dataset(name, data=pixels, chunks=(1, 100, 100, 3), compression="gzip", shuffle=True)
    assert [r.image for r in open_source(path).records()] == whole


def test_readers_need_no_lock_and_groups_of_other_names_are_counted(tmp_path: Path):
    path = write_pfl(tmp_path / "other.hdf5")
    with h5py.File(path, "r+") as file:
        file["notes"] = 1
    with path.open("r+b") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        summary = prepare(source=path, output=tmp_path / "store.hdf5")
    assert summary.ignored == {"groups that are no partition": 1}


@pytest.mark.parametrize("how", ["external storage", "external link", "virtual"])
def test_a_packed_store_is_checked_as_well(tmp_path: Path, tiny_store: Path, how: str):
    path = tmp_path / "s.hdf5"
    path.write_bytes(tiny_store.read_bytes())
    with h5py.File(path, "r+") as file:
        size = file["train/images"].shape[0]
        del file["train/images"]
        (tmp_path / "secret").write_bytes(bytes(size))
        if how == "external storage":
            file.create_dataset("train/images", (size,), np.uint8, external=[(str(tmp_path / "secret"), 0, size)])
        elif how == "external link":
            file["train/images"] = h5py.ExternalLink(str(tiny_store), "train/images")
        else:
            layout = h5py.VirtualLayout((size,), np.uint8)
            layout[:] = h5py.VirtualSource(str(tiny_store), "train/images", (size,))
            file.create_virtual_dataset("train/images", layout)
    with pytest.raises(DataError, match=r"partition 'train': 'images' is (a link|made of other files)"):
        open_store(path)


@pytest.mark.parametrize("layout", WRITERS)
def test_large_images_are_refused_by_what_is_declared(tmp_path: Path, layout: str):
    path = WRITERS[layout](tmp_path / "other.hdf5")
    with pytest.raises(DataError, match="256x256 pixels are more than an image may have; see --max_image_pixels"):
        list(open_source(path, limits=Limits(image_pixels=65_535)).records())
    assert list(open_source(path, limits=Limits(image_pixels=65_536)).records())
