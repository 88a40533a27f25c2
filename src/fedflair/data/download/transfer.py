"""Files over HTTP: resumed where they stopped, never spliced from two versions, whole under their final name.

The bytes of a file gather in ``NAME.partial``; ``NAME.partial.json`` says which version of which address they are from.
Neither is ever a link that somebody planted there.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fedflair.data.download.bounds import check_bound, exceeded
from fedflair.data.download.connection import request
from fedflair.data.download.patience import GO_ON, Patience, Refused, TryAgain, persist
from fedflair.errors import DataError, Interrupted
from fedflair.system.files import disk_errors, sync_folder, write_atomically
from fedflair.system.json_text import parse_json

Check = Callable[[Path], None]
Report = Callable[[int], None]

CHUNK = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_LENGTH = re.compile(r"[0-9]{1,19}")
_LARGEST_SIDECAR = 1 << 16
UNBOUNDED = 1 << 62


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    size: bytes where it is known from elsewhere; what the server says must agree.
    check: looks at the complete file and raises DataError where it is not what it should be.
    headers: sent with each request; ``Authorization`` goes to the first host only, not where that redirects to.
    most: bytes that it can have, whatever the server says.
    """

    url: str
    path: Path
    size: int | None = None
    check: Check | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    most: int = UNBOUNDED


@dataclass(frozen=True)
class Version:
    """Which bytes an address stands for. size: None where the server does not say."""

    size: int | None
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """What ``If-Range`` may hold: a strong entity tag, else the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def probe(url: str, patience: Patience, stop: threading.Event, headers: Mapping[str, str] | None = None) -> Version:
    """What the server says of a file without sending it. Raises DataError where it does not have it."""

    def ask() -> Version:
        try:
            with request(url, headers or {}, patience, most=0, method="HEAD") as response:
                return version_of(response)
        except Refused as error:
            if error.status not in (405, 501):
                raise
        with request(url, {**(headers or {}), "Range": "bytes=0-0"}, patience, most=1) as response:
            return version_of(response)

    return persist(ask, url, patience, stop, lambda: 0)


def fetch(file: RemoteFile, patience: Patience, stop: threading.Event, report: Report) -> None:
    """Fetches a file to ``file.path``, which appears only when it is complete, checked and on disk.

    report: called with the number of bytes that are there, after each piece.
    Raises DataError where the server refuses, contradicts itself, stays silent, or sends what the check rejects
    twice, and where the disk refuses; Interrupted where ``stop`` was set. What has come stays in the partial file for
    the next call.
    """
    partial = partial_path(file.path)
    with disk_errors(file.path):
        file.path.parent.mkdir(parents=True, exist_ok=True)
    for last in (False, True):
        persist(
            lambda: _continue(file, partial, patience, stop, report), file.url, patience, stop, lambda: _size(partial)
        )
        try:
            if file.check is not None:
                file.check(partial)
            break
        except DataError:
            _discard(partial)
            if last:
                raise
    with disk_errors(file.path):
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(file.path)
        sync_folder(file.path.parent)
    _discard(partial)


def partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def version_of(response: http.client.HTTPResponse) -> Version:
    """What the headers of a 200, 206 or HEAD answer say of the whole file."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    length = _LENGTH.fullmatch(response.headers.get("Content-Length", ""))
    size = int(found[3]) if found else int(length[0]) if length and response.status == 200 else None
    return Version(size, response.headers.get("ETag"), response.headers.get("Last-Modified"))


def first_byte(response: http.client.HTTPResponse) -> int | None:
    """Where in the file a 206 answer's bytes begin; None where it does not say."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _continue(file: RemoteFile, partial: Path, patience: Patience, stop: threading.Event, report: Report) -> None:
    """One request for what is missing of the partial file; returns when the file is complete."""
    known = _read_version(partial, file)
    have = _size(partial) if known else 0
    if known and known.size is not None and have >= known.size:
        if have > known.size:
            _discard(partial)
            raise TryAgain(f"{have} bytes had come of {known.size}")
        report(have)
        return
    headers = dict(file.headers)
    if have and known:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    try:
        with request(file.url, headers, patience, most=file.size or file.most) as response:
            if response.status == 206 and known:
                _check_same(response, known, have, partial)
                version = known
            elif response.status == 200:
                # No range, or the file is another one by now: either way these are the bytes from the first on.
                have, version = 0, version_of(response)
                _check_size(file, version)
                _discard(partial)
                _write_version(partial, file, version)
                with disk_errors(partial):
                    _new(partial)
            else:
                raise TryAgain(f"unexpected status {response.status}")
            size = version.size if version.size is not None else file.size
            check_bound(size, file.most, file.url, "bytes")
            _append(response, partial, have, size, file, stop, report)
    except Refused as error:
        if error.status != 416:
            raise
        _discard(partial)
        raise TryAgain("the server has no such range") from error


def _check_same(response: http.client.HTTPResponse, known: Version, have: int, partial: Path) -> None:
    now = version_of(response)
    same_tag = known.etag is None or now.etag is None or now.etag == known.etag
    same_date = now.last_modified is None or now.last_modified == known.last_modified
    # Two servers behind one address may give one file two dates; the tag, where there is one, knows better.
    same = same_tag if known.etag is not None and now.etag is not None else same_date
    if first_byte(response) != have or not same or (known.size is not None and now.size != known.size):
        _discard(partial)
        raise TryAgain("the file has changed on the server, or it sent another part than asked for")


def _check_size(file: RemoteFile, version: Version) -> None:
    if file.size is not None and version.size is not None and version.size != file.size:
        # A cache on the way may be about to notice; a second answer like the first is the server's own.
        raise TryAgain(
            f"the server now says {version.size:,} bytes, {file.size:,} are expected",
            remedy="another server, or another revision, has the file that the list names",
            attempts=2,
        )


def _append(
    response: http.client.HTTPResponse,
    partial: Path,
    have: int,
    size: int | None,
    file: RemoteFile,
    stop: threading.Event,
    report: Report,
) -> None:
    with disk_errors(partial):
        handle = os.fdopen(os.open(partial, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC), "ab", 0)
    with handle:
        # read1 hands over what has come; read would hold up to a chunk back from a process that is killed.
        while piece := response.read1(CHUNK):
            if size is not None and have + len(piece) > size:
                raise TryAgain(f"more than the {size:,} bytes that were promised")
            if have + len(piece) > file.most:
                raise exceeded(file.url, "bytes without an end", file.most)
            with disk_errors(partial):
                write_all(handle, piece)
            have += len(piece)
            report(have)
            if stop.is_set():
                raise Interrupted(f"download: stopped; {GO_ON}")
    if size is not None and have < size:
        raise TryAgain(f"the connection ended after {have:,} of {size:,} bytes")


def write_all(handle: BinaryIO, data: bytes) -> None:
    """Writes all of it to an unbuffered file, which may take less at a time: a disk that is nearly full does."""
    view = memoryview(data)
    while view:
        view = view[handle.write(view) :]


def _new(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))


def is_own_file(path: Path) -> bool:
    """Whether a plain file of one name is there: no link of either kind leads what is written to it elsewhere."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _size(partial: Path) -> int:
    return partial.lstat().st_size if is_own_file(partial) else 0


def _sidecar(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _read_version(partial: Path, file: RemoteFile) -> Version | None:
    """The version that the partial file's bytes are from; None where they are not known to be from this file."""
    sidecar = _sidecar(partial)
    if not (is_own_file(partial) and is_own_file(sidecar) and sidecar.stat().st_size <= _LARGEST_SIDECAR):
        return None
    try:
        raw = parse_json(sidecar.read_text())
        version = Version(raw["size"], raw["etag"], raw["last_modified"])
        same = raw["url"] == file.url and (file.size is None or version.size in (None, file.size))
        same = same and isinstance(version.size, int | None)
        same = same and all(isinstance(text, str | None) for text in (version.etag, version.last_modified))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if same else None


def _write_version(partial: Path, file: RemoteFile, version: Version) -> None:
    raw = {
        "url": file.url,
        "size": version.size if version.size is not None else file.size,
        "etag": version.etag,
        "last_modified": version.last_modified,
    }
    write_atomically(_sidecar(partial), json.dumps(raw))


def _discard(partial: Path) -> None:
    for path in (partial, _sidecar(partial)):
        with disk_errors(path), suppress(FileNotFoundError):
            path.unlink()
