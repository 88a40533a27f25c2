"""Files that are whole or absent, and one line for whatever a disk refuses."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fedflair.errors import DiskError
from fedflair.system.files import cache_folder, disk_errors, replacing, why, write_atomically


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, "first")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"second")
        _ = 1 / 0
    assert path.read_text() == "first"
    write_atomically(path, b"third", mode=0o600)
    assert path.read_bytes() == b"third"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / f".file.{os.getpid()}.partial").symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "new"


def test_what_is_written_survives_a_crash_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which the system was asked: the file synced, then renamed, then its folder synced."""
    order: list[str] = []
    sync, rename = os.fsync, Path.replace

    def record_sync(descriptor: int) -> None:
        order.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".")[1 if order == [] else 0])
        sync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_rename)
    write_atomically(tmp_path / "file", "text")
    assert order == ["sync file", "rename", f"sync {tmp_path.name}"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Unable to write (errno = 28, error message = 'No space left on device')", "free some space"),
        ("Error while serializing: I/O error: File too large (os error 27)", "free some space"),
        ("[Errno 13] cannot open", "check the permissions"),
    ],
)
def test_libraries_errors_of_a_disk_are_told_by_the_systems_number(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DiskError, match=words) as told, disk_errors(tmp_path / "file"):
        raise RuntimeError(text)
    assert str(told.value).startswith(f"{tmp_path / 'file'}: ")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), disk_errors(tmp_path):
        raise RuntimeError("a wrong shape")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EFBIG, "raise the limit"),
        (errno.EROFS, "choose another place"),
        (errno.ENOTDIR, "a file stands where a folder should be"),
        (errno.ELOOP, "remove it"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.EIO, "check the disk"),
    ],
)
def test_each_refusal_has_its_remedy(number: int, remedy: str) -> None:
    assert remedy in why(OSError(number, os.strerror(number)))


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache/fedflair")
