"""``fedflair download`` against a real server with a small release: what it says, asks and refuses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedflair.cli import main
from fedflair.commands.download import download
from fedflair.data.download.run import human
from fedflair.errors import ConfigError
from tests.data.download.fault_server import Files, serving
from tests.data.download.raw_server import answering
from tests.data.download.small_release import LABELS, RELATION, archive_paths, small_release


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    with serving(Files(small_release(tmp_path_factory.mktemp("release")))) as files:
        yield files


def test_what_will_come_is_said_before_it_comes(
    server: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(output=tmp_path, from_="apple", base_url=server.url)
    printed = capsys.readouterr().out
    total = sum(len(server.content[path]) for path in (LABELS, RELATION, *archive_paths()))
    assert printed.index("CC-BY-NC 4.0") < printed.index(f"256x256 images and labels, {human(total)}, from")
    assert printed.index("CC-BY-NC 4.0") < printed.index("small_images-00.tar.gz")
    assert f"from address {server.url}\n" in printed
    size = human(len(server.content[LABELS]))
    assert f"labels/labels_and_metadata.json: {size}, verified\n" in printed
    assert printed.endswith(f"Complete: {tmp_path}. Next: fedflair prepare --source {tmp_path} --output STORE\n")
    assert server.sent == total


def test_a_person_who_says_no_gets_nothing(server: Files, tmp_path: Path) -> None:
    words = ["--from", "apple", "--base_url", server.url, "--output", str(tmp_path)]
    command = [sys.executable, "-m", "fedflair", "download", *words]
    master, slave = os.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(slave)
    os.write(master, b"n\n")
    printed, errors = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 130
    assert b"CC-BY-NC" in printed
    assert b"nothing was fetched" in errors
    assert server.sent == 0


@pytest.mark.parametrize("source", ["apple", "huggingface"])
def test_nothing_that_a_server_says_steers_the_terminal(
    tmp_path: Path, source: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its words while there is another try, and those of the end."""
    statuses = iter(["503 \x1b[2J[bold]busy", "503 \x9b31m[/x]"])

    def answer(connection: socket.socket, head: str) -> None:
        status = next(statuses, "404 \x1b]0;title\x07[red]gone")
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode("latin-1"))

    address = "--base_url" if source == "apple" else "--endpoint"
    with answering(answer) as raw:
        words = ["download", "--output", str(tmp_path), "--from", source, address, raw.url, "--num_connections", "1"]
        assert main(words) == 1
    printed, errors = capfd.readouterr()
    assert "[bold]busy" in printed
    assert "[red]gone" in errors
    assert all(character.isprintable() or character == "\n" for character in printed + errors)
    assert errors.count("\n") == 1


def test_what_a_mirror_may_be_sent_is_the_users_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    words = ["download", "--output", str(tmp_path), "--endpoint", "http://mirror.invalid", "--send_token"]
    assert main(words) == 1
    assert "send_token: http://mirror.invalid is not https" in capfd.readouterr().err


def test_the_bounds_are_raised_by_their_option(
    server: Files, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.head_sizes[RELATION] = 20_000_000
    words = ["download", "--output", str(tmp_path), "--from", "apple", "--base_url", server.url, "--only", "labels"]
    assert main(words) == 1
    assert "more than the 16,000,000 that FLAIR can have" in capfd.readouterr().err
    server.head_sizes.clear()
    assert main([*words, "--raise_limits", "2", "--min_rate", "0"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"raw": True}, "raw: only together with --from apple"),
        ({"base_url": "http://127.0.0.1"}, "base_url: only together with --from apple"),
        ({"from_": "apple", "revision": "main"}, "revision: only together with --from huggingface"),
        ({"from_": "apple", "base_url": "file:///etc"}, "base_url: 'file:///etc' is not an http"),
        ({"num_users": 0}, "num_users: 0 is less than 1"),
        ({"num_users": 2, "only": "labels"}, "num_users: not together with --only labels"),
        ({"num_connections": 0}, "num_connections: 0 is less than 1"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        download(output=tmp_path, **options)  # type: ignore[arg-type]
