"""Which users a subset takes, and what the record of a download believes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.download.plan import Manifest, Request, choose_users
from fedflair.errors import ConfigError, DataError


def users(train: int, val: int, test: int) -> dict[str, str]:
    sizes = {"train": train, "val": val, "test": test}
    return {f"{name}{k}": name for name, number in sizes.items() for k in range(number)}


def test_partitions_keep_their_shares() -> None:
    everyone = users(800, 100, 100)
    chosen = choose_users(everyone, 50, seed=0)
    assert Counter(everyone[user] for user in chosen) == {"train": 40, "val": 5, "test": 5}
    assert choose_users(everyone, 50, seed=0) == chosen
    assert choose_users(dict(reversed(everyone.items())), 50, seed=0) == chosen
    assert choose_users(everyone, 50, seed=1) != chosen


@pytest.mark.parametrize(("number", "expected"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (4, [2, 1, 1])])
def test_very_few(number: int, expected: list[int]) -> None:
    everyone = users(900, 60, 40)
    counts = Counter(everyone[user] for user in choose_users(everyone, number, seed=0))
    assert [counts[name] for name in ("train", "val", "test")] == expected


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 20), st.data())
def test_always_as_many_as_asked_for(train: int, val: int, test: int, data: st.DataObject) -> None:
    everyone = users(train, val, test)
    number = data.draw(st.integers(1, len(everyone)))
    chosen = choose_users(everyone, number, seed=0)
    assert len(chosen) == number
    assert chosen <= set(everyone)


def test_more_than_there_are() -> None:
    with pytest.raises(ConfigError, match="num_users: 4 is not between 1 and the 3 users there are"):
        choose_users(users(1, 1, 1), 4, seed=0)


SELECTION, WHERE = {"source": "apple"}, {"address": "https://one.invalid"}


def settled(folder: Path, where: dict[str, str] = WHERE) -> Manifest:
    manifest = Manifest(folder)
    manifest.settle(SELECTION, where)
    return manifest


def test_a_file_is_known_while_it_has_its_size(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    settled(tmp_path).add("f", {"size": 5})
    assert settled(tmp_path).holds("f")
    for other in (b"1234", b"123456", b""):
        (tmp_path / "f").write_bytes(other)
        assert not Manifest(tmp_path).holds("f")
    (tmp_path / "f").unlink()
    assert not Manifest(tmp_path).holds("f")
    assert not Manifest(tmp_path).holds("g")


@pytest.mark.parametrize("where", [{"address": "https://two.invalid"}, {**WHERE, "revision": "b" * 40}])
def test_nothing_is_known_of_what_another_place_has(tmp_path: Path, where: dict[str, str]) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    settled(tmp_path).add("f", {"size": 5})
    assert settled(tmp_path).holds("f")
    assert not settled(tmp_path, where).holds("f")
    assert Manifest(tmp_path).entry("f") is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "3", "[]", "null", '{"files": []}', '{"files": {"f": 3}}', '{"files": {"f": {}}}', "[" * 100_000,
     '{"files": {"f": {"size": "5"}}}', '{"files": {"f": {"size": true}}}', '{"where": "x"}', '{"selection": []}'],
)  # fmt: skip
def test_a_record_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "download.json").write_text(content)
    with pytest.raises(DataError, match=r"download\.json: damaged; remove it"):
        Manifest(tmp_path)


def test_a_record_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("{}")
    (tmp_path / "download.json").symlink_to(tmp_path / "victim")
    settled(tmp_path)
    assert (tmp_path / "victim").read_text() == "{}"
    assert json.loads((tmp_path / "download.json").read_text())["where"] == WHERE


def test_what_a_record_says_of_another_selection_is_shown_printable(tmp_path: Path) -> None:
    (tmp_path / "download.json").write_text(json.dumps({"selection": {"source": "\x1b[2J", "num_users": "\n"}}))
    with pytest.raises(ConfigError, match="holds a download of") as raised:
        settled(tmp_path)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_rate": -1.0}, "min_rate: -1 is no number of bytes"),
        ({"min_rate": float("nan")}, "min_rate: nan"),
        ({"raise_limits": 0.5}, "raise_limits: 0.5 is not between 1 and"),
        ({"raise_limits": float("nan")}, "raise_limits: nan"),
        ({"source": "apple", "send_token": True}, "send_token: only together with --from huggingface"),
    ],
)
def test_requests_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Request(tmp_path, **options)
