"""Locks: one holder, none inherited, and nobody kept from working where there are none."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedflair.system.locks import Held, let_go, locked, take

HOLD = """
import sys
from pathlib import Path
from fedflair.system.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Held) as refused, locked(tmp_path / "lock"):
            pass
        assert refused.value.pid == holder.pid
        holder.kill()
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_forked_child_keeps_no_lock(tmp_path: Path) -> None:
    # As a pool's workers do, it outlives the block.
    read, write = os.pipe()
    with locked(tmp_path / "lock") as descriptor:
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            # What unwinds in the child closes nothing that took the number since.
            let_go(descriptor)
            os._exit(0)
    os.close(read)
    try:
        with locked(tmp_path / "lock"):
            pass
    finally:
        os.close(write)
        assert os.waitpid(child, 0)[1] == 0


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock") as descriptor:
        assert take(descriptor)
