"""A run whose model is no longer made of numbers ends in one line, and no file holds what is not JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.cli import main
from fedflair.errors import ConfigError
from fedflair.federated.server import ServerState
from fedflair.privacy.contract import CohortStats
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.runs.tensors import load_tensors
from fedflair.training.checkpoint import save_state
from fedflair.training.divergence import refuse_divergence
from fedflair.training.record import is_better
from fedflair.training.train import train
from tests.conftest import LABELS, write_tiny_store
from tests.small_runs import command, small_config

SMALL = {"model": "small_cnn", "num_threads": 1}
PRIVATE = {"central_privacy_mechanism": "gaussian", "central_delta": 0.01, "noise_from_seed": True}


def refuse_constants(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def strict_json(run: Path) -> list[str]:
    """The names of a run's files of JSON, each of which is read as strictly as JSON is defined."""
    found = []
    for path in sorted([*run.glob("*.json"), *run.glob("*.jsonl")]):
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=refuse_constants)
        found.append(path.name)
    return found


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"learning_rate": 1e38, "central_optimizer": "sgd"}, "no client's update was finite"),
        ({"learning_rate": 1e37}, "no client's update was finite"),
        ({"learning_rate": 1e37, "cohort_size": 1, "evaluation_frequency": 1}, "its outputs on val are not finite"),
        ({"learning_rate": 1e37, **PRIVATE}, "(?:no client's update was finite|the parameters are not finite)"),
        ({"local_learning_rate": 1e30}, "no client's update was finite"),
    ],
)
def test_a_diverged_run_ends_in_one_line(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], why: str
) -> None:
    config = small_config(tiny_store, run=tmp_path / "run", **{"central_num_iterations": 8, **SMALL, **options})
    assert main(command(config)[3:]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    last = RunFolder(tmp_path / "run").last
    told = re.fullmatch(
        rf"fedflair: learning_rate: the run diverged in round (\d): {why}; lower learning_rate, local_learning_rate or "
        rf"the noise and start a new run; the last finite checkpoint is {last} \(round (\d)\)",
        line,
    )
    assert told is not None, line
    rows = read_rows(RunFolder(tmp_path / "run"))
    assert rows[-1]["round"] == int(told[1])
    assert "metrics.jsonl" in strict_json(tmp_path / "run")
    tensors, facts = load_tensors(last)
    assert facts["round"] == int(told[2])
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert not (tmp_path / "run" / "summary.json").exists()


def test_steps_that_no_number_holds_are_one_line_too(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(small_config(tiny_store, run=tmp_path / "run", learning_rate=1e38, **SMALL))[3:]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == ("fedflair: learning_rate: 1e+38 makes steps that no 32-bit number holds; lower it and start anew")


def test_one_client_that_fails_alone_ends_no_run(tmp_path: Path) -> None:
    folder, state = RunFolder(tmp_path), ServerState(3, torch.ones(2), {}, {}, {})
    save_state(folder.last, state, {})
    refuse_divergence(state, CohortStats(1, 0, 1), {}, folder)
    refuse_divergence(state, CohortStats(0, 0, 0), {"val/loss": 0.5}, folder)
    refuse_divergence(state, CohortStats(5, 0, 4), {"val/loss": 1e30}, folder)
    for cohort, row, parameters in (
        (CohortStats(2, 0, 2), {}, torch.ones(2)),
        (CohortStats(5, 0, 0), {"val/loss": float("nan")}, torch.ones(2)),
        (CohortStats(5, 0, 0), {}, torch.tensor([1.0, float("inf")])),
    ):
        with pytest.raises(ConfigError, match=r"diverged in round 3: .* \(round 3\)$"):
            refuse_divergence(ServerState(3, parameters, {}, {}, {}), cohort, row, folder)


def test_the_best_model_is_the_first_until_there_is_a_score() -> None:
    nan = float("nan")
    assert is_better(None, {"best": None, "best_round": 0}) is False
    assert is_better(nan, {"best": None, "best_round": 0}) is True
    assert is_better(nan, {"best": None, "best_round": 2}) is False
    assert is_better(0.1, {"best": None, "best_round": 2}) is True
    assert is_better(0.1, {"best": 0.1, "best_round": 2}) is False
    assert is_better(0.2, {"best": 0.1, "best_round": 2}) is True


def test_scores_of_labels_that_nobody_has_are_null_in_every_file(tmp_path: Path) -> None:
    # No image of val has the one label asked for, so that there is nothing to score there.
    store = write_tiny_store(tmp_path / "store.hdf5", {"train": (3, 2, 4, 5, 9, 4), "val": (1,), "test": (1, 1)})
    for number, label in enumerate(LABELS):
        run = train(small_config(store, run=tmp_path / f"run{number}", binary_label=label, val_cohort_size=1, **SMALL))
        if read_summary(RunFolder(run))["val"]["macro_ap"] is None:
            break
    else:
        pytest.fail("every label is in val")
    assert main(["evaluate", "--run", str(run), "--partition", "val", "--per_user", "--personalise_steps", "1"]) == 0
    assert strict_json(run) == [
        *("environment.json", "label_ap.json", "metrics.jsonl", "per_user_val.json", "per_user_val.jsonl"),
        *("provenance.json", "summary.json", "test_details.json"),
    ]
    rows = [row for row in read_rows(RunFolder(run)) if "val/macro_ap" in row]
    assert all(row["val/macro_ap"] is None for row in rows)
    assert read_summary(RunFolder(run))["best_round"] == rows[0]["round"]
