"""One request over HTTP, bounded in every direction: what all of downloading passes through.

An answer that dribbles, has no end, leads round in circles or is no answer at all ends in one line. Proxies and
certificates are those of the environment: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR,
REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE.
"""

from __future__ import annotations

import email.utils
import functools
import http.client
import io
import os
import re
import socket
import ssl
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedflair.data.download.patience import GO_ON, Patience, Refused, TryAgain, proxy_refusal
from fedflair.errors import ConfigError, DataError
from fedflair.system.terminal import one_line

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10
# Of status lines and headers, interim answers included; Python itself bounds a line and their number.
_MOST_HEAD = 1 << 20
# A body in chunks of a few bytes is that many times its size on the wire.
_MOST_FRAMING = 8
_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3})")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL")
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CERTIFICATES = (
    "where a company's proxy stands between, name its certificates with SSL_CERT_FILE=FILE or REQUESTS_CA_BUNDLE=FILE"
)


def check_url(url: str, option: str) -> str:
    """The address without a slash at its end. Raises ConfigError, naming the option, where it is not http or https."""
    try:
        parts = urllib.parse.urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not re.fullmatch(r"[!-~]+", url):
        raise ConfigError(
            f"{option}: {one_line(repr(url))} is not an http or https address; write it as https://HOST/PATH"
        )
    if parts.username is not None:
        raise ConfigError(f"{option}: an address must name no user and password; leave out what stands before the @")
    return url.rstrip("/")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a checked address."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


@contextmanager
def request(
    url: str, headers: Mapping[str, str], patience: Patience, *, most: int, method: str = "GET"
) -> Iterator[http.client.HTTPResponse]:
    """One request, redirects followed. ``Authorization`` goes to the first host only.

    most: bytes that the body is read for; an answer that takes many more on its way is cut off.
    Raises TryAgain for what may pass, also while the body is read inside the block; Refused for other answers than
    2xx; DataError where another try would not help.
    """
    try:
        with _followed(url, headers, patience, method, most) as response:
            if response.status in _RETRIED:
                raise TryAgain(f"{response.status} {response.reason}", _seconds(response.headers.get("Retry-After")))
            if not 200 <= response.status < 300:
                raise Refused(response.status, response.reason, response.headers)
            if response.headers.get_content_type() == "text/html":
                raise DataError(
                    f"{one_line(url)}: the server sent a web page, not the file; if the network wants a login, log in "
                    "with a browser and run again, else check the address"
                )
            yield response
    except http.client.HTTPException as error:
        raise TryAgain(str(error) or type(error).__name__) from error


def _followed(
    url: str, headers: Mapping[str, str], patience: Patience, method: str, most: int
) -> http.client.HTTPResponse:
    """The answer at the end of the redirects, whose bodies are not read."""
    first = url
    for _ in range(_MOST_REDIRECTS + 1):
        response = _open(url, headers, patience, method, most)
        location = response.headers.get("Location")
        if response.status not in _REDIRECTS or location is None:
            return response
        response.close()
        target = _target(url, location)
        if origin(target) != origin(url):
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        url = target
    raise DataError(f"{one_line(first)}: leads on more than {_MOST_REDIRECTS} times, to no file; check the address")


def _target(url: str, location: str) -> str:
    try:
        # Bytes beyond ASCII arrive as Latin-1, and go out spelled.
        target = urllib.parse.urljoin(url, urllib.parse.quote(location, string.punctuation, "iso-8859-1"))
        scheme, host, _ = origin(target)
    except ValueError:
        scheme, host = "", ""
    if scheme not in ("http", "https") or not host:
        raise DataError(f"{one_line(url)}: leads on to what is no web address; check --base_url or --endpoint")
    return target


def _open(url: str, headers: Mapping[str, str], patience: Patience, method: str, most: int) -> http.client.HTTPResponse:
    try:
        # Identity: a size and a range must mean the file's own bytes, not those of a compressed form of it.
        asked = _Request(url, headers={"Accept-Encoding": "identity", **headers}, method=method)
        asked.patience, asked.most = patience, _MOST_HEAD + _MOST_FRAMING * most
        response: http.client.HTTPResponse = _opener().open(asked, timeout=patience.timeout)
    except OSError as error:
        raise _failure(url, error, patience.ways_out) from error
    except (ValueError, OverflowError, http.client.InvalidURL) as error:
        # Without the error's own words, which may repeat a header.
        raise DataError(f"{one_line(url)}: not an address that can be asked; check it") from error
    return response


def _failure(url: str, error: OSError, ways_out: str) -> Exception:
    """What a failed connection means: another try, or a line that says what to do."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    reason = _words(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DataError(
            f"{one_line(url)}: its certificate is not trusted ({one_line(cause.verify_message)}); {_CERTIFICATES}"
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS:
        return DataError(f"{one_line(url)}: no TLS is spoken there ({cause.reason}); check https and the port")
    tunnel = _TUNNEL.search(reason)
    if tunnel and int(tunnel[1]) not in _RETRIED:
        return DataError(f"{one_line(url)}: {reason}; {proxy_refusal(int(tunnel[1]))}")
    return TryAgain(reason, remedy=ways_out if isinstance(error, urllib.error.URLError) else GO_ON)


def _words(error: object) -> str:
    # Without "[Errno 111]", which says no more.
    return one_line(str(getattr(error, "strerror", None) or error))[:200] or type(error).__name__


class _Request(urllib.request.Request):
    patience: Patience
    most: int


class _Meter(io.RawIOBase):
    """What comes over a connection, cut off where it is too slow, too much, or a head without an end."""

    def __init__(self, raw: io.RawIOBase, patience: Patience, most: int) -> None:
        super().__init__()
        self._raw, self._patience, self._most = raw, patience, most
        self._came, self._waited, self._in_window = 0, 0.0, 0
        self.in_head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        began = time.monotonic()
        try:
            number = self._raw.readinto(buffer) or 0
        except OSError as error:
            raise TryAgain(_words(error)) from error
        # Only time spent waiting for the other side counts, not what is done with the bytes in between.
        self._waited += time.monotonic() - began
        self._in_window += number
        self._came += number
        if not number and self.in_head and self._came:
            # Python takes a head that was cut off for a whole one: then an empty file would count as all of it.
            raise TryAgain("the connection ended in the answer's head")
        if self._came > (_MOST_HEAD if self.in_head else self._most):
            raise TryAgain("much more came than an answer can be")
        if self._waited >= self._patience.window:
            if self._in_window < self._patience.min_rate * self._waited:
                raise TryAgain(
                    f"{self._in_window} bytes came in {self._waited:.0f} s",
                    remedy="try again later or elsewhere, or lower --min_rate",
                )
            self._waited, self._in_window = 0.0, 0
        return number

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, meter: tuple[Patience, int], **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._meter = _Meter(self.fp.detach(), *meter)
        self.fp = io.BufferedReader(self._meter)

    def begin(self) -> None:
        super().begin()
        self._meter.in_head = False


def _connection(kind: type[http.client.HTTPConnection], asked: Any) -> Any:
    """What makes a connection whose answers are metered."""

    def make(host: str, **options: Any) -> http.client.HTTPConnection:
        connection = kind(host, **options)
        response_class: Any = functools.partial(_Response, meter=(asked.patience, asked.most))
        connection.response_class = response_class
        return connection

    return make


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection(http.client.HTTPConnection, req), req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection(http.client.HTTPSConnection, req), req, context=_trusted())


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS only, by the proxies of the environment: no file: or ftp: address is ever opened."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(_proxies()), _Http(), _Https()):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "fedflair")]
    return opener


def _proxies() -> dict[str, str]:
    proxies = urllib.request.getproxies()
    for scheme in ("http", "https"):
        kind, _, _ = proxies.get(scheme, "http:").rpartition("://")
        if kind.lower() not in ("", "http", "https"):
            raise ConfigError(
                f"{scheme.upper()}_PROXY: a proxy of the kind {one_line(kind)!r} is not spoken to; name one as "
                "http://HOST:PORT"
            )
    return proxies


def _trusted() -> ssl.SSLContext:
    files = [os.environ.get(name) or None for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", *_BUNDLES)]
    return _context(*files)


@functools.lru_cache(maxsize=4)
def _context(cert_file: str | None, _cert_dir: str | None, *bundles: str | None) -> ssl.SSLContext:
    """Certificates of the system or of SSL_CERT_FILE and SSL_CERT_DIR, which ssl itself reads, and of the bundles."""
    for name, value in zip(("SSL_CERT_FILE", *_BUNDLES), (cert_file, *bundles)):
        if value is not None and not Path(value).exists():
            raise ConfigError(f"{name}: {one_line(value)} is not there; name a file of certificates, or unset it")
    context = ssl.create_default_context()
    for name, value in zip(_BUNDLES, bundles):
        if value is not None:
            place = {"capath": value} if Path(value).is_dir() else {"cafile": value}
            try:
                context.load_verify_locations(**place)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"{name}: {one_line(value)} is no file of certificates ({one_line(str(error))[:100]}); "
                    "name one in PEM form, or unset it"
                ) from error
    return context


def _seconds(value: str | None) -> float | None:
    """What Retry-After says: seconds, or a date."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    with suppress(TypeError, ValueError, OverflowError, IndexError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None
