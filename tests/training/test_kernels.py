"""What a run computes with: chosen once, by its driver, and kept."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedflair.cli import main
from fedflair.commands.train import parse_train_config
from fedflair.engine.cpu.choice import own_kind
from fedflair.engine.cpu.kernels import chosen, current
from fedflair.errors import ConfigError
from fedflair.federated.setup import make_setup
from fedflair.runs.folder import RunFolder
from fedflair.runs.provenance import read_provenance
from fedflair.runs.tensors import load_tensors, save_tensors
from fedflair.training.train import train
from tests.small_runs import small_config

OWN = chosen().kind
FOREIGN = "neon" if own_kind() != "neon" else "avx2"

pytestmark = pytest.mark.skipif(OWN == "none", reason="this machine has no kernels")


@pytest.fixture(scope="module")
def plain_run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run without kernels, on a machine that has some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDFLAIR_KERNELS", "0")
        run = tmp_path_factory.mktemp("plain") / "run"
        return train(small_config(tiny_store, run=run, model="small_cnn", num_threads=1))


def end(run: Path) -> torch.Tensor:
    return load_tensors(RunFolder(run).last)[0]["parameters"]


def again(run: Path, copy: Path) -> Path:
    """The last two of a copy's four rounds once more."""
    shutil.copytree(run, copy)
    return train(parse_train_config(["--resume", "--resume_from", "previous", "--run", str(copy)]))


def test_a_run_goes_on_with_what_it_began_with(
    plain_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provenance = read_provenance(RunFolder(plain_run))
    assert provenance is not None and provenance.kernels == "none"
    assert torch.equal(end(again(plain_run, tmp_path / "copy")), end(plain_run))
    note = f"computes with none kernels, as it began; a new run would take {OWN} here"
    assert note in capsys.readouterr().err.splitlines()


def test_a_run_goes_on_with_what_is_asked_for(
    plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDFLAIR_KERNELS", OWN)
    there = end(again(plain_run, tmp_path / "copy"))
    assert not torch.equal(there, end(plain_run))
    torch.testing.assert_close(there, end(plain_run), rtol=1e-3, atol=1e-4)
    note = f"begun with none kernels, goes on with {OWN} (FEDFLAIR_KERNELS): equal up to rounding only"
    assert note in capsys.readouterr().err.splitlines()
    # What it began with stands as it stood.
    assert (tmp_path / "copy" / "provenance.json").read_bytes() == (plain_run / "provenance.json").read_bytes()


def test_a_run_of_another_kind_of_machine(
    plain_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(plain_run, run)
    folder = RunFolder(run)
    raw = json.loads(folder.provenance.read_text())
    folder.provenance.write_text(json.dumps({**raw, "kernels": FOREIGN}))
    # As the checkpoints of such a run have it.
    for path in (folder.last, folder.previous, folder.best):
        _reseal(path, folder)
    assert main(["train", "--resume", "--run", str(run)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"fedflair: the run computes with {FOREIGN} kernels, and there is no ")
    assert line.endswith(f"go on with others by FEDFLAIR_KERNELS={OWN} (equal up to rounding only)")
    # Scores may be had anywhere; they say so where a last bit may differ.
    assert main(["evaluate", "--run", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kernels"] == f"{OWN}, not {FOREIGN} as in training: equal up to rounding only"
    assert main(["evaluate", "--run", str(run)]) == 0
    assert "equal up to rounding only" in " ".join(capsys.readouterr().out.split())
    assert main(["evaluate", "--run", str(plain_run), "--json"]) == 0
    assert "kernels" not in json.loads(capsys.readouterr().out)
    monkeypatch.setenv("FEDFLAIR_KERNELS", OWN)
    assert main(["train", "--resume", "--run", str(run)]) == 0
    folder.provenance.write_text(json.dumps({**raw, "kernels": "abacus"}))
    assert main(["train", "--resume", "--run", str(run)]) == 1
    assert "provenance.json: damaged" in capsys.readouterr().err


def _reseal(path: Path, folder: RunFolder) -> None:
    tensors, facts = load_tensors(path)
    provenance = read_provenance(folder)
    assert provenance is not None
    save_tensors(path, tensors, {**facts, "provenance": provenance.digest()})


def test_workers_compute_with_what_the_driver_chose(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from fedflair.backends.ray.backend import worker_plan
    from fedflair.backends.ray.worker import Failed, RayWorker

    monkeypatch.setenv("FEDFLAIR_KERNELS", "0")
    setup = make_setup(small_config(tiny_store, model="small_cnn"), 0)
    plan = worker_plan(setup, 0.0)
    assert plan.kernels == "none"
    # As Ray makes one on another machine, less its connection.
    monkeypatch.setenv("FEDFLAIR_KERNELS", OWN)
    worker = object.__new__(RayWorker)
    worker._computing = ExitStack()
    failed = worker.start(replace(plan, kernels=FOREIGN))
    assert isinstance(failed, Failed) and isinstance(failed.error, ConfigError)
    assert str(failed.error).startswith(f"FEDFLAIR_KERNELS: kernels for {FOREIGN} are asked for, and there is no ")
    assert "\n" not in str(failed.error)
    with worker._computing:
        worker.start(plan)
        assert current() == "none"
        assert worker._worker.model.fast is None
