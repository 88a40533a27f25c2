"""``fedflair evaluate`` gives the numbers that the run itself wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision import models

from fedflair.cli import run as run_command
from fedflair.errors import DataError
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.training.train import train
from tests.small_runs import small_config


def test_evaluate_repeats_the_summary(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "resnet18.pth"
    published = models.resnet18()
    published.bn1.running_mean.fill_(0.5)
    torch.save(published.state_dict(), weights)
    options = {"model_type": "resnet18", "pretrained": True, "pretrained_weights": weights}
    folder = train(small_config(tiny_store, run=tmp_path / "run", central_num_iterations=2, **options))
    weights.unlink()
    run_command(["evaluate", "--run", str(folder), "--partition", "test", "--json"])
    shown = json.loads(capsys.readouterr().out)
    test = read_summary(RunFolder(folder))["test"]
    assert {name: shown[name] for name in test} == test
    assert set(shown["label_ap"]) == {"animal", "food", "outdoor", "plant"}


def test_the_last_model_is_scored_on_request(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(small_config(tiny_store, run=tmp_path / "run", learning_rate=0.5))
    rows = {row["round"]: row for row in read_rows(RunFolder(folder)) if "val/macro_loss" in row}
    best = read_summary(RunFolder(folder))["best_round"]
    capsys.readouterr()
    for checkpoint, round_ in (("best", best), ("last", 4)):
        run_command(["evaluate", "--run", str(folder), "--partition", "val", "--checkpoint", checkpoint, "--json"])
        shown = json.loads(capsys.readouterr().out)
        assert shown["macro_loss"] == rows[round_]["val/macro_loss"]
    run_command(["evaluate", "--run", str(folder), "--partition", "val", "--checkpoint", "last"])
    # The title wraps where the folder's name is long.
    assert "val, last model" in " ".join(capsys.readouterr().out.split())


def test_scores_of_a_private_run_are_marked(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"central_privacy_mechanism": "gaussian", "central_delta": 0.01, "central_num_iterations": 1}
    folder = train(small_config(tiny_store, run=tmp_path / "run", model="small_cnn", **options))
    capsys.readouterr()
    for more in ([], ["--per_user"]):
        run_command(["evaluate", "--run", str(folder), *more, "--json"])
        assert json.loads(capsys.readouterr().out)["not_covered_by_epsilon"] == "every number here"
        run_command(["evaluate", "--run", str(folder), *more])
        assert "epsilon does not cover" in " ".join(capsys.readouterr().out.split())


def test_evaluate_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run folder"):
        run_command(["evaluate", "--run", str(tmp_path)])
