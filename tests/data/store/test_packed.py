from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedflair.data.store.new_file import check_space
from fedflair.data.store.packed import PartitionColumns, StoreMetadata, is_store, open_store
from fedflair.data.store.writing import create
from fedflair.errors import DataError
from tests.conftest import write_tiny_store


def test_a_store_gives_back_what_was_written(tmp_path: Path):
    columns = PartitionColumns(
        user_ids=["", "a/b", "ü"],
        user_offsets=np.array([0, 0, 2, 3]),
        image_ids=np.array([5, 42_400_000_000, 7]),
        image_offsets=np.array([0, 2, 2, 5]),
        label_offsets=np.array([0, 1, 2, 4]),
        label_indices=np.array([1, 0, 0, 1], dtype=np.uint16),
        fine_label_offsets=np.array([0, 0, 1, 1]),
        fine_label_indices=np.array([65535], dtype=np.uint16),
    )
    metadata = StoreMetadata(("x", "y"), ("f",), {"f": "x"}, {"source": "test", "numbers": [1, 2]})
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


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    with pytest.raises(DataError, match="damaged or not a fedflair store"):
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
    with pytest.raises(DataError, match=f"{field} of partition 'train' does not fit"):
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
    with pytest.raises(DataError, match=r"cannot be written \(Not a directory|cannot be written \(File exists"):
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


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="this system does not list a process's mappings")
def test_pages_that_were_dropped_are_read_again(tmp_path: Path):
    path = write_tiny_store(tmp_path / "store.hdf5")
    store = open_store(path)

    def contents() -> list[bytes]:
        return [p.encoded(k).tobytes() for p in store.partitions.values() for k in range(p.num_images)]

    before = contents()
    assert _resident_kilobytes(path) >= sum(map(len, before)) / 1024
    store.drop_pages()
    assert _resident_kilobytes(path) == 0
    assert contents() == before


def _resident_kilobytes(path: Path) -> int:
    """Of all mappings of this file in this process."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total
