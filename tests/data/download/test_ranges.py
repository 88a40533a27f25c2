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


def opened(url: str, size: int, stem: Path) -> RangeFile:
    return RangeFile(url, size, stem, headers={}, patience=HASTY, stop=threading.Event())


NOISE = np.random.default_rng(1).integers(0, 256, 4 * BLOCK, dtype=np.uint8).tobytes()


def test_blocks_of_another_file_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    with serving(Files({"/f": NOISE, "/g": NOISE[::-1], "/h": NOISE[: 3 * BLOCK]})) as files:
        for name in ("/f", "/g", "/h", "/f"):
            content = files.content[name]
            with opened(files.url + name, len(content), tmp_path / "f") as file:
                assert file.read() == content


def test_blocks_that_were_cut_short_are_fetched_anew(tmp_path: Path) -> None:
    with serving(Files({"/f": NOISE})) as files:
        with opened(files.url + "/f", len(NOISE), tmp_path / "f") as file:
            file.read()
        blocks = block_paths(tmp_path / "f")[0]
        blocks.write_bytes(NOISE[:-1])
        with opened(files.url + "/f", len(NOISE), tmp_path / "f") as file:
            assert file.read() == NOISE


@pytest.mark.parametrize("line", ["² 3.", "0 ².", "-1 4.", "0 99999999999999999999.", "4", "0 4", "0 4.x", "\x00" * 99])
def test_lines_of_a_journal_that_are_none_are_passed_over(tmp_path: Path, line: str) -> None:
    with serving(Files({"/f": NOISE})) as files:
        opened(files.url + "/f", len(NOISE), tmp_path / "f").close()
        with block_paths(tmp_path / "f")[1].open("a") as journal:
            journal.write(line + "\n")
        with opened(files.url + "/f", len(NOISE), tmp_path / "f") as file:
            assert file.read() == NOISE


def test_a_part_that_starts_elsewhere_is_not_taken(tmp_path: Path) -> None:
    """Of the right length, so that only Content-Range tells."""
    with serving(Files({"/f": NOISE})) as files:
        head = {"Content-Range": f"bytes 0-{BLOCK - 1}/{len(NOISE)}"}
        wrong = iter([(206, head, NOISE[:BLOCK])])
        files.routes = lambda method, path: next(wrong, None)
        with opened(files.url + "/f", len(NOISE), tmp_path / "f") as file:
            file.seek(BLOCK)
            assert file.read(BLOCK) == NOISE[BLOCK : 2 * BLOCK]
        assert len(files.gets("/f")) == 2


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("hard", [False, True])
def test_nothing_is_written_through_a_planted_link(tmp_path: Path, which: int, hard: bool) -> None:
    with serving(Files({"/f": NOISE})) as files:
        opened(files.url + "/f", len(NOISE), tmp_path / "f").close()
        planted = block_paths(tmp_path / "f")[which]
        victim = planted.rename(tmp_path / "victim")
        planted.hardlink_to(victim) if hard else planted.symlink_to(victim)
        kept = victim.read_bytes()
        with opened(files.url + "/f", len(NOISE), tmp_path / "f") as file:
            assert file.read() == NOISE
        assert victim.read_bytes() == kept


@pytest.mark.parametrize("which", [0, 1])
def test_a_folder_in_the_place_of_the_blocks(tmp_path: Path, which: int) -> None:
    block_paths(tmp_path / "f")[which].mkdir()
    with pytest.raises(DataError, match=r"f\.blocks: .*(stands where|not permitted)"):
        opened("http://127.0.0.1:1/f", len(NOISE), tmp_path / "f")


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
