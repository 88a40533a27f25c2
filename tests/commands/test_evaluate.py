"""``fedflair evaluate`` gives the numbers that the run itself wrote, and those of each user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision import models

from fedflair.cli import run as run_command
from fedflair.errors import ConfigError, DataError
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.runs.tensors import load_tensors, save_tensors
from fedflair.training.train import train
from tests.small_runs import small_config

TUNED = ["--per_user", "--personalise_steps", "2", "--personalise_learning_rate", "0.05"]


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
    # Whichever it was, the model of round 2 is the best from here on.
    run = RunFolder(folder)
    save_tensors(run.best, {"parameters": load_tensors(run.previous)[0]["parameters"]}, load_tensors(run.best)[1])
    assert rows[2]["val/macro_loss"] != rows[4]["val/macro_loss"]
    capsys.readouterr()
    for checkpoint, round_ in (("best", 2), ("last", 4)):
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


@pytest.fixture(scope="module")
def finished(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(small_config(tiny_store, run=folder, model="small_cnn", central_num_iterations=2))


def test_of_each_user_there_are_files_json_and_tables(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["evaluate", "--run", str(finished), "--partition", "val", *TUNED, "--json"])
    shown = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in (finished / "per_user_val.jsonl").read_text().splitlines()]
    assert json.loads((finished / "per_user_val.json").read_text()) == shown
    assert [row["num_images"] for row in rows] == [3, 6]
    assert shown["distribution"]["micro_ap"]["mean"] == pytest.approx(sum(row["micro_ap"] for row in rows) / 2)
    tuned = shown["personalisation"]
    assert (tuned["num_steps"], tuned["fraction"], tuned["learning_rate"], tuned["num_users"]) == (2, 0.5, 0.05, 2)
    assert (shown["partition"], shown["checkpoint"], shown["num_users"]) == ("val", "best", 2)
    run_command(["evaluate", "--run", str(finished), "--partition", "val", *TUNED])
    output = capsys.readouterr().out
    assert "worst" in output
    assert "0 users with fewer than 2 images are left out." in output
    assert f"{tuned['gain']['micro_ap']['mean']:+.4f}" in output


def test_without_steps_nothing_is_tuned(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["evaluate", "--run", str(finished), "--partition", "train", "--per_user", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["personalisation"] is None
    assert [found["num_users"] for found in shown["by_size"]] == [1, 1, 3, 1]
    assert "personalised" not in (finished / "per_user_train.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--personalise_steps", "3"], "personalise_steps: only users can be personalised; add --per_user"),
        (["--per_user", "--metrics", "pfl"], "metrics: pfl-research has none of each user; drop --per_user"),
        (["--per_user", "--personalise_steps", "-1"], "personalise_steps: -1 is impossible"),
        (["--per_user", "--personalise_fraction", "1"], "personalise_fraction: 1.0 is impossible"),
        (["--per_user", "--personalise_learning_rate", "0"], "personalise_learning_rate: 0.0 is impossible"),
    ],
)
def test_impossible_options_are_refused(finished: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_command(["evaluate", "--run", str(finished), *options])


def test_the_benchmarks_own_metrics_are_named_as_such(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["evaluate", "--run", str(finished), "--partition", "val", "--json"])
    exact = json.loads(capsys.readouterr().out)
    assert "metrics" not in exact
    run_command(["evaluate", "--run", str(finished), "--partition", "val", "--metrics", "pfl", "--json"])
    theirs = json.loads(capsys.readouterr().out)
    assert theirs["metrics"].startswith("pfl-research's (AP over 200 thresholds; ")
    assert theirs["macro_loss"] == theirs["micro_loss"] == exact["loss"]
    assert theirs["label_ap"].keys() == exact["label_ap"].keys()
    # Every label of the tiny store has positives in val, and a model of two rounds few scores apart.
    assert theirs["macro_ap"] == pytest.approx(sum(theirs["label_ap"].values()) / 4)
    assert 0 < theirs["macro_ap"] != exact["macro_ap"]
    assert "macro_f1" in exact
    assert "macro_f1" not in theirs
    run_command(["evaluate", "--run", str(finished), "--partition", "val", "--metrics", "pfl"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "metrics are pfl-research's (AP over 200 thresholds;" in shown
    assert "AP by label, over 200 thresholds" in shown
    assert f"{theirs['macro_ap']:.4f}" in shown
