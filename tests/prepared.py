"""The command line in processes of their own that have its imports behind them.

Importing what trains takes a process two seconds, longer than such small runs last. One server, started from nothing,
imports it once and forks; what it forked does what ``python -m fedflair.cli`` does from there on, and can be signalled,
limited and killed like it. That a whole process does the same, test_cli.py, test_main.py and the tests of Ray show.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from fedflair.cli import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "fedflair.commands.train",
        "fedflair.training.train",
        "torch.utils.tensorboard",
        "dp_accounting.pld",
        "fedflair.data.download.run",
    ]
)


class Prepared:
    """A command at work, with what ``subprocess.Popen`` has of it.

    words: those after ``fedflair``. through: what is called with them, and gives the exit status. folder: where it
    works. file_size: no file may grow beyond so many bytes, as on a full disk.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path | None = None,
        *,
        through: Callable[[Sequence[str]], int] = main,
        environment: Mapping[str, str] | None = None,
        file_size: int | None = None,
    ) -> None:
        self.words = list(words)
        pipes = [_CONTEXT.Pipe(duplex=False) for _ in ("stdout", "stderr")]
        self._ends = [reader for reader, _ in pipes]
        place, variables = str(folder or Path.cwd()), dict(os.environ if environment is None else environment)
        given = (through, self.words, place, variables, file_size, *(writer for _, writer in pipes))
        self._process = _CONTEXT.Process(target=_command, args=given)
        self._process.start()
        for _, writer in pipes:
            writer.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 120) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.words, timeout)
        return self._process.exitcode

    def error_line(self) -> str:
        """The next line of stderr, with its end; "" where there are no more."""
        line = b""
        while not line.endswith(b"\n") and (piece := os.read(self._ends[1].fileno(), 1)):
            line += piece
        return line.decode()

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """(stdout, stderr), as far as it was not read before, once it has ended."""
        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(_rest, end) for end in self._ends]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            out, errors = (reader.result() for reader in readers)
        return out, errors


def run(
    words: Sequence[str],
    folder: Path | None = None,
    *,
    through: Callable[[Sequence[str]], int] = main,
    environment: Mapping[str, str] | None = None,
    file_size: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; as ``Prepared``."""
    process = Prepared(words, folder, through=through, environment=environment, file_size=file_size)
    out, errors = process.communicate()
    return subprocess.CompletedProcess(process.words, process.wait(), out, errors)


def _rest(end: Connection) -> str:
    pieces = []
    while piece := os.read(end.fileno(), 1 << 16):
        pieces.append(piece)
    return b"".join(pieces).decode()


def _command(
    through: Callable[[Sequence[str]], int],
    words: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    file_size: int | None,
    out: Connection,
    errors: Connection,
) -> None:
    for number, end in enumerate((out, errors), start=1):
        os.dup2(end.fileno(), number)
        end.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, folder)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    status = through(words)
    # A forked process ends without.
    atexit._run_exitfuncs()
    sys.exit(status)
