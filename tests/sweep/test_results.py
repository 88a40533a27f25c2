"""Means, deviations and the ranking of a sweep, by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.privacy.accounting.shown import LEGEND
from fedflair.runs.folder import RunFolder
from fedflair.sweep.plan import Trial
from fedflair.sweep.results import CAVEAT, Outcome, outcome_of, summarise, table_of, write_results


def trial(point: str, seed: int) -> Trial:
    return Trial(point, point, {}, seed, f"{point}-seed{seed}", TrainConfig.of(seed=seed))


def done(val: float, test: float, epsilon: float | None = None, **facts: Any) -> Outcome:
    privacy = None if epsilon is None else {"epsilon": epsilon, "run_epsilon": epsilon, "delta": 1e-5, **facts}
    return Outcome("done", {"macro_ap": val}, {"macro_ap": test}, 60.0, privacy)


TRIALS = [trial("a", 0), trial("b", 0), trial("a", 1), trial("b", 1), trial("c", 0)]
OUTCOMES = [done(0.5, 0.1), done(0.3, 0.9, 2.0), done(0.7, 0.3), done(0.3, 0.8, 2.0), Outcome("unfinished", error="x")]


def test_mean_and_deviation_by_hand_and_val_ranks() -> None:
    results = summarise(TRIALS, OUTCOMES)
    a, b, c = results["points"]
    assert (a["point"], b["point"], c["point"]) == ("a", "b", "c")
    # (0.5 + 0.7) / 2, and sqrt((0.1^2 + 0.1^2) / 1).
    assert a["val"]["macro_ap"] == {"mean": pytest.approx(0.6), "std": pytest.approx(0.02**0.5)}
    assert a["test"]["macro_ap"]["mean"] == pytest.approx(0.2)
    assert (b["epsilon"], b["num_done"], c["num_done"], c["num_runs"]) == (2.0, 2, 0, 1)
    _, rows = table_of(results)
    assert rows[0] == ["a", "2/2", "0.600 ± 0.141", "0.200 ± 0.141", "-", "1.0"]
    assert rows[1] == ["b", "2/2", "0.300 ± 0.000", "0.850 ± 0.071", "2", "1.0"]
    assert rows[2] == ["c", "0/1", "-", "-", "-", "-"]


def test_the_files_say_the_same(tmp_path: Path) -> None:
    write_results(tmp_path, TRIALS, OUTCOMES)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [(row["point"], row["seed"], row["status"]) for row in rows][4] == ("c", "0", "unfinished")
    assert rows[1]["test/macro_ap"] == "0.9"
    text = (tmp_path / "sweep.md").read_text()
    assert "| a | 2/2 | 0.600 ± 0.141 | 0.200 ± 0.141 |" in text
    assert "Ranked by macro AP on val" in text
    assert CAVEAT in text
    assert "1 runs are not done" in text
    assert json.loads((tmp_path / "sweep.json").read_text()) == summarise(TRIALS, OUTCOMES)


def test_no_cell_is_a_formula_and_no_name_breaks_the_table(tmp_path: Path) -> None:
    names = ["=HYPERLINK(1)", "+a", "-a", "@a", "\ta", "\ra", "a|b\nc\\|d", "<i>", "-1.5", "\ud800"]
    trials = [
        Trial(name, name, {"note": name, "rate": -1.5}, 0, f"run{k}", TrainConfig()) for k, name in enumerate(names)
    ]
    write_results(tmp_path, trials, [done(-0.5, 0.1)] * len(names))
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = ["'=HYPERLINK(1)", "'+a", "'-a", "'@a", "'\ta", "'\ra", "a|b\nc\\|d", "<i>", "-1.5", r"\ud800"]
    assert [row["point"] for row in rows] == [row["setting"] for row in rows] == [row["note"] for row in rows] == shown
    # Numbers stay numbers.
    assert {(row["rate"], row["val/macro_ap"], row["seed"]) for row in rows} == {("-1.5", "-0.5", "0")}
    table = [line for line in (tmp_path / "sweep.md").read_text().splitlines() if line.startswith("| ")]
    assert len(table) == 2 + len(names)
    assert r"| a\|b\\nc\\\|d | 1/1 |" in table[8]
    assert "| &lt;i> | 1/1 |" in table[9]
    points = json.loads((tmp_path / "sweep.json").read_text())["points"]
    assert [point["point"] for point in points] == names


SIMULATED = done(0.3, 0.9, 2.0, simulated=True, run_epsilon=1.63412e6)


def test_the_epsilon_of_a_simulated_deployment_is_not_shown_as_the_runs(tmp_path: Path) -> None:
    """A sweep's point, its file and its csv said 2 where the run's own epsilon was above a million."""
    trials = [trial("a", 0), trial("b", 0), trial("c", 0), trial("d", 0)]
    local = {"epsilon": 31.2, "delta": 1e-5}
    outcomes = [
        SIMULATED,
        done(0.2, 0.5, 2.0, noise_from_seed=True),
        Outcome("done", {"macro_ap": 0.1}, {"macro_ap": 0.1}, 60.0, None, local),
        done(0.05, 0.1, math.inf),
    ]
    write_results(tmp_path, trials, outcomes)
    _, rows = table_of(summarise(trials, outcomes))
    assert [row[4] for row in rows] == ["2 * (run 1.635e+06)", "infinite †", "local 31.2", "infinite"]
    text = (tmp_path / "sweep.md").read_text()
    assert "| 2 * (run 1.635e+06) |" in text
    assert LEGEND["*"] in text
    assert LEGEND["†"] in text
    assert LEGEND["‡"] not in text
    with (tmp_path / "sweep.csv").open(newline="") as file:
        told = [(row["epsilon"], row["run_epsilon"], row["epsilon_marks"]) for row in csv.DictReader(file)]
    assert told == [("2", "1.635e+06", "*"), ("infinite", "infinite", "†"), ("", "", ""), ("infinite", "infinite", "")]
    points = json.loads((tmp_path / "sweep.json").read_text())["points"]
    assert [(p["epsilon"], p["run_epsilon"]) for p in points[:2]] == [(2.0, 1.63412e6), (None, None)]


def test_a_point_shows_the_worst_of_its_runs() -> None:
    (point,) = summarise([trial("a", 0), trial("a", 1)], [done(0.1, 0.1, 2.0), done(0.1, 0.1, math.inf)])["points"]
    assert point["epsilon_shown"] == "infinite"


def test_a_private_point_without_a_finished_run_is_not_a_point_without_a_promise() -> None:
    private = Trial("a", "a", {}, 0, "a-seed0", TrainConfig.of(central_privacy_mechanism="laplace"))
    (point,) = summarise([private], [Outcome("unfinished", error="x")])["points"]
    assert point["epsilon_shown"] == "not known yet"


def test_without_privacy_there_is_no_caveat(tmp_path: Path) -> None:
    write_results(tmp_path, TRIALS[:1], OUTCOMES[:1])
    assert CAVEAT not in (tmp_path / "sweep.md").read_text()


def test_the_state_of_a_run_is_what_its_folder_says(tmp_path: Path) -> None:
    run, log = RunFolder(tmp_path / "run"), tmp_path / "run.log"
    assert outcome_of(run, log) == Outcome("waiting")
    log.write_text("started\nfedflair: it broke\n")
    assert outcome_of(run, log) == Outcome("unfinished", error="fedflair: it broke")
