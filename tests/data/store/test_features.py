"""The files of features: whole or gone on with, and never believed unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.store.features import PIECE, FeatureFiles, FeatureType, open_features, writing_features
from fedflair.errors import DataError, DiskError
from tests.properties import examples

NUM_IMAGES, DIMENSION = 2 * PIECE + 5, 3
ROWS = np.random.default_rng(0).normal(size=(NUM_IMAGES, DIMENSION)).astype(np.float32)


def write(files: FeatureFiles, *, pieces: int = 3, kind: FeatureType = "float32") -> list[range]:
    """Writes so many of the missing pieces, and the rest of the file if that is all; returns what was missing."""
    with writing_features(files, NUM_IMAGES, DIMENSION, kind) as writer:
        for piece in writer.missing[:pieces]:
            writer.put(piece, ROWS[piece.start : piece.stop])
        if len(writer.missing) <= pieces:
            writer.finish()
        return writer.missing


@pytest.fixture
def files(tmp_path: Path) -> FeatureFiles:
    return FeatureFiles(tmp_path / "store.features" / "key", "train")


@examples(30)
@given(
    images=st.one_of(
        st.tuples(st.integers(0, NUM_IMAGES), st.integers(0, 40)).map(
            lambda pair: np.arange(pair[0], min(sum(pair), NUM_IMAGES))
        ),
        st.lists(st.integers(0, NUM_IMAGES - 1), max_size=9).map(lambda found: np.array(found, dtype=np.int64)),
        st.permutations(range(7, 12)).map(lambda found: np.array(found, dtype=np.int64)),
    )
)
@pytest.mark.parametrize(("kind", "error"), [("float32", 0.0), ("float16", 2e-3)])
def test_rows_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    kind: FeatureType,
    error: float,
    images: npt.NDArray[np.int64],
) -> None:
    files = FeatureFiles(tmp_path_factory.getbasetemp() / f"features-{kind}", "train")
    if not files.facts.exists():
        write(files, kind=kind)
    found = open_features(files, NUM_IMAGES)
    assert found is not None
    assert (found.dimension, found.kind) == (DIMENSION, kind)
    rows = found.of(images)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, ROWS[images], rtol=0, atol=error)
    if len(images):
        first, last = int(images.min()), int(images.max()) + 1
        np.testing.assert_allclose(found.of(range(first, last)), ROWS[first:last], rtol=0, atol=error)


def test_what_a_stopped_process_left_is_gone_on_with(files: FeatureFiles) -> None:
    first, second, third = write(files, pieces=1)
    assert open_features(files, NUM_IMAGES) is None
    # The second piece's line reached the disk, and its rows did not; the third's line was cut short.
    with files.pieces.open("a") as journal:
        journal.write(f"{second.start} {'0' * 64}\n{third.start} 12")
    assert write(files) == [second, third]
    assert not files.pieces.exists()
    found = open_features(files, NUM_IMAGES)
    assert found is not None
    np.testing.assert_array_equal(found.of(range(NUM_IMAGES)), ROWS)
    assert first == range(PIECE)


def test_only_one_process_writes(files: FeatureFiles, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom fedflair.data.store.features import *\n"
        "with writing_features(FeatureFiles(Path(sys.argv[1]), 'val'), 1, 1, 'float32'):\n"
        "    print('there', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(files.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        with pytest.raises(DataError, match=rf"another process \({other.pid}\) computes these features; wait"):
            write(files)
        other.communicate("")
    assert write(files)


def test_where_nothing_can_be_written_is_told_with_the_way_out(files: FeatureFiles) -> None:
    files.folder.parent.parent.joinpath("store.features").write_text("in the way")
    with pytest.raises(DiskError, match=r"a file stands where a folder should be.*; or keep no features"):
        write(files)


@pytest.mark.parametrize("damage", ["cut", "changed", "facts", "rows gone", "other images"])
def test_damage_is_told_with_the_way_out(files: FeatureFiles, damage: str) -> None:
    write(files)
    num_images = NUM_IMAGES
    if damage == "cut":
        os.truncate(files.rows, 100)
    elif damage == "changed":
        content = bytearray(files.rows.read_bytes())
        content[1000] ^= 1
        files.rows.write_bytes(content)
    elif damage == "facts":
        files.facts.write_text(json.dumps({"dimension": 3, "type": "float64", "num_images": NUM_IMAGES, "digest": ""}))
    elif damage == "rows gone":
        files.rows.unlink()
    else:
        num_images += 1
    with pytest.raises(DataError, match=rf"damaged .*; remove {files.folder}, and it is made again"):
        open_features(files, num_images)


def test_a_file_that_is_cut_short_under_way_is_told(files: FeatureFiles) -> None:
    write(files)
    found = open_features(files, NUM_IMAGES)
    assert found is not None
    os.truncate(files.rows, 100)
    with pytest.raises(DataError, match="was cut short while it was in use"):
        found.of(range(50, 60))
