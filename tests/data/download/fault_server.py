"""A real HTTP server on the loopback interface that can be told to misbehave, for the tests of downloading."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one GET of a path.

    status: answered instead of the file. drop_after: body bytes after which the connection is reset.
    claimed_size: what Content-Length says instead of the truth. ignore_range: the whole file comes with status 200.
    ignore_if_range: a part comes although the file is another one by now. wrong_start: the part starts elsewhere.
    """

    status: int | None = None
    drop_after: int | None = None
    claimed_size: int | None = None
    ignore_range: bool = False
    ignore_if_range: bool = False
    wrong_start: bool = False


@dataclass
class Files:
    """What a server has, how it behaves, and what it was asked.

    content: path -> bytes. faults: path -> one fault per GET, in order, then none. always: path -> a fault of each GET.
    head_sizes: path -> what HEAD says instead of the truth. redirects: path -> address. no_head: HEAD answers 405.
    seconds_per_chunk: waits before each 16 KiB. etags: False for a server that names no versions. weak: its tags are.
    dates: path -> Last-Modified.
    log: (method, path, Range or "", headers) of each request. sent: body bytes of files that went out.
    routes: asked first; a function from (method, path with query) to (status, headers, body) or None.
    """

    content: dict[str, bytes]
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: dict[str, Fault] = field(default_factory=dict)
    head_sizes: dict[str, int] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    no_head: bool = False
    seconds_per_chunk: float = 0.0
    etags: bool = True
    weak: bool = False
    dates: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, str, str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    routes: Callable[[str, str], tuple[int, dict[str, str], bytes] | None] = lambda method, path: None
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def gets(self, path: str) -> list[str]:
        """The Range headers of the GETs of a path, in order."""
        return [asked for method, at, asked, _ in self.log if method == "GET" and at == path]


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: Files

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        files = self.files
        path = self.path.split("?")[0]
        files.log.append((method, path, self.headers.get("Range", ""), dict(self.headers)))
        routed = files.routes(method, self.path)
        if routed is not None:
            status, headers, body = routed
            self._head(status, {"Content-Length": str(len(body)), **headers})
            if method == "GET":
                self.wfile.write(body)
        elif path in files.redirects:
            self._head(302, {"Location": files.redirects[path], "Content-Length": "0"})
        elif path not in files.content:
            self._head(404, {"Content-Length": "0"})
        elif method == "HEAD":
            size = files.head_sizes.get(path, len(files.content[path]))
            self._head(405 if files.no_head else 200, {"Content-Length": str(size), **self._version(path)})
        else:
            queue = files.faults.get(path, [])
            self._send(path, queue.pop(0) if queue else files.always.get(path, Fault()))

    def _version(self, path: str) -> dict[str, str]:
        tag = ("W/" if self.files.weak else "") + etag(self.files.content[path])
        named = {"ETag": tag} if self.files.etags else {}
        return named | ({"Last-Modified": self.files.dates[path]} if path in self.files.dates else {})

    def _send(self, path: str, fault: Fault) -> None:
        content = self.files.content[path]
        if fault.status is not None:
            self._head(fault.status, {"Content-Length": "0"})
            return
        headers = self._version(path)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        validators = (None, headers.get("Last-Modified"), None if self.files.weak else headers.get("ETag"))
        same = self.headers.get("If-Range") in validators or fault.ignore_if_range
        start, stop, status = 0, len(content), 200
        if asked and same and not fault.ignore_range:
            start, stop, status = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content)), 206
            if start >= len(content):
                self._head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                return
            start -= int(fault.wrong_start)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        body = content[start:stop]
        size = len(body) if fault.claimed_size is None else fault.claimed_size
        self._head(status, {"Content-Length": str(size), **headers})
        end = len(body) if fault.drop_after is None else fault.drop_after
        for first in range(0, min(len(body), end), 1 << 14):
            time.sleep(self.files.seconds_per_chunk)
            piece = body[first : min(first + (1 << 14), end)]
            # Before the write, so that a client that has everything never sees a count that lags behind.
            with self.files.lock:
                self.files.sent += len(piece)
            self.wfile.write(piece)
        if fault.drop_after is not None or size != len(body):
            self.close_connection = True
            # Half of the drops are resets rather than ends, as a pulled cable is.
            if end % 2:
                time.sleep(0.02)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of the five by default, many connections at once would each wait a second

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed in mid-answer is what is being tested, not an error."""


@contextmanager
def serving(files: Files) -> Iterator[Files]:
    """Serves ``files`` until the block ends; ``files.url`` is the address."""
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"files": files})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        files.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
