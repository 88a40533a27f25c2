"""What the runs of a sweep cost together, from the first lines of their ledgers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.accounting.shown import show
from fedflair.runs.folder import RunFolder
from fedflair.sweep.cost import cost_of, sentence_of
from fedflair.sweep.plan import Trial
from fedflair.sweep.results import Outcome, notes_of, outcome_of, summarise, write_results
from fedflair.training.accountant import first_line
from tests.privacy.ledgers import begun_run, finished_run, small_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose noise is that of a larger deployment."""
    return finished_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def terms(run: Path) -> dict[str, Any]:
    return dict(first_line(run))


def rounds_of(terms: dict[str, Any], source: str, runs: int) -> float:
    event = PrivacyEvent(**{**terms[source], "count": terms[source]["count"] * runs})
    return epsilon(event, terms["delta"])


def test_runs_cost_what_one_run_of_all_their_rounds_does(terms: dict[str, Any]) -> None:
    facts = cost_of([terms] * 3)
    assert facts == {
        "runs": 3,
        "without_ledger": 0,
        "delta": 1e-4,
        "simulated": True,
        "epsilon": rounds_of(terms, "event", 3),
        "run_epsilon": rounds_of(terms, "run_event", 3),
    }
    assert sentence_of(facts).startswith(
        f"All 3 private runs of the sweep together: epsilon {show(facts['epsilon'])} * at delta 0.0001 in the "
        f"simulated deployment, {show(facts['run_epsilon'])} for the runs themselves. That covers every model of theirs"
    )


def test_the_smallest_delta_counts_and_noise_that_is_known_protects_nobody(terms: dict[str, Any]) -> None:
    facts = cost_of([terms, {**terms, "delta": 1e-6}, None])
    assert facts is not None
    assert (facts["delta"], facts["without_ledger"]) == (1e-6, 1)
    assert sentence_of(facts).endswith(
        " 1 more runs keep no ledger: they promise nothing to the users they trained on."
    )
    own = {**terms, "simulated": False, "run_event": terms["event"]}
    seeded = cost_of([own, {**own, "noise_from_seed": True}])
    assert seeded is not None
    assert (seeded["epsilon"], seeded["run_epsilon"]) == (None, None)
    assert ": epsilon infinite at delta 0.0001. " in sentence_of(seeded)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"artificial_users": True}, "artificial users are other groups of images in runs of another seed"),
        ({"event": {"noise": "gaussian"}}, "the ledger of one of them cannot be read here"),
        ({"event": None}, "the ledger of one of them cannot be read here"),
        ({"delta": "x"}, "the ledger of one of them cannot be read here"),
    ],
)
def test_what_cannot_be_told_is_not(terms: dict[str, Any], change: dict[str, Any], why: str) -> None:
    facts = cost_of([terms, {**terms, **change}])
    assert facts is not None
    assert sentence_of(facts) == f"All 2 private runs of the sweep together: no epsilon, as {why}."


def test_one_run_or_none_with_a_ledger_has_no_line(terms: dict[str, Any]) -> None:
    assert cost_of([terms, None]) is None
    assert cost_of([None, None]) is None


def test_a_sweep_says_it_once_all_runs_were_begun(run: Path, tmp_path: Path) -> None:
    trials = [Trial(name, name, {}, 0, name, TrainConfig()) for name in ("a", "b")]
    done = outcome_of(RunFolder(run), tmp_path / "none.log")
    begun_run(tmp_path / "stopped", small_config())
    (tmp_path / "stopped.log").write_text("killed")
    stopped = outcome_of(RunFolder(tmp_path / "stopped"), tmp_path / "stopped.log")
    assert summarise(trials, [done, Outcome("waiting")])["together"] is None
    # A run that was stopped has released something too, of which no more than all is known here.
    results = summarise(trials, [done, stopped])
    assert results["together"]["runs"] == 2
    assert sentence_of(results["together"]) in notes_of(results)
    write_results(tmp_path, trials, [done, stopped])
    assert sentence_of(results["together"]) in (tmp_path / "sweep.md").read_text()
    assert json.loads((tmp_path / "sweep.json").read_text())["together"] == results["together"]
