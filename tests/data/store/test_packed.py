from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.store.new_file import check_space
from fedflair.data.store.packed import PartitionColumns, StoreMetadata, is_store, open_store
from fedflair.data.store.writing import create
from fedflair.errors import DataError
from tests.conftest import jpeg, write_tiny_store
from tests.data.writes import recorded_writes
from tests.properties import examples


def test_a_store_gives_back_what_was_written(tmp_path: Path):
    columns = PartitionColumns(
        user_ids=["", "a/b", "ü"],
        user_offsets=np.array([0, 0, 2, 3]),
        image_ids=np.array([5, 42_400_000_000, 7]),
        image_offsets=np.array([0, 2, 2, 5]),
        label_offsets=np.array([0, 1, 2, 4]),
        label_indices=np.array([1, 0, 0, 1], dtype=np.uint16),
        fine_label_offsets=np.array([0, 0, 1, 1]),
        fine_label_indices=np.array([299], dtype=np.uint16),
    )
    metadata = StoreMetadata(
        ("x", "y"), tuple(f"f{k}" for k in range(300)), {"f0": "x"}, {"source": "test", "numbers": [1, 2]}
    )
    with create(tmp_path / "s.hdf5") as writer:
        images = writer.partition("val", columns)
        assert writer.write_images(images, 0, [b"\x01\x02"]) == 2
        assert writer.write_images(images, 2, [b"", b"\x03", b"\x04\x05"]) == 5
        with pytest.raises(DataError, match="do not fit"):
            writer.write_images(images, 4, [b"ab"])
        writer.metadata(metadata)
    store = open_store(tmp_path / "s.hdf5")
    assert store.metadata == metadata
    assert list(store.partitions) == ["val"]
    partition = store.partitions["val"]
    for field in dataclasses.fields(columns):
        np.testing.assert_array_equal(getattr(partition.columns, field.name), getattr(columns, field.name))
    assert [partition.encoded(k).tolist() for k in range(3)] == [[1, 2], [], [3, 4, 5]]
    assert list(partition.user_slice(1)) == [0, 1]
    np.testing.assert_array_equal(partition.multi_hot(range(3), 2, fine=False), [[0, 1], [1, 0], [1, 1]])


def test_equal_content_gives_equal_bytes(tmp_path: Path, tiny_store: Path):
    assert write_tiny_store(tmp_path / "again.hdf5").read_bytes() == tiny_store.read_bytes()


@pytest.fixture(scope="module")
def cut_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut") / "cut.hdf5"


@examples(200, keeps_fixtures=True)
@given(st.data())
def test_a_store_cut_at_any_byte_does_not_open(tiny_store: Path, cut_path: Path, data: st.DataObject):
    whole = tiny_store.read_bytes()
    cut_path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match=r"cut\.hdf5") as caught:
        open_store(cut_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_store_says_so(tmp_path: Path):
    with pytest.raises(DataError, match=r"no such store.*fedflair prepare"):
        open_store(tmp_path / "missing.hdf5")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match=r"text: damaged, cut short or not an HDF5 file.*prepare it again"):
        open_store(tmp_path / "text")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="not a fedflair store; convert it"):
        open_store(tmp_path / "other.hdf5")
    assert not is_store(tmp_path / "other.hdf5") and not is_store(tmp_path / "text") and not is_store(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path):
    path = write_tiny_store(tmp_path / "s.hdf5")
    assert is_store(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 2
    with pytest.raises(DataError, match="schema version 2 is newer"):
        open_store(path)


@pytest.mark.parametrize("field", ["user_offsets", "image_offsets", "label_offsets", "fine_label_offsets"])
def test_columns_that_do_not_fit_are_refused(tmp_path: Path, field: str):
    path = write_tiny_store(tmp_path / "s.hdf5")
    with h5py.File(path, "r+") as file:
        file["train"][field][1] = 10**9
    with pytest.raises(DataError, match=f"partition 'train': damaged: its {field} do not fit; prepare it again"):
        open_store(path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_writer_leaves_what_was_there(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "s.hdf5"
    path.write_text("before")
    with pytest.raises(error), create(path):
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_writer_of_one_store_is_refused_and_the_first_unharmed(tmp_path: Path):
    with create(tmp_path / "s.hdf5") as writer:
        with pytest.raises(DataError, match="another process is writing it"), create(tmp_path / "s.hdf5"):
            pass
        writer.metadata(StoreMetadata((), (), {}, {}))
    assert open_store(tmp_path / "s.hdf5").partitions == {}


def test_what_a_killed_writer_left_is_reused(tmp_path: Path):
    (tmp_path / ".s.hdf5.partial").write_bytes(b"rubbish" * 1000)
    write_tiny_store(tmp_path / "s.hdf5")
    assert open_store(tmp_path / "s.hdf5").partitions["train"].num_images == 24
    assert [path.name for path in tmp_path.iterdir()] == ["s.hdf5"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"s\.hdf5: (Not a directory|File exists): a file stands where"):
        write_tiny_store(tmp_path / "file" / "s.hdf5")


def test_too_little_space_is_said_beforehand(tmp_path: Path):
    check_space(tmp_path / "s.hdf5", 1)
    with pytest.raises(DataError, match=r"s\.hdf5: needs 1,000,000,000,000 MB, the disk has .* free some space"):
        check_space(tmp_path / "s.hdf5", 10**18)


def test_prefetching_reaches_every_image_of_every_partition(tiny_store: Path):
    for partition in open_store(tiny_store).partitions.values():
        before = [partition.encoded(image).tobytes() for image in range(partition.num_images)]
        for images in (range(partition.num_images), np.array([0, 2, partition.num_images - 1]), range(0), range(3, 4)):
            partition.prefetch(images)
        assert before == [partition.encoded(image).tobytes() for image in range(partition.num_images)]


CUT = """
import os, sys
from pathlib import Path
from fedflair.data.images.decode import decode_rgb
from fedflair.data.store.packed import open_store
from fedflair.errors import DataError
path = Path(sys.argv[1])
train = open_store(path).partitions["train"]
before = train.encoded(train.num_images - 1)
os.truncate(path, 4096)
decode_rgb(before)
try:
    decode_rgb(train.encoded(train.num_images - 1))
except DataError as error:
    sys.exit(str(error))
"""


def test_a_store_cut_short_while_it_is_read_is_one_line_and_not_a_bus_error(tmp_path: Path):
    path = write_tiny_store(tmp_path / "s.hdf5")
    done = subprocess.run([sys.executable, "-c", CUT, str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{path}: was cut short while it was in use (4,096 bytes are left); put the whole store back" in done.stderr


def test_a_store_that_is_replaced_while_it_is_read_goes_on_as_it_was(tmp_path: Path):
    path = write_tiny_store(tmp_path / "s.hdf5")
    train = open_store(path).partitions["train"]
    before = train.encoded(3).tobytes()
    write_tiny_store(path, encode=lambda image: jpeg(image + 100))
    assert train.encoded(3).tobytes() == before != open_store(path).partitions["train"].encoded(3).tobytes()


def columns(**changes: Any) -> PartitionColumns:
    """Two users, three images of two bytes."""
    whole: dict[str, Any] = {
        "user_ids": ["a", "b"],
        "user_offsets": np.array([0, 2, 3]),
        "image_ids": np.array([7, 8, 9]),
        "image_offsets": np.array([0, 2, 4, 6]),
        "label_offsets": np.array([0, 1, 3, 4]),
        "label_indices": np.array([1, 0, 1, 0]),
        "fine_label_offsets": np.array([0, 1, 2, 3]),
        "fine_label_indices": np.array([0, 0, 2]),
    }
    return PartitionColumns(**(whole | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label_indices": np.array([1, 0, 2, 0])},
            "label_indices name a label that is none of the 2, first at image 8",
        ),
        (
            {"fine_label_indices": np.array([0, 0, 3])},
            "fine_label_indices name a label that is none of the 3, first at",
        ),
        ({"label_indices": np.array([1, 1, 0, 0])}, "label_indices do not ascend within an image"),
        ({"label_indices": np.array([1, 1, 1, 0])}, "label_indices do not ascend within an image"),
        ({"label_offsets": np.array([0, 1, 2, 3])}, "label_offsets do not fit"),
        ({"fine_label_offsets": np.array([0, 1, 2, 4])}, "fine_label_offsets do not fit"),
        ({"user_offsets": np.array([0, 2, 2])}, "user_offsets do not fit"),
        ({"user_offsets": np.array([0, 2, 4])}, "user_offsets do not fit"),
        ({"user_offsets": np.array([1, 2, 3])}, "user_offsets do not fit"),
        ({"user_offsets": np.array([0, 3])}, "user_offsets do not fit"),
        ({"image_offsets": np.array([0, 4, 2, 6])}, "image_offsets do not fit"),
        ({"user_ids": ["a", "a"]}, "user_ids hold one twice"),
    ],
)
def test_every_index_is_checked_on_opening(tmp_path: Path, changes: dict[str, Any], message: str):
    def write(path: Path, of: PartitionColumns) -> Path:
        with create(path) as writer:
            writer.write_images(writer.partition("train", of), 0, [b"12", b"34", b"56"])
            writer.metadata(StoreMetadata(("x", "y"), ("f", "g", "h"), {}, {}))
        return path

    open_store(write(tmp_path / "sound.hdf5", columns()))
    with pytest.raises(DataError) as caught:
        open_store(write(tmp_path / "s.hdf5", columns(**changes)))
    assert f"s.hdf5: partition 'train': damaged: its {message}" in str(caught.value)


@pytest.mark.parametrize(("last", "told"), [(5, "holds 6 image bytes, its index says 5"), (7, "its index says 7")])
def test_the_last_offset_is_the_length_of_the_data(tmp_path: Path, last: int, told: str):
    with create(tmp_path / "s.hdf5") as writer:
        writer.write_images(writer.partition("train", columns()), 0, [b"123456"])
        writer.metadata(StoreMetadata(("x", "y"), ("f", "g", "h"), {}, {}))
    with h5py.File(tmp_path / "s.hdf5", "r+") as file:
        file["train/image_offsets"][3] = last
    with pytest.raises(DataError, match=told):
        open_store(tmp_path / "s.hdf5")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ["x", 5]}, "labels of its metadata are not a list of texts"),
        ({"labels": "xy"}, "labels of its metadata are not a list of texts"),
        ({"labels": ["x", "\ud800"]}, "labels of its metadata are not a list of texts"),
        ({"fine_grained_labels": ["f", "f"]}, "fine_grained_labels of its metadata have a name twice"),
        ({"fine_to_coarse": {"f": 1}}, "fine_to_coarse of its metadata does not lead from text to text"),
        ({"provenance": []}, "provenance of its metadata is no object"),
    ],
)
def test_names_that_are_no_texts_are_refused(tmp_path: Path, fields: dict[str, Any], message: str):
    path = write_tiny_store(tmp_path / "s.hdf5")
    with h5py.File(path, "r+") as file:
        raw = json.loads(file["metadata"][()].tobytes()) | fields
        del file["metadata"]
        file["metadata"] = np.frombuffer(json.dumps(raw).encode(), dtype=np.uint8)
    with pytest.raises(DataError, match=message):
        open_store(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", ""])
def test_metadata_that_is_no_json_is_refused(tmp_path: Path, text: str):
    path = write_tiny_store(tmp_path / "s.hdf5")
    with h5py.File(path, "r+") as file:
        del file["metadata"]
        file["metadata"] = np.frombuffer(text.encode(), dtype=np.uint8)
    with pytest.raises(DataError, match=r"s\.hdf5.*metadata"):
        open_store(path)


def test_readers_need_no_lock(tmp_path: Path):
    path = write_tiny_store(tmp_path / "s.hdf5")
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_store(path)
        assert open_store(path).partitions["train"].num_images == 24


def test_what_the_system_refuses_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_tiny_store(tmp_path / "s.hdf5")
    for number in (errno.ENOLCK, errno.EACCES, errno.EAGAIN, errno.EIO):

        def refuse(*arguments: object, number: int = number, **options: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(h5py, "File", refuse)
        with pytest.raises(DataError, match=r"cannot be read now") as caught:
            open_store(path)
        assert "prepare" not in str(caught.value) and "damaged" not in str(caught.value)


def test_a_lock_that_cannot_be_had_stops_no_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert open_store(write_tiny_store(tmp_path / "s.hdf5")).partitions["train"].num_images == 24


@pytest.mark.parametrize("planted", ["symlink", "hard link", "dangling", "pipe"])
def test_what_was_planted_under_the_temporary_name_is_not_written_through(tmp_path: Path, planted: str):
    victim, temporary = tmp_path / "victim", tmp_path / ".s.hdf5.partial"
    victim.write_text("dear")
    if planted == "symlink":
        temporary.symlink_to(victim)
    elif planted == "hard link":
        temporary.hardlink_to(victim)
    elif planted == "dangling":
        temporary.symlink_to(tmp_path / "new")
    else:
        os.mkfifo(temporary)
    open_store(write_tiny_store(tmp_path / "s.hdf5"))
    assert victim.read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.hdf5", "victim"]


def test_a_pipe_is_no_store(tmp_path: Path):
    os.mkfifo(tmp_path / "s.hdf5")
    with pytest.raises(DataError, match="no such store"):
        open_store(tmp_path / "s.hdf5")


def test_a_store_takes_its_name_only_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with recorded_writes(monkeypatch) as order:
        write_tiny_store(tmp_path / "s.hdf5")
    assert order == ["fsync .s.hdf5.partial", "rename .s.hdf5.partial s.hdf5", f"fsync {tmp_path.name}"]


def test_images_and_their_users_have_names(tiny_store: Path):
    encoded = open_store(tiny_store).partitions["val"].encoded(4)
    assert encoded.place == f"{tiny_store}: image 28 of user 'val-1@N01' in partition 'val'"
