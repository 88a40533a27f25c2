"""Runs killed at any instant: their ledgers verify, and they end bit for bit like runs that were never killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedflair.runs.folder import RunFolder, read_summary
from fedflair.runs.tensors import load_tensors
from fedflair.training.verification import verify
from tests import prepared
from tests.privacy import killed_train
from tests.small_runs import timeless_rows

# "both" has a local mechanism beside the central one.
CENTRAL = ("adaptive", "banded", "both")
LOCAL = ("local laplace",)


@pytest.fixture(scope="module")
def killed_runs(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """(folder of the runs, for each kill: mechanism, rounds in the ledger and what is wrong with it)."""
    folder = tmp_path_factory.mktemp("killed")
    words = [str(tiny_store), str(folder), "5", *CENTRAL, *LOCAL]
    done = prepared.run(words, through=killed_train.main)
    assert done.returncode == 0, done.stderr
    return folder, [line.split("\t") for line in done.stdout.splitlines()]


def test_the_ledger_verifies_after_every_kill(killed_runs: tuple[Path, list[list[str]]]) -> None:
    _, lines = killed_runs
    assert [line for line in lines if len(line) != 2] == []
    for name in CENTRAL:
        rounds = [int(line[1]) for line in lines if line[0] == name]
        assert len(rounds) >= 3
        assert len(set(rounds)) >= 2
        assert all(0 <= number <= 8 for number in rounds)


@pytest.mark.parametrize("name", [*CENTRAL, *LOCAL])
def test_a_killed_run_ends_like_one_never_killed(killed_runs: tuple[Path, list[list[str]]], name: str) -> None:
    whole, killed = (killed_runs[0] / name / kind for kind in ("whole", "killed"))
    assert_alike(whole, killed)
    if name in CENTRAL:
        assert (whole / "privacy_ledger.jsonl").read_bytes() == (killed / "privacy_ledger.jsonl").read_bytes()
        assert verify(killed, use_cache=True).problems == ()
    # Nothing half-written is left.
    assert {path.name for path in (killed / "checkpoints").iterdir()} == {
        "last.safetensors", "previous.safetensors", "best.safetensors", "fixed.safetensors",
    }  # fmt: skip
    assert [path.name for path in killed.glob(".*")] == [".lock"]


def assert_alike(whole: Path, other: Path) -> None:
    (here, facts), (there, other_facts) = (load_tensors(RunFolder(run).last) for run in (whole, other))
    assert facts.keys() == other_facts.keys()
    assert (facts["round"], facts["best"]) == (other_facts["round"], other_facts["best"])
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert timeless_rows(whole) == timeless_rows(other)
    assert read_summary(RunFolder(whole))["test"] == read_summary(RunFolder(other))["test"]
