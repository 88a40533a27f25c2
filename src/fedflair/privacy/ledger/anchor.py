"""An anchor: a file kept elsewhere that only grows, in which runs leave the hash of each line of their ledgers.

Whoever can write a run folder can write all of it anew, ledger, checkpoints and summary together. What was left in a
file that they cannot change still contradicts them; and two copies of one run that go on apart meet there.

A line is ``{"run": hash of the ledger's line 1, "round": rounds done, "head": hash of the line of the last of them}``;
round 0 is the run's beginning. Several runs, and processes, may share a file.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fedflair.errors import DataError, PrivacyError
from fedflair.system.files import disk_errors, sync_folder
from fedflair.system.json_text import parse_json
from fedflair.system.locks import let_go, take


@dataclass(frozen=True)
class Anchor:
    """What an anchor said of one run when it was last looked at.

    run: hash of the ledger's line 1. heads: by the number of rounds done. size: bytes of the file that were read.
    contradictions: numbers of rounds that it has two heads for. num_damaged: lines that are none of an anchor.
    """

    path: Path
    run: str
    heads: Mapping[int, str]
    size: int = 0
    contradictions: tuple[int, ...] = ()
    num_damaged: int = 0


def read_anchor(path: Path, run: str) -> Anchor:
    """What the anchor says of the run. Raises DataError where there is none, or it cannot be read."""
    with disk_errors(path):
        if not path.exists():
            raise DataError(f"{path}: no such anchor; name the file that --ledger_anchor named in training")
        with os.fdopen(_opened(path, os.O_RDONLY), "rb") as file:
            return _with(Anchor(path, run, {}), file.read())


def require_anchor(path: Path) -> None:
    """Makes the file where it is missing. Raises DataError where it cannot be written, or can be no anchor."""
    with _locked(path):
        pass


def anchored(anchor: Anchor, round_: int, head: str) -> Anchor:
    """The anchor with one more line, on the disk; it is not written twice. The file is made where it is missing.

    Raises PrivacyError where another line is anchored for that round: the run was done otherwise in another copy.
    """
    with _locked(anchor.path) as descriptor:
        now = _with(anchor, _since(descriptor, anchor.size))
        check(now, round_, head)
        if round_ in now.heads:
            return now
        line = json.dumps({"run": now.run, "round": round_, "head": head}, separators=(",", ":")) + "\n"
        # Somebody's line that a full disk cut short must not swallow ours.
        whole = now.size == 0 or os.pread(descriptor, 1, now.size - 1) == b"\n"
        text = (line if whole else "\n" + line).encode()
        if os.write(descriptor, text) != len(text):
            raise DataError(f"{anchor.path}: cannot be written whole; free the disk and resume the run")
        os.fsync(descriptor)
        return replace(now, heads={**now.heads, round_: head}, size=now.size + len(text))


def check(anchor: Anchor, round_: int, head: str) -> None:
    """Raises PrivacyError where the anchor has another line for that round."""
    known = anchor.heads.get(round_)
    if known not in (None, head):
        raise PrivacyError(
            f"{anchor.path}: ledger_anchor has another line for round {round_} of this run ({known[:16]}..., not "
            f"{head[:16]}...): a copy of it went on in another way, and both would be released; go on with that copy"
        )


def _with(anchor: Anchor, content: bytes) -> Anchor:
    """What was known with what was read since; a line without an end counts as damaged."""
    heads, twice, damaged = dict(anchor.heads), list(anchor.contradictions), anchor.num_damaged
    for line in content.decode(errors="replace").splitlines():
        try:
            entry = parse_json(line)
            run, round_, head = entry["run"], entry["round"], entry["head"]
        except (ValueError, KeyError, TypeError):
            damaged += bool(line)
            continue
        if run != anchor.run or type(round_) is not int or not isinstance(head, str):
            continue
        if heads.setdefault(round_, head) != head:
            twice.append(round_)
    return Anchor(anchor.path, anchor.run, heads, anchor.size + len(content), tuple(twice), damaged)


def _since(descriptor: int, size: int) -> bytes:
    pieces: list[bytes] = []
    while piece := os.pread(descriptor, 1 << 20, size):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        descriptor = _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            take(descriptor, wait=True)
            if is_new:
                sync_folder(path.parent)
            yield descriptor
        finally:
            let_go(descriptor)


def _opened(path: Path, flags: int) -> int:
    # Without O_NONBLOCK the opening of a named pipe would wait for somebody at its other end.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: not a regular file, so no anchor; name another one")
    return descriptor
