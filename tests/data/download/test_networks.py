"""Networks between us and a server: proxies that want a login, companies' certificates."""

from __future__ import annotations

import base64
import contextlib
import re
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.download.fault_server import Files, serving
from tests.data.download.raw_server import Certificate, Raw, always, answering, endlessly
from tests.data.download.test_connection import CONTENT, WHOLE, failure, get, head


def spliced(one: socket.socket, other: socket.socket) -> None:
    """What comes from either goes to the other until one of them ends."""
    while True:
        for source in select.select([one, other], [], [], 5)[0]:
            piece = source.recv(1 << 16)
            if not piece:
                return
            (other if source is one else one).sendall(piece)


@contextlib.contextmanager
def proxy(login: str = "", target: str = "") -> Iterator[Raw]:
    """A proxy that leads to one server, whatever address is asked for, and wants a login where one is given."""
    wanted = f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}"

    def answer(connection: socket.socket, asked: str) -> None:
        if login and wanted.lower() not in asked.lower():
            refusal = head('Proxy-Authenticate: Basic realm="x"', "Content-Length: 0", status="407 Who are you")
            connection.sendall(refusal)
        elif asked.startswith("CONNECT"):
            host, port = target.split(":")
            with socket.create_connection((host, int(port)), 5) as other:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                spliced(connection, other)
        else:
            connection.sendall(WHOLE)

    with answering(answer) as raw:
        yield raw


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_login_is_tried_once(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(login="me:secret") as raw:
        monkeypatch.setenv(f"{scheme}_proxy", raw.url)
        message = failure(f"{scheme}://mirror.invalid", tmp_path / "f")
        assert "407" in message
        assert re.search(r"HTTPS_PROXY .*to http://USER:PASSWORD@HOST:PORT", message)
        assert len(raw.heads) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_gets_the_login_of_the_environment(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch, certificate: Certificate
) -> None:
    with answering(always(WHOLE), certificate.context) as server, proxy("me:se cret", server.address) as raw:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://me:se%20cret@{raw.address}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
        assert get(f"{scheme}://mirror.invalid", tmp_path / "f") == CONTENT
        # The login is the proxy's, not the server's behind it.
        assert not any("roxy-" in asked for asked in server.heads)


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_hosts_that_are_reached_past_the_proxy(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(always(WHOLE)) as server, answering(always(head("Content-Length: 0", status="403 no"))) as raw:
        monkeypatch.setenv("HTTP_PROXY", raw.url)
        assert "403" in failure(server.url, tmp_path / "f")
        monkeypatch.setenv(name, "elsewhere.invalid,127.0.0.1")
        assert get(server.url, tmp_path / "f") == CONTENT
        assert (len(server.heads), len(raw.heads)) == (1, 1)


def test_a_proxy_that_refuses_the_address_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(always(head("Content-Length: 0", status="403 \x1b[31mno"))) as raw:
        monkeypatch.setenv("HTTPS_PROXY", raw.url)
        message = failure("https://mirror.invalid", tmp_path / "f")
        assert "Tunnel connection failed: 403" in message
        assert "the proxy refuses this address" in message
        assert len(raw.heads) == 1


def test_a_proxy_whose_tunnel_dribbles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(endlessly(b"HTTP/1.1 200 OK\r\n", b"X", 0.02)) as raw:
        monkeypatch.setenv("HTTPS_PROXY", raw.url)
        assert "bytes came in" in failure("https://mirror.invalid", tmp_path / "f")


def test_a_proxy_of_a_kind_that_is_not_spoken_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:secret@127.0.0.1:1")
    message = failure("https://mirror.invalid", tmp_path / "f")
    assert message.startswith("HTTPS_PROXY: a proxy of the kind 'socks5'")
    assert "secret" not in message


def test_a_certificate_that_is_not_trusted_is_tried_once(tmp_path: Path, certificate: Certificate) -> None:
    with answering(always(WHOLE), certificate.context) as raw:
        message = failure(f"https://{raw.address}", tmp_path / "f")
        assert "its certificate is not trusted" in message
        assert "SSL_CERT_FILE=FILE or REQUESTS_CA_BUNDLE=FILE" in message
        assert raw.heads == []


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_companys_certificate_is_taken_from_the_environment(
    tmp_path: Path, name: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(certificate.path))
    with answering(always(WHOLE), certificate.context) as raw:
        assert get(f"https://{raw.address}", tmp_path / "f") == CONTENT


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_are_not_there(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(tmp_path / "absent.pem"))
    assert failure("https://127.0.0.1:1", tmp_path / "f").startswith(f"{name}: {tmp_path}/absent.pem is not there")


def test_a_bundle_that_holds_no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "junk.pem"))
    assert "junk.pem is no file of certificates" in failure("https://127.0.0.1:1", tmp_path / "f")


def test_https_where_only_http_is_spoken(tmp_path: Path) -> None:
    with serving(Files({"/f": CONTENT})) as files:
        message = failure(files.url.replace("http:", "https:"), tmp_path / "f")
    assert "no TLS is spoken there" in message
