"""Private copies of the checkout, in which mutants live and tests run; the checkout itself is only read."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")

_LEFT_OUT = {
    "anywhere": (".*_cache", ".hypothesis", "__pycache__", "*.egg-info"),
    "at the top": (".git", ".venv", ".cache", "data", "runs", "build", "dist"),
}
# By which a process is known to come from one of our runs, however it was started.
_MARK = "MUTATION_TREE"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """How a program ended. code: its exit status, below 0 for a signal, None where it ran out of time."""

    code: int | None
    output: str
    seconds: float


@dataclass(frozen=True)
class Tree:
    """A copy of a checkout at ``folder/tree``, with its own temporary files and caches beside it.

    cache: what the user's cache folder holds at the start of each run; what a run writes there is forgotten.
    """

    folder: Path
    package: str
    cache: Path | None = None
    moments: Iterator[int] = field(default_factory=lambda: itertools.count(1_000_000_000))
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def root(self) -> Path:
        """Where the copy is."""
        return self.folder / "tree"

    def write(self, file: str, content: bytes) -> None:
        """Changes a file of the copy, at a moment of its own, so that no bytecode of before is taken for its."""
        path = self.root / file
        path.write_bytes(content)
        moment = next(self.moments)
        os.utime(path, (moment, moment))

    def run(
        self, command: Sequence[str], timeout: float | None, environment: Mapping[str, str] | None = None
    ) -> Outcome:
        """Runs a Python program (``command``: what follows ``python``) in the copy; ends all that it started.

        Raises SystemExit once the tree is closed.
        """
        if self.closed.is_set():
            raise SystemExit("stopped")
        temporary, cache, words = self.folder / "tmp", self.folder / "cache", self.folder / "output"
        for place in (temporary, cache, self.root / ".hypothesis"):
            shutil.rmtree(place, ignore_errors=True)
        temporary.mkdir()
        if self.cache is None:
            cache.mkdir()
        else:
            shutil.copytree(self.cache, cache)
        paths = [str(self.root / Path(self.package).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {
            **os.environ, "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(cache), "PYTHONPATH": os.pathsep.join(paths),
            _MARK: str(self.folder), **(environment or {}),
        }  # fmt: skip
        begun = time.monotonic()
        with words.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=self.root, env=settings, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code: int | None = process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                self._end_all()
                process.wait()
        if self.closed.is_set():
            raise SystemExit("stopped")
        return Outcome(code, words.read_text(errors="replace"), time.monotonic() - begun)

    def close(self) -> None:
        """Ends what runs in the copy, and runs nothing any more."""
        self.closed.set()
        self._end_all()

    def _end_all(self) -> None:
        """Kills whatever still runs of ours: what a killed test left, daemons too."""
        while found := _marked(f"{_MARK}={self.folder}".encode()):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)


def _marked(mark: bytes) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            # One that has ended and is not yet waited for has an empty one.
            if mark in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
    return found


def copied(checkout: Path, folder: Path, package: str, cache: Path | None = None) -> Tree:
    """A copy of the checkout in a folder. package: the package's folder in it, such as ``src/fedflair``."""

    def left_out(of: str, names: list[str]) -> set[str]:
        kinds = _LEFT_OUT if Path(of) == checkout else {"anywhere": _LEFT_OUT["anywhere"]}
        return {name for name in names for patterns in kinds.values() if any(fnmatch(name, each) for each in patterns)}

    tree = Tree(folder, package, cache)
    shutil.copytree(checkout, tree.root, ignore=left_out, symlinks=True)
    return tree


def each_in_a_tree(trees: Sequence[Tree], items: Sequence[Item], work: Callable[[Item, Tree], None]) -> None:
    """Does the work for each item in whichever copy is free, as many at a time as there are copies.

    Where it cannot go on (an error, an interrupt), nothing runs any more when it returns.
    """
    free: SimpleQueue[Tree] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def one(item: Item) -> None:
        tree = free.get()
        try:
            work(item, tree)
        finally:
            free.put(tree)

    pool = ThreadPoolExecutor(len(trees))
    try:
        for done in [pool.submit(one, item) for item in items]:
            done.result()
    except BaseException:
        for tree in trees:
            tree.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
