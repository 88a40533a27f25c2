"""A remote file that is read in parts."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedflair.data.download.patience import Patience
from fedflair.data.download.ranges import BLOCK, RangeFile, block_paths
from fedflair.errors import DataError
from tests.data.download.fault_server import Fault, Files, serving

HASTY = Patience(attempts=3, first_wait=0.001, longest_wait=0.002, timeout=5)


def test_range_file_reads_like_a_file_and_fetches_blocks_once(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, 10 * BLOCK + 17, dtype=np.uint8).tobytes()
    with serving(Files({"/f": content})) as files:

        def opened() -> RangeFile:
            options: dict[str, Any] = {"headers": {}, "patience": HASTY, "stop": threading.Event()}
            return RangeFile(files.url + "/f", len(content), tmp_path / "f", **options)

        with opened() as file:
            assert file.read(10) == content[:10]
            file.seek(-20, io.SEEK_END)
            assert file.read() == content[-20:]
            file.seek(BLOCK + 5)
            assert file.read(2 * BLOCK) == content[BLOCK + 5 : 3 * BLOCK + 5]
            assert file.read(0) == b""
        # The bytes of blocks 0, 9, 10 (17 bytes), 1, 2 and 3.
        assert files.sent == 5 * BLOCK + 17
        assert len(files.gets("/f")) == 3
        with opened() as file:
            assert file.read(4 * BLOCK) == content[: 4 * BLOCK]
        assert len(files.gets("/f")) == 3
        journal = block_paths(tmp_path / "f")[1]
        journal.write_text(journal.read_text() + "5 1")
        with opened() as file:
            assert file.read() == content
        assert files.sent == len(content)


def test_range_file_of_a_server_without_ranges(tmp_path: Path) -> None:
    with serving(Files({"/f": b"x" * 100}, always={"/f": Fault(ignore_range=True)})) as files:
        file = RangeFile(files.url + "/f", 100, tmp_path / "f", headers={}, patience=HASTY, stop=threading.Event())
        with file, pytest.raises(DataError, match="does not send parts of files; leave out --num_users"):
            file.read(10)


def test_range_file_of_a_file_that_changed(tmp_path: Path) -> None:
    with serving(Files({"/f": b"x" * 100})) as files:
        file = RangeFile(files.url + "/f", 99, tmp_path / "f", headers={}, patience=HASTY, stop=threading.Event())
        with file, pytest.raises(DataError, match="has changed on the server"):
            file.read(10)
