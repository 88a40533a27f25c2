"""One request against servers, proxies and networks that are not as they should be: bounded, one line at the end."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fedflair.data.download.connection import check_url
from fedflair.data.download.patience import Patience
from fedflair.data.download.transfer import RemoteFile, fetch, partial_path, probe
from fedflair.errors import ConfigError, DataError, FedflairError
from tests.data.download.fault_server import Files, serving
from tests.data.download.raw_server import Answer, always, answering, endlessly

HASTY = Patience(attempts=3, first_wait=0.001, longest_wait=0.002, timeout=5, min_rate=1000, window=0.2)
CONTENT = b"0123456789" * 1000
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + CONTENT


def get(url: str, path: Path, size: int | None = None, most: int = 1 << 30, patience: Patience = HASTY) -> bytes:
    fetch(RemoteFile(url + "/f", path, size, most=most), patience, threading.Event(), lambda there: None)
    return path.read_bytes()


def failure(
    url: str, path: Path, size: int | None = None, most: int = 1 << 30, patience: Patience = HASTY, within: float = 60.0
) -> str:
    """The one line that a transfer ends in, which it does in time."""
    began = time.monotonic()
    with pytest.raises(FedflairError) as raised:
        get(url, path, size, most, patience)
    assert time.monotonic() - began < within
    message = str(raised.value)
    assert message.isprintable()
    assert not path.exists()
    return message


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode("latin-1")


@pytest.mark.parametrize("length", ["²", "Â²", "-5", "1_0", "+10", "9" * 5000, "0x10", "", "ten", "1 0"])
def test_a_length_that_is_none_counts_as_unknown(length: str) -> None:
    with answering(always(head(f"Content-Length: {length}"))) as raw:
        assert probe(raw.url, HASTY, threading.Event()).size is None


@pytest.mark.parametrize(
    "place",
    ["//[::1", "http://[::1", "http://127.0.0.1:x/", "http://127.0.0.1:99999/", "file:///etc/passwd",
     "ftp://127.0.0.1/f", "data:,x", "http://a..b/", "http://" + "a" * 70 + "/"],
)  # fmt: skip
def test_a_redirect_to_no_address(tmp_path: Path, place: str) -> None:
    with answering(always(head(f"Location: {place}", "Content-Length: 0", status="302 Found"))) as raw:
        message = failure(raw.url, tmp_path / "f")
        assert "leads on to what is no web address" in message or "not an address that can be asked" in message
        assert len(raw.heads) == 1


@pytest.mark.parametrize("bad", ["http://[::1", "http://h:x/", "http://h:99999", "http://h/\x1b[2J", "http://h/a b"])
def test_addresses_that_are_none_are_refused_before_anything_is_asked(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"endpoint: .* is not an http or https address") as raised:
        check_url(bad, "endpoint")
    assert str(raised.value).isprintable()


def test_only_http_addresses_without_passwords() -> None:
    assert check_url("http://host/path/", "base_url") == "http://host/path"
    for bad in ("file:///etc", "ftp://host/x", "host/path", "https://"):
        with pytest.raises(ConfigError, match=r"base_url: .* is not an http or https address"):
            check_url(bad, "base_url")
    with pytest.raises(ConfigError, match="must name no user and password") as raised:
        check_url("https://me:secret@host/", "endpoint")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("when", ["²", "-1", "soon", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 -2359", "1e999", "Mon"])
def test_a_wait_that_is_none_is_not_waited_for(tmp_path: Path, when: str) -> None:
    with answering(always(head(f"Retry-After: {when}", "Content-Length: 0", status="503 Busy"))) as raw:
        assert "given up after 3 tries that brought nothing new (503 Busy)" in failure(raw.url, tmp_path / "f")
        assert len(raw.heads) == 3


@pytest.mark.parametrize("status", ["429 Slow down", "503 Busy"])
@pytest.mark.parametrize("by_date", [False, True])
def test_a_server_that_says_when_to_come_again(tmp_path: Path, status: str, by_date: bool) -> None:
    times: list[float] = []

    def answer(connection: socket.socket, asked: str) -> None:
        times.append(time.monotonic())
        when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2)) if by_date else "1"
        busy = head(f"Retry-After: {when}", "Content-Length: 0", status=status)
        connection.sendall(busy if len(times) == 1 else WHOLE)

    told: list[str] = []
    patience = Patience(attempts=3, first_wait=0.001, longest_wait=0.6, tell=told.append)
    with answering(answer) as raw:
        assert get(raw.url, tmp_path / "f", patience=patience) == CONTENT
    assert times[1] - times[0] >= 0.9
    assert f"{status}; trying again in" in told[0]


@pytest.mark.parametrize("came", [b"", WHOLE[:20], WHOLE[:5000]])
@pytest.mark.parametrize("how", ["reset", "ended", "silent"])
def test_a_connection_that_breaks_is_made_again(tmp_path: Path, came: bytes, how: str) -> None:
    """Before the head, in it, and in the body."""
    over = threading.Event()

    def answer(connection: socket.socket, asked: str) -> None:
        if len(raw.heads) > 1:
            connection.sendall(WHOLE)
            return
        connection.sendall(came)
        if how == "silent":
            over.wait(10)
        elif how == "reset":
            over.wait(0.1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    told: list[str] = []
    # Short where it is waited for only.
    timeout = 0.5 if how == "silent" else 30.0
    patience = Patience(attempts=2, first_wait=0.001, timeout=timeout, tell=told.append)
    with answering(answer) as raw:
        assert get(raw.url, tmp_path / "f", patience=patience) == CONTENT
        over.set()
        assert len(raw.heads) == 2
    reason = {"reset": "Connection reset by peer", "silent": "timed out", "ended": "ended|without response|BadStatus"}
    assert re.search(reason[how], told[0])


# The slow ones are cut off for being slow. The others pour, and must not be on a machine that pauses.
ENDLESS: dict[str, tuple[Answer, str]] = {
    "headers": (endlessly(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "got more than 100 headers"),
    "a header": (endlessly(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000), "header line"),
    "interim answers": (endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "more came than an answer can be"),
    "slow headers": (endlessly(b"HTTP/1.1 200 OK\r\n", b"X", 0.02), "bytes came in"),
    "slow interim answers": (endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05), "bytes came in"),
    "a slow body": (endlessly(head("Content-Length: 10000"), b"x", 0.02), "bytes came in"),
    "a slow body without a size": (endlessly(head(), b"x", 0.02), "bytes came in"),
    "trailers": (
        endlessly(head("Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n", b"X: y\r\n" * 1000),
        "more came than an answer can be",
    ),
    "extensions of chunks": (
        endlessly(head("Transfer-Encoding: chunked"), b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
        "more came than an answer can be",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_an_end_is_cut_off(tmp_path: Path, kind: str) -> None:
    answer, reason = ENDLESS[kind]
    patience = HASTY if "slow" in kind else replace(HASTY, min_rate=0)
    with answering(answer) as raw:
        # The head has a bound of its own, whatever the body may be.
        most = 1 << 40 if kind == "interim answers" else 100_000
        message = failure(raw.url, tmp_path / "f", most=most, patience=patience)
        assert reason in message
        assert "given up after 3 tries" in message
        assert len(raw.heads) == 3


def test_a_drip_feed_whose_every_connection_brings_a_byte_is_given_up(tmp_path: Path) -> None:
    """Each try brings something new, so that only the time since the last real progress ends it."""

    def answer(connection: socket.socket, asked: str) -> None:
        # What is asked for, and not what was sent: the last byte may not have arrived when the connection ended.
        found = re.search(r"Range: bytes=(\d+)-", asked)
        start = int(found[1]) if found else 0
        part = f"Content-Range: bytes {start}-9999/10000"
        connection.sendall(
            head('ETag: "a"', *([part] if start else []), f"Content-Length: {10_000 - start}",
                 status="206 Part" if start else "200 OK") + b"x"
        )  # fmt: skip

    with answering(answer) as raw:
        assert "the connection ended after" in failure(raw.url, tmp_path / "f", size=10_000)
        assert 3 < partial_path(tmp_path / "f").stat().st_size <= len(raw.heads)


def test_what_is_slow_but_not_too_slow_comes(tmp_path: Path) -> None:
    # Far above the least rate, since this machine may be busy, and far below what would come without pauses.
    patience = Patience(attempts=1, window=0.1, min_rate=20)
    with answering(endlessly(head("Content-Length: 10000"), b"x" * 200, 0.02)) as raw:
        assert len(get(raw.url, tmp_path / "f", patience=patience)) == 10_000


def test_a_drip_feed_after_a_fast_start_is_noticed(tmp_path: Path) -> None:
    """The rate is that of the last window, not of the whole: else 100 kB would buy a hundred seconds of dripping."""
    began = time.monotonic()
    patience = Patience(attempts=1, window=0.2, min_rate=1000)
    with answering(endlessly(head("Content-Length: 200000") + b"x" * 100_000, b"x", 0.02)) as raw:
        with pytest.raises(DataError, match="bytes came in"):
            get(raw.url, tmp_path / "f", patience=patience)
        assert time.monotonic() - began < 60


def test_a_rate_of_nothing_bears_with_a_drip_feed(tmp_path: Path) -> None:
    patience = Patience(attempts=1, window=0.1, min_rate=0)
    with answering(endlessly(head("Content-Length: 20"), b"x", 0.03)) as raw:
        assert len(get(raw.url, tmp_path / "f", patience=patience)) == 20


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_without_an_end(tmp_path: Path, status: int) -> None:
    def answer(connection: socket.socket, asked: str) -> None:
        connection.sendall(head(f"Location: /f{asked.split()[1][2:]}x", status=f"{status} On"))

    with answering(answer) as raw:
        assert "leads on more than 10 times" in failure(raw.url, tmp_path / "f")
        assert len(raw.heads) == 11


def test_the_body_of_a_redirect_is_not_read(tmp_path: Path) -> None:
    """An endless one would keep the client for ever."""
    slow = endlessly(head("Location: /g", status="302 Found"), b"x", 0.01)

    def answer(connection: socket.socket, asked: str) -> None:
        (slow if asked.startswith("GET /f") else always(WHOLE))(connection, asked)

    with answering(answer) as raw:
        assert get(raw.url, tmp_path / "f") == CONTENT


def test_a_body_without_an_end_or_a_size_stops_where_flair_does(tmp_path: Path) -> None:
    with answering(endlessly(head(), b"x" * 10_000)) as raw:
        message = failure(raw.url, tmp_path / "f", most=50_000)
    assert re.search("more than the 50,000 that FLAIR can have; .* --raise_limits", message)
    assert partial_path(tmp_path / "f").stat().st_size <= 50_000


def test_a_size_beyond_flair_is_refused_before_a_byte_is_kept(tmp_path: Path) -> None:
    with answering(always(WHOLE)) as raw:
        message = failure(raw.url, tmp_path / "f", most=9_999)
        assert "10,000 bytes, more than the 9,999 that FLAIR can have" in message
        assert len(raw.heads) == 1
        assert get(raw.url, tmp_path / "f", most=10_000) == CONTENT


@pytest.mark.parametrize("framing", ["Connection: close", "Transfer-Encoding: chunked"])
def test_more_than_what_is_expected_is_not_taken(tmp_path: Path, framing: str) -> None:
    body = b"2711\r\n" + CONTENT + b"x\r\n0\r\n\r\n" if "chunked" in framing else CONTENT + b"x"
    with answering(always(head(framing) + body)) as raw:
        assert "more than the 10,000 bytes that were promised" in failure(raw.url, tmp_path / "f", size=10_000)


@pytest.mark.parametrize("status", ["404 \x1b[2Jgone", "503 \x1b]0;x\x07\x9b", "407 \u00ad\x85", "302 \x1b[0m"])
def test_what_a_server_says_reaches_no_terminal_as_it_is(tmp_path: Path, status: str) -> None:
    told: list[str] = []
    patience = Patience(attempts=2, first_wait=0.001, tell=told.append)
    with answering(always(head("Content-Length: 0", status=status))) as raw:
        with pytest.raises(DataError, match=status[:3]) as raised:
            get(raw.url, tmp_path / "f", patience=patience)
        assert str(raised.value).isprintable()
        assert all(line.isprintable() for line in told)


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "TEXT/HTML"])
@pytest.mark.parametrize("length", [True, False])
def test_a_login_page_is_called_one_at_once(tmp_path: Path, kind: str, length: bool) -> None:
    page = b"<html>Welcome to the hotel</html>"
    lines = [f"Content-Type: {kind}", *([f"Content-Length: {len(page)}"] if length else [])]
    with answering(always(head(*lines) + page)) as raw:
        assert "the server sent a web page, not the file" in failure(raw.url, tmp_path / "f", size=10_000)
        assert len(raw.heads) == 1


def test_a_network_that_wants_a_login(tmp_path: Path) -> None:
    with answering(always(head("Content-Length: 0", status="511 Network Authentication Required"))) as raw:
        assert "open any page in a browser, log in there" in failure(raw.url, tmp_path / "f")
        assert len(raw.heads) == 1


def test_without_a_network_the_ways_out_are_named(tmp_path: Path) -> None:
    with answering(always(b"")) as raw:
        url = raw.url
    message = failure(url, tmp_path / "f")
    assert "(Connection refused)" in message
    for way in ("--endpoint", "--base_url", "mirror", "HTTPS_PROXY", "fedflair synthesize", "goes on from here"):
        assert way in message


def test_the_login_stays_with_its_server_over_redirects(tmp_path: Path) -> None:
    with serving(Files({"/g": CONTENT})) as files:
        files.redirects["/f"] = files.url + "/g"
        secret = {"Authorization": "Bearer secret"}
        fetch(RemoteFile(files.url + "/f", tmp_path / "f", headers=secret), HASTY, threading.Event(), lambda n: None)
        assert [asked[3].get("Authorization") for asked in files.log] == ["Bearer secret"] * 2
        files.redirects["/f"] = files.url.replace("127.0.0.1", "localhost") + "/g"
        probe(files.url + "/f", HASTY, threading.Event(), secret)
        assert [asked[3].get("Authorization") for asked in files.log[2:]] == ["Bearer secret", None]
