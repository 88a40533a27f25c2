from __future__ import annotations

import io
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedflair.data.preparation.packing import pack
from fedflair.data.preparation.prepare import prepare
from fedflair.data.sources.records import Record, Source
from fedflair.data.store.packed import Store, open_store
from fedflair.data.store.writing import create
from fedflair.errors import DataError
from tests.conftest import jpeg
from tests.data.releases import (
    RELATION,
    changed,
    contents,
    encoded,
    expected,
    record,
    records,
    write_apple,
    write_apple_folder,
    write_hub,
)


def source_of(made: list[Record], **options: Any) -> Source:
    named = [replace(r, where=f"file: row {k + 1}") for k, r in enumerate(made)]
    return Source("test", Path("folder"), lambda: iter(named), **{"fine_to_coarse": RELATION, **options})


def pack_all(tmp_path: Path, made: list[Record], **options: Any) -> Store:
    pack(source_of(made), tmp_path / "store.hdf5", **options)
    return open_store(tmp_path / "store.hdf5")


def error_of(tmp_path: Path, made: list[Record], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        pack_all(tmp_path, made, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    return str(caught.value)


def without_provenance(store: Store) -> list[Any]:
    columns = [vars(partition.columns) for partition in store.partitions.values()]
    images = [partition.images.read(0, len(partition.images)) for partition in store.partitions.values()]
    values = [v.tolist() if isinstance(v, np.ndarray) else v for column in columns for v in column.values()]
    return [store.metadata.labels, store.metadata.fine_grained_labels, store.metadata.fine_to_coarse, values, images]


def test_the_store_holds_the_records_it_came_from(tmp_path: Path):
    store = pack_all(tmp_path, records())
    assert contents(store) == expected(records())
    assert store.metadata.labels == ("animal", "food", "outdoor", "plant")
    assert store.metadata.fine_grained_labels == ("bread", "cat", "dog", "sky", "tree")
    assert store.metadata.fine_to_coarse == RELATION
    train = store.partitions["train"]
    assert train.user_ids == ["a@N01", "b@N01", "c/d@N02"]
    assert train.columns.user_offsets.tolist() == [0, 1, 4, 6]
    assert train.columns.image_ids.tolist() == [9, 7, 30, 42_400_000_000, 3, 11]
    for partition in store.partitions.values():
        for image in range(partition.num_images):
            assert (np.diff(partition.label_indices(image, fine=True).astype(int)) > 0).all()


def test_every_form_and_order_gives_the_same_store(tmp_path: Path):
    forms = {
        "hub": write_hub(tmp_path / "hub", records()),
        "tar": write_apple(tmp_path / "tar", records()),
        "folder": write_apple_folder(tmp_path / "folder", reversed(records())),
    }
    stores = {}
    for name, folder in forms.items():
        prepare(source=folder, output=tmp_path / f"{name}.hdf5")
        stores[name] = open_store(tmp_path / f"{name}.hdf5")
    assert without_provenance(stores["hub"]) == without_provenance(stores["tar"])
    assert without_provenance(stores["hub"]) == without_provenance(stores["folder"])
    assert contents(stores["hub"]) == expected(records())
    provenance = stores["tar"].metadata.provenance
    assert (provenance["source"], provenance["path"]) == ("apple", str(forms["tar"]))
    assert provenance["images"] == {"train": 6, "val": 2, "test": 2}


def test_the_summary_counts(tmp_path: Path):
    made = records()
    grey = encoded(Image.new("L", (256, 256), 90), "JPEG")
    made[0] = replace(made[0], image=grey)
    made[1] = replace(made[1], image=grey)
    made[2] = replace(made[2], image=encoded(Image.new("RGBA", (300, 20)), "PNG"))
    made[3] = replace(made[3], image=made[3].image[:-30])
    source = write_hub(tmp_path / "hub", made)
    summary = prepare(source=source, output=tmp_path / "s.hdf5", skip_bad_images=True)
    assert summary.users == {"train": 3, "val": 1, "test": 1}
    assert summary.images == {"train": 5, "val": 2, "test": 2}
    assert summary.reencoded == {"PNG": 1, "grey JPEG": 2}
    assert summary.num_bytes == (tmp_path / "s.hdf5").stat().st_size
    bad = f"train-00001-of-00002.parquet: row 1: image {made[3].image_id} is bad: truncated JPEG"
    assert len(summary.skipped) == 1 and bad in summary.skipped[0]
    store = contents(open_store(tmp_path / "s.hdf5"))
    assert made[3].image_id not in store
    kept = np.asarray(Image.open(io.BytesIO(store[made[0].image_id][4])))
    assert kept.shape == (256, 256, 3) and abs(kept.astype(int) - 90).max() <= 1


def test_results_of_the_pool_keep_the_order_of_the_source(tmp_path: Path):
    # Slow images (large, to be re-encoded) among quick ones: each must come out under its own id.
    made = []
    for k in range(24):
        colour = (k * 6, 255 - k * 6, 40)
        side = 900 if k % 3 == 0 else 256
        kind = "PNG" if k % 3 == 0 else "JPEG"
        made.append(record(f"u{k % 4}", k, "train", ["cat"], encoded(Image.new("RGB", (side, side), colour), kind)))
    first = pack_all(tmp_path, made)
    for image_id, (_, _, _, _, image) in contents(first).items():
        pixel = np.asarray(Image.open(io.BytesIO(image)))[128, 128].astype(int)
        assert abs(pixel - (image_id * 6, 255 - image_id * 6, 40)).max() <= 3
    before = without_provenance(first)
    assert without_provenance(pack_all(tmp_path, made[::-1])) == before


@pytest.mark.parametrize("user_id", ["a/b", "/", "..", ".", "ü@\U0001f600", " ", "a\nb", "%2F", "-", "x" * 3000])
def test_odd_user_ids_survive(tmp_path: Path, user_id: str):
    made = [*records(), record(user_id, 99, "val", ["cat"], jpeg(1))]
    assert contents(pack_all(tmp_path, made))[99][0] == user_id


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"user_id": ""}, "file: row 5: user_id '' is empty"),
        ({"user_id": "a\x00"}, r"file: row 5: user_id 'a\x00' is empty or holds a NUL"),
        ({"user_id": "\ud800"}, "file: row 5: user_id '\\ud800' is not valid Unicode"),
        ({"partition": "training"}, "file: row 5: partition 'training' is unknown; it must be one of train, val, test"),
        ({"labels": ()}, "file: row 5: image 77 has no labels"),
        ({"fine_grained_labels": ()}, "file: row 5: image 77 has no fine_grained_labels"),
        ({"fine_grained_labels": ("cat", "wolf")}, "file: row 5: unknown fine-grained label 'wolf'"),
        ({"labels": ("animal", "zoo")}, "file: row 5: labels ['animal', 'zoo'] disagree with label_relationship.txt"),
        ({"image": b""}, "file: row 5: image 77 is bad: no image data at all; correct it, or pass --skip_bad_images"),
        ({"image": b"text"}, "file: row 5: image 77 is bad: not an image of a known format"),
        ({"image": jpeg(5)[:700]}, "file: row 5: image 77 is bad: truncated JPEG"),
        (
            {"image": encoded(Image.open(io.BytesIO(jpeg(5))), "PNG")[:5000]},
            "file: row 5: image 77 is bad: cannot be decoded",
        ),
    ],
)
def test_a_bad_record_names_its_row(tmp_path: Path, fields: dict[str, Any], message: str):
    assert message in error_of(tmp_path, changed(4, **{"image_id": 77, **fields}))


def test_a_user_in_two_partitions(tmp_path: Path):
    message = error_of(tmp_path, [*records(), record("a@N01", 99, "test", ["cat"], jpeg(1))])
    assert (
        "file: row 11: user 'a@N01' is in partition 'test' here and in 'train' in file: row 6; a user belongs"
        in message
    )


def test_a_duplicate_image_id(tmp_path: Path):
    made = records()
    twice = replace(made[2], user_id="another", image=jpeg(3))
    message = error_of(tmp_path, [*made, twice])
    assert f"file: row 11: duplicate image id {made[2].image_id}, first seen in file: row 3" in message


def test_dev_and_validation_are_val(tmp_path: Path):
    made = [replace(r, partition="dev") if r.partition == "val" else r for r in records()]
    made.append(record("w", 99, "validation", ["cat"], jpeg(1)))
    assert pack_all(tmp_path, made).partitions["val"].user_ids == ["w", "ü@N03"]


def test_a_relation_that_disagrees_can_be_ignored(tmp_path: Path):
    made = changed(0, labels=("zoo",), fine_grained_labels=("wolf", "wolf"))
    store = pack_all(tmp_path, made, check_relation=False)
    assert contents(store)[made[0].image_id][2:4] == (("zoo",), ("wolf",))
    pack(source_of(made, fine_to_coarse={}), tmp_path / "none.hdf5")


def test_declared_labels_keep_their_order_and_bound_the_rest(tmp_path: Path):
    declared = ("plant", "outdoor", "never", "food", "animal")
    pack(source_of(records(), labels=declared), tmp_path / "s.hdf5")
    assert open_store(tmp_path / "s.hdf5").metadata.labels == declared
    assert contents(open_store(tmp_path / "s.hdf5"))[9][2] == ("plant", "animal")
    with pytest.raises(DataError, match="folder: label 'animal' is not in the file's own label list"):
        pack(source_of(records(), labels=declared[:-1]), tmp_path / "t.hdf5")


def test_nothing_to_store(tmp_path: Path):
    assert "folder: holds no image that can be stored" in error_of(tmp_path, [])
    only_bad = [replace(records()[0], image=b"x")]
    assert "holds no image" in error_of(tmp_path, only_bad, skip_bad_images=True)


def test_an_error_of_the_source_leaves_nothing(tmp_path: Path):
    def fails():
        yield from records()[:4]
        raise DataError("file: damaged")

    with pytest.raises(DataError, match="file: damaged"):
        pack(Source("test", Path("folder"), fails, {}), tmp_path / "s.hdf5")
    assert list(tmp_path.iterdir()) == []


def test_a_second_prepare_into_one_file_is_refused(tmp_path: Path):
    source = write_hub(tmp_path / "hub", records())
    with create(tmp_path / "s.hdf5"), pytest.raises(DataError, match=r"s\.hdf5: another process is writing it"):
        prepare(source=source, output=tmp_path / "s.hdf5")
    prepare(source=source, output=tmp_path / "s.hdf5")
    assert contents(open_store(tmp_path / "s.hdf5")) == expected(records())


def test_the_source_is_not_overwritten(tmp_path: Path):
    prepare(source=write_hub(tmp_path / "hub", records()), output=tmp_path / "s.hdf5")
    with pytest.raises(DataError, match="is the source itself"):
        prepare(source=tmp_path / "s.hdf5", output=tmp_path / "hub" / ".." / "s.hdf5")
    with pytest.raises(DataError, match="is a folder"):
        prepare(source=tmp_path / "hub", output=tmp_path)
    assert contents(open_store(tmp_path / "s.hdf5")) == expected(records())


SLOW = """
import sys
from pathlib import Path
from fedflair.data.sources import open_source
from fedflair.data.preparation.packing import pack
from dataclasses import replace
source = open_source(Path(sys.argv[1]))
def slow():
    records = list(source.records())
    yield from records[:6]
    print("half", flush=True)
    sys.stdin.read()
pack(replace(source, records=slow), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_prepare_leaves_no_store_and_does_not_block_the_next(tmp_path: Path, number: signal.Signals):
    source = write_hub(tmp_path / "hub", records())
    output = tmp_path / "out" / "s.hdf5"
    command = [sys.executable, "-c", SLOW, str(source), str(output)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        assert not output.exists()
        with pytest.raises(DataError, match=r"s\.hdf5: another process is writing it"):
            prepare(source=source, output=output)
        process.send_signal(number)
        # Closes its stdin, and with it the source, for whose thread an interrupted process waits.
        process.communicate(timeout=30)
        assert process.returncode != 0
    assert not output.exists()
    if number == signal.SIGINT:
        assert list(output.parent.iterdir()) == []
    prepare(source=source, output=output)
    assert contents(open_store(output)) == expected(records())
    assert [path.name for path in output.parent.iterdir()] == ["s.hdf5"]


LIMITED = """
import resource, sys
from pathlib import Path
from fedflair.data.preparation.prepare import prepare
from fedflair.errors import DataError
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    prepare(source=Path(sys.argv[1]), output=Path(sys.argv[2]))
except DataError as error:
    sys.exit(f"{error}")
"""


@pytest.mark.parametrize("share", [0.2, 0.99, 0.998])
def test_a_disk_that_fills_is_one_line(tmp_path: Path, share: float):
    made = [replace(r, image=r.image + bytes(50_000)) for r in records()]
    source = write_hub(tmp_path / "hub", made)
    prepare(source=source, output=tmp_path / "whole.hdf5")
    limit = int((tmp_path / "whole.hdf5").stat().st_size * share)
    output = tmp_path / "out" / "s.hdf5"
    command = [sys.executable, "-c", LIMITED, str(source), str(output), str(limit)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{output}: cannot be written (File too large): free some space" in done.stderr
    assert list(output.parent.iterdir()) == []
