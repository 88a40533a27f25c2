"""A remote file that is read in parts: only the blocks that are asked for are fetched, and each only once.

The blocks lie in a sparse file on disk, ``NAME.blocks``, with a journal of which are there in ``NAME.blocks.journal``,
so that a reader that was killed goes on with what it had.
"""

from __future__ import annotations

import io
import json
import os
import re
import threading
from pathlib import Path

import numpy as np

from fedflair.data.download.connection import request
from fedflair.data.download.patience import Patience, TryAgain, persist
from fedflair.data.download.transfer import first_byte, is_own_file, version_of, write_all
from fedflair.errors import DataError
from fedflair.system.files import disk_errors

# Small, because a row group's labels take some kilobytes between its images.
BLOCK = 1 << 15
_MOST_BLOCKS = 256  # in one request
_RUN = re.compile(r"([0-9]{1,12}) ([0-9]{1,12})\.")


class RangeFile(io.RawIOBase):
    """A read-only, seekable file over HTTP ranges, for ``pyarrow.parquet.ParquetFile``.

    url, size: the remote file; an answer that speaks of another size is an error.
    stem: where to keep the blocks. fetched: bytes that came over the network.
    Reading raises DataError where the server has no ranges or the file has changed, Interrupted where stopped.
    """

    def __init__(
        self,
        url: str,
        size: int,
        stem: Path,
        *,
        headers: dict[str, str],
        patience: Patience,
        stop: threading.Event,
    ) -> None:
        super().__init__()
        self._url, self._size = url, size
        self._headers, self._patience, self._stop = headers, patience, stop
        self._path = block_paths(stem)[0]
        self._position = 0
        self.fetched = 0
        self._present = np.zeros(-(-size // BLOCK), dtype=bool)
        blocks, journal = block_paths(stem)
        head = json.dumps({"url": url, "size": size, "block": BLOCK})
        with disk_errors(blocks):
            stem.parent.mkdir(parents=True, exist_ok=True)
            lines = _lines(journal) if is_own_file(blocks) and blocks.stat().st_size == size else []
            is_known = lines[:1] == [head]
            if is_known:
                self._remember(lines[1:])
            else:
                # Links that stand there go, and what they lead to stays as it is.
                blocks.unlink(missing_ok=True)
                journal.unlink(missing_ok=True)
            self._blocks = os.fdopen(_opened(blocks, os.O_RDWR), "r+b", 0)
            self._blocks.truncate(size)
            self._journal = os.fdopen(_opened(journal, os.O_WRONLY | os.O_APPEND), "a")
            if not is_known:
                self._journal.write(head + "\n")
                self._journal.flush()

    def _remember(self, lines: list[str]) -> None:
        """Takes over the journal's runs of blocks; the last line may have been cut by a kill."""
        for line in lines:
            # A run counts only with the full stop that was written last.
            run = _RUN.fullmatch(line)
            if run:
                self._present[int(run[1]) : int(run[2])] = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._position + size, self._size)
        if end <= self._position:
            return b""
        self._need(self._position // BLOCK, -(-end // BLOCK))
        self._blocks.seek(self._position)
        data = self._blocks.read(end - self._position)
        self._position += len(data)
        return data

    # What io's own readers hand over, of the many buffers that its stub allows.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._blocks.close()
            self._journal.close()
        super().close()

    def _need(self, first: int, last: int) -> None:
        """Fetches what is missing of the blocks from ``first`` up to ``last``, run by run."""
        missing = first + np.flatnonzero(~self._present[first:last])
        while len(missing):
            run = int(np.argmax(np.append(np.diff(missing) != 1, True))) + 1
            run = min(run, _MOST_BLOCKS)
            self._fetch(int(missing[0]), int(missing[0]) + run)
            missing = missing[run:]

    def _fetch(self, first: int, last: int) -> None:
        start, end = first * BLOCK, min(last * BLOCK, self._size)

        def ask() -> bytes:
            headers = {**self._headers, "Range": f"bytes={start}-{end - 1}"}
            with request(self._url, headers, self._patience, most=end - start) as response:
                if response.status != 206:
                    raise DataError(
                        f"{self._url}: the server does not send parts of files; leave out --num_users and --only"
                    )
                if version_of(response).size != self._size:
                    raise DataError(f"{self._url}: the file has changed on the server; run again with another --output")
                if first_byte(response) != start:
                    raise TryAgain("the server sent another part than asked for")
                data = response.read(end - start + 1)
            if len(data) != end - start:
                raise TryAgain(f"{len(data)} bytes came of {end - start}")
            return data

        data = persist(ask, self._url, self._patience, self._stop, lambda: 0)
        with disk_errors(self._path):
            self._blocks.seek(start)
            write_all(self._blocks, data)
            # The journal speaks only of what even a crash of the machine leaves there.
            os.fsync(self._blocks.fileno())
            self._journal.write(f"{first} {last}.\n")
            self._journal.flush()
        self._present[first:last] = True
        self.fetched += len(data)


def block_paths(stem: Path) -> tuple[Path, Path]:
    """The sparse file and the journal; both may be removed when the reading is done."""
    return stem.with_name(stem.name + ".blocks"), stem.with_name(stem.name + ".blocks.journal")


def _opened(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def _lines(journal: Path) -> list[str]:
    return journal.read_text(errors="replace").splitlines() if is_own_file(journal) else []
