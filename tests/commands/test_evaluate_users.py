"""``fedflair evaluate --per_user``: its files, tables and JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedflair.cli import run as run_command
from fedflair.errors import ConfigError
from fedflair.training.train import train
from tests.small_runs import small_config

TUNED = ["--per_user", "--personalise_steps", "2", "--personalise_learning_rate", "0.05"]


@pytest.fixture(scope="module")
def finished(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(small_config(tiny_store, run=folder, model="small_cnn", central_num_iterations=2))


def test_files_json_and_tables(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        (["--per_user", "--personalise_steps", "-1"], "personalise_steps: -1 is impossible"),
        (["--per_user", "--personalise_fraction", "1"], "personalise_fraction: 1.0 is impossible"),
        (["--per_user", "--personalise_learning_rate", "0"], "personalise_learning_rate: 0.0 is impossible"),
    ],
)
def test_impossible_options_are_refused(finished: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_command(["evaluate", "--run", str(finished), *options])
