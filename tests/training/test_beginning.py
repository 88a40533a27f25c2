"""Runs that begin where another process writes, whose store was moved or exchanged, or whose weights are gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torchvision import models

from fedflair.cli import main
from fedflair.cli import run as run_command
from fedflair.commands.train import parse_train_config
from fedflair.errors import ConfigError, DataError, Interrupted
from fedflair.evaluation.run import score_run
from fedflair.runs.folder import RunFolder, read_rows, read_summary, writing
from fedflair.runs.tensors import load_tensors
from fedflair.training.train import train
from tests.conftest import jpeg, write_tiny_store
from tests.prepared import Prepared
from tests.small_runs import command, small_config, timeless_rows

SMALL = {"model": "small_cnn", "num_threads": 1}


def resume(run: Path, *more: str) -> Path:
    return train(parse_train_config(["--resume", "--run", str(run), *more]))


def test_a_run_folder_is_written_by_one_process(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(tiny_store, run=tmp_path / "run", central_num_iterations=100000, **SMALL)
    process = Prepared(command(config)[3:])
    run = RunFolder(tmp_path / "run")
    try:
        deadline = time.monotonic() + 120
        while len(read_rows(run)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        message = f"{run.path}: process {process.pid} is writing this run folder; wait until it has ended"
        for words in (
            ["train", "--resume", "--run", str(run.path)],
            ["evaluate", "--run", str(run.path), "--per_user"],
        ):
            assert main(words) == 1
            (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fedflair: ")]
            assert message in line
        # Who only reads need not wait.
        assert main(["evaluate", "--run", str(run.path), "--json"]) == 0
        with pytest.raises(ConfigError, match="already holds a run"):
            train(config)
    finally:
        process.kill()
        process.wait()
    rounds = [row["round"] for row in read_rows(run)]
    assert rounds == list(range(1, len(rounds) + 1))
    # However its holder ended, the folder is free again.
    with writing(run):
        pass


def test_two_that_begin_in_one_folder_at_once(tiny_store: Path, tmp_path: Path) -> None:
    # Before there is a configuration that says that it is taken.
    run = RunFolder(tmp_path / "run")
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from fedflair.runs.folder import RunFolder, writing\n"
        "with writing(RunFolder(Path(sys.argv[1]))):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=f"process {other.pid} is writing this run folder"):
            train(small_config(tiny_store, run=run.path, **SMALL))
        assert not run.config.exists()
        other.communicate("")
    train(small_config(tiny_store, run=run.path, central_num_iterations=1, **SMALL))


def test_children_do_not_keep_the_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with writing(run):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with writing(run):
            assert child.poll() is None, "the child was to be there while the folder is taken again"
    finally:
        child.kill()
        child.wait()


def test_a_folder_that_cannot_be_made_is_one_line(tiny_store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/run: Not a directory: a file stands where a folder should be"):
        train(small_config(tiny_store, run=tmp_path / "file" / "run", **SMALL))


@pytest.mark.parametrize("exchanged", ["images", "users"])
def test_another_store_in_its_place_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exchanged: str
) -> None:
    store = write_tiny_store(tmp_path / "store.hdf5")
    run = train(small_config(store, run=tmp_path / "run", **SMALL))
    if exchanged == "images":
        write_tiny_store(store, encode=lambda number: jpeg(number + 1))
    else:
        write_tiny_store(store, {"train": (1, 2, 3, 5, 4, 9), "val": (3, 6), "test": (4, 5)})
    before = RunFolder(run).metrics.read_bytes()
    for words in (["train", "--resume"], ["evaluate"], ["evaluate", "--per_user"]):
        assert main([*words, "--run", str(run)]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"fedflair: {store}: not the store that the run was trained on (its content differs); ")
        assert line.endswith("--data_path")
    assert RunFolder(run).metrics.read_bytes() == before
    # Scored on purpose, it is.
    assert main(["evaluate", "--run", str(run), "--data_path", str(store)]) == 0


def test_a_run_moves_with_its_store_and_without_its_weights(tmp_path: Path) -> None:
    weights, store = tmp_path / "resnet18.pth", write_tiny_store(tmp_path / "store.hdf5")
    published = models.resnet18()
    published.bn1.running_mean.fill_(0.5)
    torch.save(published.state_dict(), weights)
    options = {"model_type": "resnet18", "pretrained": True, "pretrained_weights": weights, "num_threads": 1}
    whole = train(small_config(store, run=tmp_path / "whole", **options))
    shutil.copytree(whole, tmp_path / "moved")
    weights.unlink()
    (tmp_path / "elsewhere").mkdir()
    there = tmp_path / "elsewhere" / "other.hdf5"
    store.rename(there)
    moved = (tmp_path / "moved").rename(tmp_path / "elsewhere" / "run")
    message = r"store.hdf5: the run's store is not there; if it was moved, name its place with --data_path"
    with pytest.raises(DataError, match=message):
        resume(moved)
    with pytest.raises(DataError, match=message):
        score_run(moved, "test", "best")
    resume(moved, "--data_path", str(there), "--resume_from", "previous")
    one, two = (load_tensors(RunFolder(run).last)[0] for run in (whole, moved))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert timeless_rows(whole) == timeless_rows(moved)
    scores = score_run(moved, "test", "best", there)
    assert dict(scores.metrics) == read_summary(RunFolder(whole))["test"]
    other = write_tiny_store(tmp_path / "third.hdf5", {"train": (2, 1, 3, 5, 9, 4), "val": (3, 6), "test": (4, 5)})
    with pytest.raises(DataError, match=r"third.hdf5: not the store that the run was trained on"):
        resume(moved, "--data_path", str(other))


def test_a_run_killed_before_its_first_evaluation_resumes_bit_for_bit(tiny_store: Path, tmp_path: Path) -> None:
    options = {"evaluation_frequency": 1000, "central_num_iterations": 30, **SMALL}
    whole = train(small_config(tiny_store, run=tmp_path / "whole", **options))
    process = Prepared(command(small_config(tiny_store, run=tmp_path / "halted", **options))[3:])
    try:
        deadline = time.monotonic() + 120
        while not read_rows(RunFolder(tmp_path / "halted")) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not RunFolder(tmp_path / "halted").summary.exists()
    assert (load_tensors(RunFolder(tmp_path / "halted").last)[1])["round"] == 0
    resume(tmp_path / "halted")
    one, two = (load_tensors(RunFolder(tmp_path / name).last)[0] for name in ("whole", "halted"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert timeless_rows(whole) == timeless_rows(tmp_path / "halted")


@pytest.mark.parametrize("moment", ["before the first client", "before the first evaluation"])
def test_a_stop_asked_just_before_a_start_is_heard(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    stop, module = threading.Event(), sys.modules["fedflair.training.train"]

    @contextmanager
    def asked(*arguments: object):  # type: ignore[no-untyped-def]
        if moment == "before the first client":
            stop.set()
        yield stop

    begin = module.evaluated

    def evaluated(*arguments, **options):  # type: ignore[no-untyped-def]
        stop.set()
        return begin(*arguments, **options)

    monkeypatch.setattr(module, "stop_on_signals", asked)
    monkeypatch.setattr(module, "evaluated", evaluated)
    options = {"central_num_iterations": 2, "evaluation_frequency": 2, **SMALL}
    with pytest.raises(Interrupted) as caught:
        train(small_config(tiny_store, run=tmp_path / "run", **options))
    done = 0 if moment == "before the first client" else 1
    assert f"stopped after round {done}; continue with: fedflair train --resume --run {tmp_path / 'run'}" in str(
        caught.value
    )
    # No client's work was begun, let alone kept.
    assert len(read_rows(RunFolder(tmp_path / "run"))) == done
    monkeypatch.undo()
    run_command(["train", "--resume", "--run", str(tmp_path / "run")])
    whole = train(small_config(tiny_store, run=tmp_path / "whole", **options))
    assert timeless_rows(whole) == timeless_rows(tmp_path / "run")
