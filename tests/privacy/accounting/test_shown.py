"""How an epsilon is shown: rounded up, with its marks and words, and by one function only."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedflair
from fedflair.privacy.accounting import shown
from fedflair.privacy.accounting.shown import LEGEND, SEEDED, cell, figures, legend, of_run, show, words, worst

PRIVATE: dict[str, Any] = {"delta": 1e-5, "epsilon": 2.0, "run_epsilon": 2.0, "simulated": False}
SIMULATED = {**PRIVATE, "run_epsilon": 1.63412e6, "simulated": True}
SEEDED_RUN = {**PRIVATE, "noise_from_seed": True}
ARTIFICIAL = {**PRIVATE, "artificial_users": True}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"),
        (0.1, "0.1"),
        (1.99999, "2"),
        (2.00001, "2.001"),
        (1.2341, "1.235"),
        (0.00012345678, "0.0001235"),
        (12341.0, "1.235e+04"),
        (1.63412e6, "1.635e+06"),
        (0.0, "0"),
        (math.inf, "infinite"),
        (math.nan, "infinite"),
        (None, "infinite"),
    ],
)
def test_an_epsilon_is_shown_in_four_digits_rounded_up(value: float | None, text: str) -> None:
    assert show(value) == text


@given(st.floats(1e-9, 1e12))
def test_what_is_shown_is_never_less_and_hardly_more(value: float) -> None:
    text = Decimal(show(value))
    assert Decimal(repr(value)) <= text <= Decimal(repr(value)) * Decimal("1.001")


@pytest.mark.parametrize(
    ("central", "local", "text"),
    [
        (None, None, "-"),
        ({"mechanism": "norm_clipping_only", "epsilon": None, "delta": None}, None, "-"),
        (PRIVATE, None, "2"),
        ({**PRIVATE, "epsilon": None}, None, "infinite"),
        (SIMULATED, None, "2 * (run 1.635e+06)"),
        ({**SIMULATED, "run_epsilon": None}, None, "2 * (run infinite)"),
        (SEEDED_RUN, None, "infinite †"),
        ({**SIMULATED, "noise_from_seed": True}, None, "2 * (run infinite †)"),
        (ARTIFICIAL, None, "2 ‡"),
        ({**SIMULATED, "artificial_users": True}, None, "2 *‡ (run 1.635e+06)"),
        (None, {"delta": 1e-5, "epsilon": 31.2}, "local 31.2"),
        (PRIVATE, {"delta": 1e-5, "epsilon": 31.2, "noise_from_seed": True}, "2, local infinite †"),
        (None, {"delta": 1e-5, "epsilon_per_release": 2.0}, "local 2 a round"),
        ({"epsilon": "2", "delta": 1e-5}, None, "infinite"),
    ],
)
def test_cells_of_a_table(central: dict[str, Any] | None, local: dict[str, Any] | None, text: str) -> None:
    assert cell(central, local) == text


def test_each_mark_is_explained_once() -> None:
    assert legend(PRIVATE, None) == []
    assert legend(SIMULATED, SIMULATED, SEEDED_RUN) == [LEGEND["*"], LEGEND["†"]]
    assert legend(ARTIFICIAL) == [LEGEND["‡"]]
    assert {text[0] for text in LEGEND.values()} == set(LEGEND)


def test_the_worst_of_several_runs() -> None:
    more = {**PRIVATE, "epsilon": 3.0}
    assert worst([PRIVATE, None, more]) == more
    assert worst([more, SEEDED_RUN]) == SEEDED_RUN
    assert worst([SIMULATED, more]) == SIMULATED
    assert worst([None, {"delta": None, "epsilon": None}]) is None
    assert figures(SEEDED_RUN) == (math.inf, math.inf)
    assert figures({**SIMULATED, "noise_from_seed": True}) == (2.0, math.inf)


def test_the_promise_of_a_ledger() -> None:
    assert of_run(PRIVATE) == ["epsilon of the run: 2 at delta 1e-05"]
    assert of_run(SIMULATED) == [
        "epsilon of the simulated deployment: 2 at delta 1e-05",
        "epsilon of the run itself: 1.635e+06 at delta 1e-05",
    ]
    assert of_run(ARTIFICIAL)[1].startswith("That is for an artificial user, a random group of images; a person ")
    assert of_run(SEEDED_RUN) == ["epsilon of the run: infinite at delta 1e-05", SEEDED]


def test_words_of_facts_that_an_earlier_version_wrote() -> None:
    assert words({**PRIVATE, "words": "as it said"}) == "as it said"
    assert words(PRIVATE) == "Privacy: epsilon of the run: 2 at delta 1e-05."


def test_nothing_else_formats_an_epsilon() -> None:
    """Another format would round another way, and forget the marks. The audit's are lower bounds and estimates."""
    rooms = Path(fedflair.__file__).parent
    # The spec of a field that names an epsilon, and the specs that epsilons used to have beside the word.
    field = r"\{[^{}\"]*epsilon[^{}\"]*:[^{}\"]*[gef]\}"
    formatted = re.compile(rf"{field}|epsilon.*:\.[34]g\}}|:\.[34]g\}}.*epsilon")
    found = [
        f"{path.relative_to(rooms)}: {line.strip()}"
        for path in sorted(rooms.rglob("*.py"))
        if path != Path(shown.__file__) and "audit" not in path.relative_to(rooms).as_posix()
        for line in path.read_text().splitlines()
        if formatted.search(line)
    ]
    assert found == []
