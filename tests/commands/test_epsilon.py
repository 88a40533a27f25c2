"""``fedflair epsilon``: both ways, as JSON, text and picture, and what it refuses."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fedflair.commands.epsilon import epsilon
from fedflair.errors import ConfigError, DiskError, FedflairError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon as epsilon_of
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.accounting.plot import noise_by_cohort
from fedflair.privacy.accounting.question import make_question
from fedflair.privacy.accounting.shown import show
from fedflair.privacy.contract import PrivacyOptions
from fedflair.privacy.mechanisms import make_mechanism
from fedflair.sampling import SamplerDescription

SMALL: dict[str, Any] = {"rounds": 40, "delta": 1e-5, "sampling_rate": 0.05}
BANDED = {"mechanism": "banded_matrix_factorization", "min_separation": 2}


def ask(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    epsilon(**{**SMALL, **options}, json_=True)
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_both_ways_agree(capsys: pytest.CaptureFixture[str]) -> None:
    forth = ask(capsys, noise_multiplier=1.0)
    assert forth["epsilon"] == epsilon_of(PrivacyEvent("gaussian", 1.0, 40, "poisson", 0.05), 1e-5)
    back = ask(capsys, epsilon=forth["epsilon"])
    assert back["noise_multiplier"] == pytest.approx(1.0, rel=1e-4)
    assert (back["delta"], back["accountant"], back["neighbouring"]) == (1e-5, "pld", "zero_out")


def test_cohort_and_population_are_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"sampling_rate": None, "cohort_size": 20, "population": 400, "delta": 1e-4}
    answer = ask(capsys, noise_multiplier=1.0, **options)
    assert answer["sampling_rate"] == 0.05
    assert answer["warnings"] == []
    (warning,) = ask(capsys, noise_multiplier=1.0, **{**options, "delta": 0.01})["warnings"]
    assert warning == "delta 0.01 is not below 1/population = 0.0025: a weak promise"


def test_single_releases(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(capsys, mechanism="gaussian", rounds=1, sampling_rate=1.0, epsilon=1.0)
    assert answer["noise_multiplier"] == pytest.approx(3.73063, rel=1e-6)
    assert answer["epsilon"] == pytest.approx(1.0, rel=1e-9)
    many = ask(capsys, mechanism="gaussian", epsilon=1.0)
    assert many["noise_multiplier"] == pytest.approx(3.73063, rel=1e-6)
    assert many["epsilon_per_round"] == 1.0
    assert many["epsilon"] == epsilon_of(PrivacyEvent("gaussian", many["noise_multiplier"], 40, "poisson", 0.05), 1e-5)
    laplace = ask(capsys, mechanism="laplace", epsilon=0.5)
    assert laplace["noise_multiplier"] == 2.0
    assert laplace["neighbours"]["replace_one"] is None


def test_neighbours_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(capsys, noise_multiplier=1.0)
    assert answer["neighbours"]["zero_out"] == {"epsilon": answer["epsilon"], "noise_multiplier": 1.0}
    assert answer["neighbours"]["replace_one"]["epsilon"] > answer["epsilon"]
    fixed = ask(capsys, noise_multiplier=4.0, cohort_sampling="fixed")
    assert (fixed["accountant"], fixed["neighbouring"]) == ("pld", "replace_one")
    # Zero is one of the contributions that another client may make.
    assert fixed["neighbours"]["zero_out"] == fixed["neighbours"]["replace_one"]
    assert ask(capsys, noise_multiplier=4.0, cohort_sampling="fixed", accountant="rdp")["epsilon"] > fixed["epsilon"]
    assert ask(capsys, noise_multiplier=1.0, neighbouring="add_remove") == answer
    # Where the sizes are known, so is how many of a group a cohort has.
    sized = {"sampling_rate": None, "cohort_size": 20, "population": 400}
    groups = [
        ask(capsys, noise_multiplier=4.0, cohort_sampling="fixed", group_size=20, **sizes)["group"]["epsilon"]
        for sizes in ({}, sized)
    ]
    assert groups[1] < groups[0] / 10


def test_banded_matrix_factorization_counts_releases_not_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    banded = {"mechanism": "banded_matrix_factorization", "min_separation": 7}
    answer = ask(capsys, noise_multiplier=2.0, **banded)
    # 40 rounds in windows of 7 are 6 releases, each over a cohort of a group a seventh as large.
    assert answer["epsilon"] == epsilon_of(PrivacyEvent("gaussian", 2.0, 6, "poisson", 7 * 0.05), 1e-5)
    back = ask(capsys, epsilon=answer["epsilon"], **banded)
    assert back["noise_multiplier"] == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize(
    "mechanism", ["gaussian_moments_accountant", "gaussian", "laplace", "banded_matrix_factorization"]
)
@pytest.mark.parametrize("separation", [None, 3])
def test_rotating_cohorts_cost_what_they_cost_in_training(
    capsys: pytest.CaptureFixture[str], mechanism: str, separation: int | None
) -> None:
    options: dict[str, Any] = {"mechanism": mechanism, "min_separation": separation}
    order = 1.0 if mechanism == "laplace" else 2.0
    trained = make_mechanism(
        PrivacyOptions(**options, epsilon=4.0, delta=1e-4, order=order), SamplerDescription("rotating", 30, 200), 40, 1
    ).description
    rotating = {**options, "cohort_sampling": "rotating", "delta": 1e-4}
    sizes = {**rotating, "sampling_rate": None, "cohort_size": 30, "population": 200}
    for one in (sizes, {**rotating, "sampling_rate": 30 / 200}):
        answer = ask(capsys, epsilon=4.0, **one)
        assert answer["noise_multiplier"] == pytest.approx(trained["noise_multiplier"], rel=1e-5)
        assert answer["epsilon"] == pytest.approx(trained["epsilon"], rel=1e-5)
        assert answer["min_separation"] == (separation or 6)


def test_rotation_hides_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody comes every 20 rounds: twice in 40, and a third time in 41."""
    rotating = {"cohort_sampling": "rotating", "noise_multiplier": 3.0}
    answer = ask(capsys, **rotating, table=True, group_size=2)
    assert (answer["min_separation"], answer["neighbouring"]) == (20, "zero_out")
    assert answer["epsilon"] == epsilon_of(PrivacyEvent("gaussian", 3.0, 2), 1e-5)
    assert answer["group"]["epsilon"] == epsilon_of(PrivacyEvent("gaussian", 1.5, 2), 1e-5)
    assert [row["epsilon"] == answer["epsilon"] for row in answer["table"]] == [False] * 4 + [False, True]
    assert ask(capsys, **rotating, rounds=41)["epsilon"] == epsilon_of(PrivacyEvent("gaussian", 3.0, 3), 1e-5)
    # Of these turns, the first aside, 1 / (1 / turns) is a little less in floating point.
    for turns in (1, 93, 99, 105, 117):
        assert ask(capsys, **rotating, sampling_rate=1 / turns)["min_separation"] == turns
    epsilon(**{**SMALL, **rotating, "rounds": 41, "plot": tmp_path / "rotating.png"})
    shown = capsys.readouterr().out
    assert "min separation    20 rounds\n" in shown
    assert "participations    at most 3 of one client, none hidden by a draw\n" in shown
    assert "gains nothing" not in shown


def test_noise_where_larger_cohorts_are_back_sooner() -> None:
    """Over 40 rounds everybody is in 2 cohorts, or in 1 that is half as large, or in 8 four times as large."""
    options = {"mechanism": "gaussian_moments_accountant", "rounds": 40, "delta": 1e-5, "epsilon": 2.0}
    given = dict.fromkeys(("cohort_size", "population", "min_separation", "neighbouring", "noise_multiplier"))
    question = make_question(**options, **given, cohort_sampling="rotating", sampling_rate=0.05, accountant="auto")  # type: ignore[arg-type]
    rates, noises = noise_by_cohort(question, 2.0)
    assert rates == [0.0125, 0.025, 0.05, 0.1, 0.2]
    counts = [1, 1, 2, 4, 8]
    assert noises == pytest.approx([(n / 2) ** 0.5 * 0.05 / rate for n, rate in zip(counts, rates)], rel=1e-4)
    assert len(noise_by_cohort(replace(question, sampling_rate=0.3, min_separation=3), 2.0)[0]) == 4


def test_table_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ask(capsys, noise_multiplier=1.0, table=True)["table"]
    assert [row["rounds"] for row in rows] == [1, 2, 5, 10, 20, 40]
    assert rows[0]["epsilon"] == epsilon_of(PrivacyEvent("gaussian", 1.0, 1, "poisson", 0.05), 1e-5)
    epsilon(**SMALL, noise_multiplier=1.0, table=True)
    shown = capsys.readouterr().out

    assert rows[-1]["epsilon"] > 1
    assert f"epsilon           {show(rows[-1]['epsilon'])}\n" in shown
    assert f"      40  {show(rows[-1]['epsilon'])}\n" in shown
    assert "if replace_one    epsilon " in shown


def test_further_notions_clients_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"noise_multiplier": 2.0, "deltas": "1e-6,1e-12", "group_size": 2, "runs": 3}
    options |= {"selected_from": 4.0, "curve": tmp_path / "made" / "curve.png"}
    answer, event = ask(capsys, **options), PrivacyEvent("gaussian", 2.0, 40, "poisson", 0.05)
    assert [(each["epsilon"], each["accountant"]) for each in answer["deltas"]] == [
        (epsilon_of(event, 1e-6), "pld"),
        (epsilon_of(event, 1e-12), "rdp"),
    ]
    assert (answer["zcdp_rho"], answer["gdp_mu"]) == (pytest.approx(5.0), pytest.approx(10**0.5))
    assert answer["together"] == {"runs": 3, "epsilon": epsilon_of(replace(event, count=120), 1e-5)}
    assert answer["epsilon"] < answer["group"]["epsilon"] < 3 * answer["epsilon"]
    assert answer["epsilon"] < answer["selected"]["epsilon"]
    rows = list(csv.DictReader((tmp_path / "made" / "curve.csv").read_text().splitlines()))
    assert [row["type_1_error"] for row in (rows[0], rows[-1])] == ["0.0", "1.0"]
    assert all(float(row["type_2_error"]) <= 1 - float(row["type_1_error"]) + 1e-9 for row in rows)
    with Image.open(tmp_path / "made" / "curve.png") as image:
        assert image.format == "PNG"
    epsilon(**SMALL, **{**options, "curve": None})
    shown = capsys.readouterr().out
    for name, value in (
        ("at delta 1e-12", answer["deltas"][1]["epsilon"]),
        ("3 such runs", answer["together"]["epsilon"]),
    ):
        assert f"{name:<18}epsilon {show(value)}" in shown
    assert "zCDP              rho 5, for which sampling gains nothing\n" in shown
    assert (
        f"group of 2        epsilon {show(answer['group']['epsilon'])} for as many clients zeroed out at once\n"
        in shown
    )
    assert (
        f"best run alone    epsilon {show(answer['selected']['epsilon'])}, of a secret geometric number of 4" in shown
    )


def test_what_rdp_has_no_bound_for_is_not_selected_from(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(capsys, noise_multiplier=2.0, neighbouring="replace_one", selected_from=3.0)
    assert answer["selected"] == {"expected_runs": 3.0, "epsilon": None}


def test_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(
        capsys, epsilon=2.0, rounds=5, plot=tmp_path / "epsilon.png", cohort_size=20, population=400, sampling_rate=None
    )
    with Image.open(tmp_path / "epsilon.png") as image:
        assert image.format == "PNG"
        assert image.size == (1200, 480)
    with pytest.raises(DiskError, match=r"more\.png: File exists: a file stands where a folder should be"):
        ask(capsys, noise_multiplier=2.0, rounds=1, plot=tmp_path / "epsilon.png" / "more.png")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "give either --epsilon or --noise_multiplier"),
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, ConfigError, "give either --epsilon or --noise_multiplier"),
        ({"epsilon": -1.0}, ConfigError, "epsilon: -1.0 is impossible"),
        ({"epsilon": 1.0, "rounds": 0}, ConfigError, "rounds: 0"),
        ({"epsilon": 1.0, "delta": 1.0}, ConfigError, "delta: 1.0"),
        ({"noise_multiplier": 1.0, "deltas": "1e-5,x"}, ConfigError, "deltas: '1e-5,x' is not a list of numbers"),
        ({"noise_multiplier": 1.0, "deltas": "1e-5,2"}, ConfigError, "deltas: 2.0 is impossible"),
        ({"noise_multiplier": 1.0, "group_size": 0}, ConfigError, "group_size: 0 is impossible"),
        (
            {"noise_multiplier": 1.0, "group_size": 9, "sampling_rate": None, "cohort_size": 2, "population": 8},
            ConfigError,
            "group_size: 9 is impossible; it must be in 1 .. 8",
        ),
        ({"noise_multiplier": 1.0, "runs": 0}, ConfigError, "runs: 0 is impossible"),
        ({"noise_multiplier": 1.0, "selected_from": 1.0}, ConfigError, "selected_from: 1.0 is impossible"),
        ({"epsilon": 1.0, "sampling_rate": 1.5}, ConfigError, "sampling_rate: 1.5"),
        ({"epsilon": 1.0, "sampling_rate": None}, ConfigError, "give either --sampling_rate, or both"),
        ({"epsilon": 1.0, "cohort_size": 3}, ConfigError, "give either --sampling_rate, or both"),
        ({"epsilon": 1.0, "sampling_rate": None, "cohort_size": 9, "population": 8}, ConfigError, "cohort_size: 9"),
        ({"epsilon": 1.0, "min_separation": 2}, ConfigError, "min_separation: gaussian_moments_accountant has none"),
        ({"epsilon": 1.0, "cohort_sampling": "fixed", **BANDED}, ConfigError, "cohort_sampling: banded_.* for fixed"),
        (
            {"epsilon": 1.0, "cohort_sampling": "rotating", "min_separation": 21},
            PrivacyError,
            r"min_separation: 21 is more than rotating cohorts of 0\.05 of all clients keep; at most 20 fits",
        ),
        (
            {"epsilon": 1.0, "cohort_sampling": "rotating", "min_separation": 0},
            ConfigError,
            "min_separation: 0 is impossible",
        ),
        (
            {"epsilon": 1.0, "cohort_sampling": "rotating", "neighbouring": "add_remove"},
            ConfigError,
            "neighbouring: where cohorts rotate, .* use zero_out",
        ),
        ({"epsilon": 1.0, "mechanism": "banded_matrix_factorization"}, ConfigError, "needs it; give --min_separation"),
        (
            {"epsilon": 1.0, "mechanism": "banded_matrix_factorization", "min_separation": 21},
            PrivacyError,
            r"min_separation: 21 .* = 1\.05 > 1",
        ),
        ({"noise_multiplier": 1.0, "mechanism": "laplace", "accountant": "rdp"}, PrivacyError, "use auto"),
        (
            {"noise_multiplier": 1.0, "cohort_sampling": "fixed", "delta": 1e-12, "accountant": "pld"},
            PrivacyError,
            "accountant: pld is not exact",
        ),
        ({"noise_multiplier": 1.0, "delta": 1e-12, "accountant": "pld"}, PrivacyError, "pld is not exact .* use auto"),
        (
            {"epsilon": 0.01, "cohort_sampling": "fixed", "accountant": "rdp"},
            PrivacyError,
            "nothing between 0 and 0\\.01948.* at a delta of 1e-05, .*; ask for another epsilon",
        ),
        (
            {"epsilon": 1.0, "rounds": 10**8},
            ConfigError,
            "rounds: 100000000 is impossible; it must be in 1 .. 10,000,000",
        ),
    ],
)
def test_impossible_questions(options: dict[str, Any], error: type[FedflairError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        epsilon(**{**SMALL, **options})
    assert "\n" not in str(caught.value)


def test_cohorts_by_coins_that_stay_apart(capsys: pytest.CaptureFixture[str]) -> None:
    apart = {**SMALL, **BANDED, "cohort_sampling": "b_min_separation", "noise_multiplier": 1.0}
    facts = ask(capsys, **apart, table=True, runs=2, group_size=2)
    groups = ask(capsys, **{**apart, "cohort_sampling": "poisson"})
    assert facts["accountant"] == "monte_carlo"
    assert 0 < facts["epsilon"] < groups["epsilon"]
    # On the way by moments, and never above what all rounds cost.
    steps = [row["epsilon"] for row in facts["table"]]
    assert steps == sorted(steps) and steps[-1] == facts["epsilon"]
    assert facts["epsilon"] < facts["together"]["epsilon"] < facts["group"]["epsilon"]
    assert facts["neighbours"]["replace_one"] is None
    by_moments = ask(capsys, **{**apart, "accountant": "rdp"})
    assert facts["epsilon"] < by_moments["epsilon"]
    assert by_moments["accountant"] == "rdp"
    for changes, message in (
        ({"mechanism": "gaussian_moments_accountant", "min_separation": None}, "accounted for banded_matrix_fact"),
        ({"min_separation": 1}, "with a min_separation of 2 or more"),
        ({"min_separation": 21}, "too small for a cohort"),
    ):
        with pytest.raises((ConfigError, PrivacyError), match=message):
            epsilon(**{**apart, **changes})
