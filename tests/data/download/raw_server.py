"""Servers on the loopback interface that answer byte by byte as a test says: what no HTTP library would send."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Answer = Callable[[socket.socket, str], None]


@dataclass
class Raw:
    """A server's address, and the heads of the requests that it got."""

    address: str
    heads: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://{self.address}"


def head_of(connection: socket.socket) -> str:
    """What a client sends up to the empty line; "" where it sends nothing."""
    head = b""
    while b"\r\n\r\n" not in head and (piece := connection.recv(4096)):
        head += piece
    return head.decode("latin-1")


@contextmanager
def answering(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Raw]:
    """Calls ``answer(connection, head)`` for each connection, in a thread of its own, and closes it then.

    The clients of such a server hang up in mid-answer; that is no error here. Every wait ends with the block.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        raw = Raw(f"127.0.0.1:{listener.getsockname()[1]}")
        threads: list[threading.Thread] = []

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                connection.settimeout(10)
                # Here, so that one client that breaks off its handshake does not keep the others waiting.
                spoken = tls.wrap_socket(connection, server_side=True) if tls else connection
                with spoken:
                    head = head_of(spoken)
                    raw.heads.append(head)
                    answer(spoken, head)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                    threads[-1].start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield raw
        finally:
            raw.over.set()
            # Wakes accept, which closing alone does not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for one in threads:
                one.join(5)


def always(content: bytes) -> Answer:
    """The same bytes to whoever asks."""
    return lambda connection, head: connection.sendall(content)


def endlessly(first: bytes, again: bytes, pause: float = 0.0, most: int = 1 << 28) -> Answer:
    """``first`` once, then ``again`` until the client hangs up."""

    def answer(connection: socket.socket, head: str) -> None:
        connection.sendall(first)
        waiting = threading.Event()
        for _ in range(most // len(again)):
            connection.sendall(again)
            if pause:
                waiting.wait(pause)

    return answer


@dataclass(frozen=True)
class Certificate:
    """Of 127.0.0.1 and mirror.invalid, signed by itself. context: for a server."""

    path: Path
    context: ssl.SSLContext


def make_certificate(folder: Path) -> Certificate:
    """Skips the test where there is nothing to make one with."""
    path, key = folder / "certificate.pem", folder / "key.pem"
    try:
        _by_library(path, key)
    except ImportError:
        _by_program(path, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return Certificate(path, context)


def _by_library(path: Path, key: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mirror.invalid")])
    names = [x509.DNSName("mirror.invalid"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(private, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(*formats))


def _by_program(path: Path, key: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("neither cryptography nor openssl is there to make a certificate with")
    names = "subjectAltName=DNS:mirror.invalid,IP:127.0.0.1"
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-addext", names]
    files = ["-subj", "/CN=mirror.invalid", "-keyout", str(key), "-out", str(path)]
    subprocess.run(["openssl", "req", "-x509", *words, *files], check=True, capture_output=True)
