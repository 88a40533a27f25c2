"""What a run says of what made it, when it begins and each time it is gone on with."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from fedflair import __version__
from fedflair.cli import main
from fedflair.commands.report import report
from fedflair.data.store.packed import open_store
from fedflair.runs.environment import read_environment
from fedflair.runs.folder import RunFolder, read_summary
from fedflair.runs.tensors import load_tensors
from fedflair.training.train import train
from tests.small_runs import small_config

WORDS = ["--pretrained=false", "--model=small_cnn", "--cohort_size=3", "--central_num_iterations=1", "--image_size=32"]
PRIVATE = ["--central_privacy_mechanism=gaussian", "--central_delta=0.01"]
HOSTILE = "<b>\x1b[31mrun\n"


@pytest.fixture(scope="module")
def private(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[str]]:
    """A private run that was gone on with once it had ended, and the words that began it."""
    run = tmp_path_factory.mktemp("runs") / HOSTILE
    words = ["train", f"--data_path={tiny_store}", f"--run={run}", *WORDS, *PRIVATE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_a_secret_of_mine")
        assert main(words) == 0
        assert main(["train", "--resume", f"--run={run}", "--num_threads=1"]) == 0
    return RunFolder(run), words


def test_each_go_adds_an_entry_with_its_words(private: tuple[RunFolder, list[str]], tiny_store: Path) -> None:
    folder, words = private
    first, second = read_environment(folder)
    assert first["command"] == ["fedflair", *words]
    assert second["command"] == ["fedflair", "train", "--resume", f"--run={folder.path}", "--num_threads=1"]
    assert (first["round"], second["round"]) == (0, 1)
    assert first["versions"] | {"torchvision": ""} == {
        "fedflair": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": "",
        "numpy": np.__version__,
    }
    assert first["processor"]["name"]
    assert first["gpu"] is None
    assert first["store"] == {"fingerprint": open_store(tiny_store).fingerprint, "provenance": {"source": "test"}}
    provenance = json.loads(folder.provenance.read_text())
    assert first["computes"]["kernels"] == second["computes"]["kernels"] == provenance["kernels"]
    assert second["computes"]["threads"] == 1
    assert read_summary(folder)["environment"] == [first, second]


def test_what_was_left_open_is_named_with_what_it_came_to(private: tuple[RunFolder, list[str]]) -> None:
    first, second = read_environment(private[0])
    threads = first["computes"]["threads"]
    assert first["resolved"] == {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "cohort_sampling": "poisson",
        "accountant": read_summary(private[0])["privacy"]["accountant"],
        "central_order": 2.0,
        "population": 6,
        "noise_cohort_size": 3,
        "num_threads": threads,
    }
    assert "num_threads" not in second["resolved"]


def test_nothing_secret_is_in_it_and_what_epsilon_does_not_cover_is_marked(
    private: tuple[RunFolder, list[str]],
) -> None:
    folder, _ = private
    text = folder.environment.read_text()
    assert load_tensors(folder.last)[1]["noise_seed"] not in text
    assert "hf_a_secret_of_mine" not in text
    for entry in read_environment(folder):
        assert entry["seeds"] == {"seed": 0, "noise": "secret"}
        assert entry["not_covered_by_epsilon"] == ["store"]


def test_the_report_s_page_shows_it_escaped(
    private: tuple[RunFolder, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(private[0].path, output=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<h2>What made the run</h2>" in page
    assert ", in 2 goes</summary>" in page
    assert f"versions.torch: {torch.__version__}\n" in page
    assert r"--run=" in page
    assert r"&lt;b&gt;\x1b[31mrun\n" in page
    assert "<b>" not in page
    assert "\x1b" not in page + capsys.readouterr().out


def test_a_run_from_python_has_no_words_and_one_of_an_earlier_version_begins_with_its_resume(
    tiny_store: Path, tmp_path: Path
) -> None:
    options = {"model": "small_cnn", "central_num_iterations": 1, "image_size": None}
    folder = RunFolder(train(small_config(tiny_store, run=tmp_path / "run", **options)))
    (entry,) = read_environment(folder)
    assert entry["command"] is None
    assert entry["seeds"] == {"seed": 0, "noise": "none"}
    assert "not_covered_by_epsilon" not in entry
    assert entry["resolved"]["image_size"] == 224
    assert entry["resolved"]["cohort_sampling"] == "fixed"
    folder.environment.unlink()
    assert main(["train", "--resume", f"--run={folder.path}"]) == 0
    assert [entry["round"] for entry in read_environment(folder)] == [1]
