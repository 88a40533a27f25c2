"""Which users a subset takes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.download.plan import choose_users
from fedflair.errors import ConfigError


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
