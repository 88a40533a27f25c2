"""Files over HTTP: resumed where they stopped, never spliced from two versions, whole under their final name.

The bytes of a file gather in ``NAME.partial``; ``NAME.partial.json`` says which version of which address they are from.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fedflair.errors import ConfigError, DataError, Interrupted

T = TypeVar("T")
Check = Callable[[Path], None]
Report = Callable[[int], None]

CHUNK = 1 << 18
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server.

    attempts: tries in a row that bring nothing new before giving up.
    first_wait, longest_wait: seconds between tries; doubled each time, at most ``longest_wait``.
    timeout: seconds without a byte after which a connection counts as dead.
    tell: called with a line for people before each wait.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 30.0
    timeout: float = 30.0
    tell: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    size: bytes where it is known from elsewhere; what the server says must agree.
    check: looks at the complete file and raises DataError where it is not what it should be.
    headers: sent with each request; ``Authorization`` goes to the first host only, not where that redirects to.
    """

    url: str
    path: Path
    size: int | None = None
    check: Check | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


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


class TryAgain(Exception):
    """A failure that may pass by itself. wait: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def check_url(url: str, option: str) -> str:
    """The address without a slash at its end. Raises ConfigError, naming the option, where it is not http or https."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"{option}: {url!r} is not an http or https address; write it as https://HOST/PATH")
    return url.rstrip("/")


def probe(url: str, patience: Patience, stop: threading.Event, headers: Mapping[str, str] | None = None) -> Version:
    """What the server says of a file without sending it. Raises DataError where it does not have it."""

    def ask() -> Version:
        try:
            with request(url, headers or {}, patience, method="HEAD") as response:
                return version_of(response)
        except urllib.error.HTTPError as error:
            if error.code not in (405, 501):
                raise
        with request(url, {**(headers or {}), "Range": "bytes=0-0"}, patience) as response:
            return version_of(response)

    return persist(ask, url, patience, stop, lambda: 0)


def fetch(file: RemoteFile, patience: Patience, stop: threading.Event, report: Report) -> None:
    """Fetches a file to ``file.path``, which appears only when it is complete, checked and on disk.

    report: called with the number of bytes that are there, after each piece.
    Raises DataError where the server refuses, contradicts itself, stays silent, or sends what the check rejects
    twice; Interrupted where ``stop`` was set. What has come stays in the partial file for the next call.
    """
    file.path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(file.path)
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
    with partial.open("rb") as handle:
        os.fsync(handle.fileno())
    partial.replace(file.path)
    _discard(partial)


def partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def persist(
    call: Callable[[], T], url: str, patience: Patience, stop: threading.Event, progress: Callable[[], int]
) -> T:
    """Calls until it works, waiting longer each time; the count starts anew whenever ``progress()`` passes its highest.

    Raises DataError where the server refuses for good or the patience is at an end, Interrupted where stopped.
    """
    failures, highest = 0, progress()
    while True:
        try:
            return call()
        except urllib.error.HTTPError as error:
            raise DataError(f"{url}: the server answered {error.code} {error.reason}; {_remedy(error.code)}") from error
        except TryAgain as again:
            # The highest, not the last: a file that is begun anew again and again also grows.
            failures = 1 if progress() > highest else failures + 1
            highest = max(highest, progress())
            if failures >= patience.attempts:
                raise DataError(
                    f"{url}: given up after {failures} tries that brought nothing new ({again}); "
                    "run the same command again to go on from here"
                ) from again
            wait = min(patience.first_wait * 2 ** (failures - 1), patience.longest_wait)
            wait = max(wait, min(again.wait or 0.0, 4 * patience.longest_wait))
            patience.tell(f"{url}: {again}; trying again in {wait:.0f} s")
            if stop.wait(wait):
                raise Interrupted("download: stopped; run the same command again to go on from here") from again


def _remedy(code: int) -> str:
    if code in (401, 403):
        return "access is refused: check the address, or log in with 'hf auth login' where it is a private mirror"
    if code in (404, 410):
        return "it is not there: check --base_url, --endpoint and --revision"
    return "try again later"


@contextmanager
def request(
    url: str, headers: Mapping[str, str], patience: Patience, method: str = "GET"
) -> Iterator[http.client.HTTPResponse]:
    """One request, redirects followed. Raises TryAgain for what may pass, HTTPError for other refusals.

    What goes wrong while the body is read inside the block is raised as TryAgain too.
    """
    # Identity: a size and a range must mean the file's own bytes, not those of a compressed form of it.
    asked = urllib.request.Request(url, headers={"Accept-Encoding": "identity"}, method=method)
    for name, value in headers.items():
        if name.lower() == "authorization":
            asked.add_unredirected_header(name, value)
        else:
            asked.add_header(name, value)
    try:
        with _OPENER.open(asked, timeout=patience.timeout) as response:
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _RETRIED:
            raise TryAgain(f"{error.code} {error.reason}", _retry_after(error.headers.get("Retry-After"))) from error
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(f"{url}: its certificate is not trusted ({error.reason.verify_message})") from error
        raise TryAgain(_one_line(error.reason)) from error
    except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
        raise TryAgain(_one_line(error) or type(error).__name__) from error


class _NoCredentialsElsewhere(urllib.request.HTTPRedirectHandler):
    """Redirects that keep the method: urllib turns a redirected HEAD into a GET."""

    def redirect_request(self, req: Any, *args: Any) -> urllib.request.Request | None:
        redirected = super().redirect_request(req, *args)
        if redirected is not None:
            redirected.method = req.get_method()
        return redirected


def _make_opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS only, by the proxies of the environment: no file: or ftp: address is ever opened."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        _NoCredentialsElsewhere,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "fedflair")]
    return opener


_OPENER = _make_opener()


def version_of(response: http.client.HTTPResponse) -> Version:
    """What the headers of a 200, 206 or HEAD answer say of the whole file."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    length = response.headers.get("Content-Length", "")
    size = int(found[3]) if found else int(length) if length.isdigit() and response.status == 200 else None
    return Version(size, response.headers.get("ETag"), response.headers.get("Last-Modified"))


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    with suppress(TypeError, ValueError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None


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
        with request(file.url, headers, patience) as response:
            if response.status == 206 and known:
                _check_same(response, known, have, partial)
                version = known
            elif response.status == 200:
                # No range, or the file is another one by now: either way these are the bytes from the first on.
                have, version = 0, version_of(response)
                _check_size(file, version)
                _discard(partial)
                _write_version(partial, file, version)
            else:
                raise TryAgain(f"unexpected status {response.status}")
            size = version.size if version.size is not None else file.size
            _append(response, partial, have, size, stop, report)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        _discard(partial)
        raise TryAgain("the server has no such range") from error


def _check_same(response: http.client.HTTPResponse, known: Version, have: int, partial: Path) -> None:
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    now = version_of(response)
    same_tag = known.etag is None or now.etag is None or now.etag == known.etag
    if not found or int(found[1]) != have or not same_tag or (known.size is not None and now.size != known.size):
        _discard(partial)
        raise TryAgain("the file has changed on the server, or it sent another part than asked for")


def _check_size(file: RemoteFile, version: Version) -> None:
    if file.size is not None and version.size is not None and version.size != file.size:
        raise TryAgain(f"the server now says {version.size:,} bytes, {file.size:,} are expected")


def _append(
    response: http.client.HTTPResponse,
    partial: Path,
    have: int,
    size: int | None,
    stop: threading.Event,
    report: Report,
) -> None:
    try:
        with partial.open("ab", buffering=0) as handle:
            # read1 hands over what has come; read would hold up to a chunk back from a process that is killed.
            while piece := response.read1(CHUNK):
                if size is not None and have + len(piece) > size:
                    raise TryAgain(f"more than the {size:,} bytes that were promised")
                handle.write(piece)
                have += len(piece)
                report(have)
                if stop.is_set():
                    raise Interrupted("download: stopped; run the same command again to go on from here")
    except OSError as error:
        # The connection's own failures are also OSErrors; those the caller turns into another try.
        if isinstance(error, ConnectionError | TimeoutError | ssl.SSLError):
            raise
        raise DataError(f"{partial}: cannot be written ({error.strerror}); free some space and run again") from error
    if size is not None and have < size:
        raise TryAgain(f"the connection ended after {have:,} of {size:,} bytes")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sidecar(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _read_version(partial: Path, file: RemoteFile) -> Version | None:
    """The version that the partial file's bytes are from; None where they are not known to be from this file."""
    try:
        raw = json.loads(_sidecar(partial).read_text())
        version = Version(raw["size"], raw["etag"], raw["last_modified"])
        same = raw["url"] == file.url and (file.size is None or version.size in (None, file.size))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if same and partial.is_file() else None


def _write_version(partial: Path, file: RemoteFile, version: Version) -> None:
    raw = {
        "url": file.url,
        "size": version.size if version.size is not None else file.size,
        "etag": version.etag,
        "last_modified": version.last_modified,
    }
    _sidecar(partial).write_text(json.dumps(raw))


def _discard(partial: Path) -> None:
    for path in (partial, _sidecar(partial)):
        path.unlink(missing_ok=True)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
