"""Which users a subset takes, and what a folder remembers of its download."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.download.plan import MANIFEST, Manifest, choose_users
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


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"files": []}', '{"files": null}'])
def test_a_damaged_memory_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=rf"{MANIFEST}: damaged; remove it to have the files beside it checked anew"):
        Manifest(tmp_path)


SELECTION: dict[str, Any] = {"source": "apple", "raw": False, "num_users": 3, "seed": 1}
WHERE = {"address": "https://one.example", "revision": "abc"}


def remembered(folder: Path) -> Manifest:
    manifest = Manifest(folder)
    manifest.settle(SELECTION, WHERE)
    manifest.add("a.tar", {"size": 10})
    return Manifest(folder)


def test_the_same_download_goes_on_with_what_is_complete(tmp_path: Path) -> None:
    manifest = remembered(tmp_path)
    assert manifest.revision == "abc"
    manifest.settle(dict(SELECTION), dict(WHERE))
    assert manifest.entry("a.tar") == {"size": 10}
    assert manifest.entry("b.tar") is None


@pytest.mark.parametrize("change", [{"address": "https://two.example"}, {"revision": "def"}])
def test_of_another_place_or_revision_nothing_is_complete(tmp_path: Path, change: dict[str, str]) -> None:
    manifest = remembered(tmp_path)
    manifest.settle(SELECTION, {**WHERE, **change})
    assert manifest.entry("a.tar") is None
    again = Manifest(tmp_path)
    assert again.entry("a.tar") is None
    assert again.revision == {**WHERE, **change}["revision"]


def test_a_folder_holds_one_selection(tmp_path: Path) -> None:
    manifest = remembered(tmp_path)
    words = r"holds a download of 3 users \(seed 1\), small images, from apple, not of all users, small images"
    with pytest.raises(ConfigError, match=words):
        manifest.settle({**SELECTION, "num_users": None}, WHERE)
    assert Manifest(tmp_path).entry("a.tar") == {"size": 10}
