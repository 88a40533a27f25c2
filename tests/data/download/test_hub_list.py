"""A hub that is none, or lists what no hub should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedflair.errors import DataError
from tests.data.download.raw_server import answering
from tests.data.download.small_hub import COMMIT, Hub, download, fetched, listed

DEEP = b"[" * 100_000 + b"]" * 100_000
FILE = {"type": "file", "path": "data/train-00000-of-00001.parquet", "size": 1, "oid": "0" * 40}


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"{", b"\xff\xfe", b"null", b"3", b"[]", b"{}", DEEP, b'{"error": "\x1b[2J"}', b'{"sha": 3}',
     b'{"sha": "../../x"}', b'{"sha": "\\u001b[2J"}', b'{"sha": "' + b"A" * 40 + b'"}',
     b'{"sha": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_a_commit_that_is_none(hub: Hub, tmp_path: Path, answer: bytes) -> None:
    hub.answers["revision"] = answer
    with pytest.raises(
        DataError, match=r"at main: the server .* does not speak as the hub does: check --endpoint"
    ) as error:
        download(output=tmp_path, endpoint=hub.files.url)
    assert str(error.value).isprintable()
    assert len(hub.files.log) == 1


@pytest.mark.parametrize(
    "entry",
    [None, 3, [], {}, {"type": "file"}, FILE | {"path": 3}, FILE | {"path": None}, FILE | {"size": -1},
     FILE | {"size": "1"},
     FILE | {"size": 1e300}, FILE | {"size": True}, FILE | {"size": None}, FILE | {"size": 2**62}, FILE | {"oid": "x"},
     FILE | {"oid": None}, FILE | {"oid": "\x1b[2J"}, FILE | {"lfs": 3}, FILE | {"lfs": {}}, FILE | {"lfs": {"oid": 5}},
     FILE | {"lfs": {"oid": "0" * 63}}],
)  # fmt: skip
def test_a_file_that_is_none(hub: Hub, tmp_path: Path, entry: object) -> None:
    hub.answers["tree"] = json.dumps([entry]).encode()
    with pytest.raises(DataError, match=r"the server lists .* which is no path with its size and hash") as raised:
        download(output=tmp_path, endpoint=hub.files.url)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("answer", [b"", b"{}", b'"x"', b"null", DEEP, b"[" + b"9" * 5000 + b"]", b'{"files": []}'])
def test_a_list_that_is_none(hub: Hub, tmp_path: Path, answer: bytes) -> None:
    hub.answers["tree"] = answer
    with pytest.raises(DataError, match=r"the server .* check --endpoint"):
        download(output=tmp_path, endpoint=hub.files.url)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "holds no parquet files; check --revision"),
        ([FILE, FILE], r"lists data/train-00000-of-00001\.parquet twice"),
        ([FILE, FILE | {"path": "data//train-00000-of-00001.parquet"}], "twice"),
        ([FILE, FILE | {"path": "more/train-00000-of-00001.parquet"}], "twice"),
        ([FILE, FILE | {"path": "a\x1b[2J.txt"}], "its name cannot be shown"),
        ([FILE, FILE | {"path": "a\u202etxt.exe"}], "its name cannot be shown"),
        ([FILE, FILE | {"path": "a\nb"}], "its name cannot be shown"),
        ([FILE, FILE | {"path": "a\ud800"}], "its name cannot be shown"),
        ([FILE, FILE | {"path": "download.json"}], "named as what a download itself writes"),
        (
            [FILE, FILE | {"path": "data/train-00000-of-00001.parquet.partial"}],
            "named as what a download itself writes",
        ),
        ([FILE, FILE | {"path": "a.txt.partial.json"}], "named as what a download itself writes"),
        ([FILE, FILE | {"path": "a\\..\\b"}], "leads out of the folder"),
        ([FILE, FILE | {"path": ""}], "leads out of the folder"),
        ([FILE | {"size": 10**13}], r"10,000,000,000,000 bytes, more than the 10,000,000,000 .* --raise_limits"),
        ([FILE, FILE | {"path": "a.txt", "size": 10**10}], r"10,000,000,000 bytes, more than the 1,000,000,000 "),
    ],
)
def test_lists_that_are_not_believed(hub: Hub, tmp_path: Path, entries: list[object], message: str) -> None:
    hub.answers["tree"] = json.dumps(entries).encode()
    with pytest.raises(DataError, match=message) as raised:
        download(output=tmp_path, endpoint=hub.files.url)
    assert str(raised.value).isprintable()
    assert [path for _, path, *_ in hub.files.log if "/resolve/" in path] == []


@pytest.mark.parametrize("hidden", [".parts/train.parquet.blocks", ".download.lock", "data/.x", ".git/config"])
def test_hidden_files_stay_where_they_are(hub: Hub, tmp_path: Path, hidden: str) -> None:
    hub.repository[hidden] = b"x"
    download(output=tmp_path, endpoint=hub.files.url)
    assert [path for _, path, *_ in hub.files.log if path.endswith(hidden)] == []


def test_a_list_in_pages_is_read_to_its_end(hub: Hub, tmp_path: Path) -> None:
    whole = hub.json([listed(name, data) for name, data in hub.repository.items()])[2]
    entries = json.loads(whole)

    def route(method: str, path: str) -> tuple[int, dict[str, str], bytes] | None:
        if "/tree/" not in path:
            return hub.route(method, path)
        page = int(path.rpartition("page=")[2]) if "page=" in path else 0
        link = {"Link": f'<{hub.files.url}{path.split("?")[0]}?page={page + 1}>; rel="next"'}
        return 200, link if page < len(entries) - 1 else {}, json.dumps(entries[page : page + 1]).encode()

    hub.files.routes = route
    download(output=tmp_path, endpoint=hub.files.url)
    assert hub.files.sent == fetched(hub)


@pytest.mark.parametrize(
    ("page", "bound"),
    [([], "101 pages of files, more than the 100"), ([FILE] * 500, "10,500 files, more than the 10,000")],
)
def test_pages_without_an_end(hub: Hub, tmp_path: Path, page: list[object], bound: str) -> None:
    hub.answers["tree"] = json.dumps(page).encode()
    hub.links = {"Link": f'<{hub.files.url}/api/datasets/apple/flair/tree/{COMMIT}>; rel="next"'}
    with pytest.raises(DataError, match=rf"{bound} that FLAIR can have; .* --raise_limits"):
        download(output=tmp_path, endpoint=hub.files.url)
    assert len(hub.files.log) <= 102


@pytest.mark.parametrize("link", ["<//[::1>; rel=next", "<file:///etc/passwd>; rel=next", "<ftp://h/>; rel=next"])
def test_a_next_page_that_is_none(hub: Hub, tmp_path: Path, link: str) -> None:
    hub.answers["tree"] = b"[]"
    hub.links = {"Link": link}
    with pytest.raises(DataError, match="names a next page that is no address"):
        download(output=tmp_path, endpoint=hub.files.url)


def test_a_list_of_gigabytes_is_not_read(hub: Hub, tmp_path: Path) -> None:
    hub.answers["tree"] = b"[" + b" " * 17_000_000 + b"]"
    with pytest.raises(DataError, match=r"more than the 16,000,000 that FLAIR can have"):
        download(output=tmp_path, endpoint=hub.files.url)
    hub.answers["tree"] = (
        json.dumps([listed(n, data) for n, data in hub.repository.items()]).encode() + b" " * 17_000_000
    )
    download(output=tmp_path, endpoint=hub.files.url, raise_limits=2)


def test_an_answer_that_is_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    answers = iter([b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"])
    gone = b"HTTP/1.1 404 Gone\r\nX-Error-Code: RevisionNotFound\r\nContent-Length: 0\r\n\r\n"
    with answering(lambda connection, head: connection.sendall(next(answers, gone))) as raw:
        with pytest.raises(DataError, match="no such revision"):
            download(output=tmp_path, endpoint=raw.url)
        assert len(raw.heads) == 2


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "no such dataset there; check --endpoint"),
        (403, "GatedRepo", "access must be granted first; see its page, then 'hf auth login'"),
        (401, "", "log in with 'hf auth login' .* --send_token"),
        (418, "", "the server answered 418 .*; check --endpoint"),
    ],
)
def test_what_the_hub_refuses(hub: Hub, tmp_path: Path, status: int, code: str, message: str) -> None:
    hub.files.routes = lambda method, path: (status, {"X-Error-Code": code} if code else {}, b"")
    with pytest.raises(DataError, match=message):
        download(output=tmp_path, endpoint=hub.files.url)
    assert len(hub.files.log) == 1


def test_a_hub_that_is_switched_off(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="switched off by HF_HUB_OFFLINE"):
        download(output=tmp_path, endpoint=hub.files.url)
    assert hub.files.log == []
