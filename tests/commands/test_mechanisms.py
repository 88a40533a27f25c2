from __future__ import annotations

import json

import pytest

from fedflair.commands.mechanisms import mechanisms
from fedflair.errors import ConfigError, PrivacyError

SMALL = {"rounds": 30, "epsilon": 4.0, "delta": 1e-4, "cohort_size": 20, "population": 200}


def test_the_table_has_every_mechanism_and_what_auto_takes(capsys: pytest.CaptureFixture[str]) -> None:
    mechanisms(**SMALL, cohort_sampling="rotating")  # type: ignore[arg-type]
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["error", "largest", "a", "round's", "multiplier", "vectors", "mechanism"]
    names = [row.split(None, 5)[5] for row in rows]
    assert sorted(name.split(",")[0] for name in names) == [
        "banded_inverse_square_root",
        "banded_matrix_factorization",
        "buffered_linear_toeplitz",
        "gaussian_moments_accountant",
        "tree_aggregation",
    ]
    assert last.removeprefix("auto: ") in names
    mechanisms(**SMALL, cohort_sampling="rotating", json_=True)  # type: ignore[arg-type]
    answer = json.loads(capsys.readouterr().out)
    assert answer["chosen"] == last.removeprefix("auto: ")
    assert [f"{one['error']:.5g}" for one in answer["candidates"]] == [row.split()[0] for row in rows]


def test_impossible_questions_are_named() -> None:
    for changes, message in (
        ({"rounds": 0}, "rounds: 0 is impossible"),
        ({"cohort_size": 201}, "cohort_size: 201 is more than the population of 200"),
        ({"epsilon": -1.0}, "epsilon: -1.0 is impossible"),
        ({"delta": 0.01}, "delta: 0.01 is not below 1/200"),
    ):
        with pytest.raises((ConfigError, PrivacyError), match=message):
            mechanisms(**{**SMALL, **changes})  # type: ignore[arg-type]
