"""A sweep as a person runs it: runs crash, the sweep is stopped and killed, and the same command finishes it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.cli import run as run_command
from fedflair.errors import ConfigError, DataError, Interrupted
from fedflair.runs.configuration import config_of_run
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.runs.tensors import load_tensors
from fedflair.sweep import trials
from fedflair.sweep.plan import SweepSpec, plan_sweep
from fedflair.sweep.trials import run_trials
from fedflair.training.checkpoint import load_state
from fedflair.training.train import train
from tests.prepared import Prepared
from tests.processes import is_running
from tests.small_runs import small_config, timeless_rows

SIZE = {"model": "small_cnn", "central_num_iterations": 60, "evaluation_frequency": 5}


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def num_rows(run: Path) -> int:
    return len(read_rows(RunFolder(run)))


def child(output: Path) -> int:
    return int((output / "sweep.lock").read_text())


def spec(store: Path, **grid: list[float]) -> SweepSpec:
    options = small_config(store, **SIZE).as_dict()
    options = {name: value for name, value in options.items() if name not in ("run", "resume", "seed", "learning_rate")}
    return SweepSpec(options=options, grid=grid)


def test_a_sweep_outlives_crashes_and_kills(
    tiny_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output, wanted = tmp_path / "sweep", spec(tiny_store, learning_rate=[0.05, 0.1])
    (tmp_path / "sweep.yaml").write_text(json.dumps({"options": dict(wanted.options), "grid": dict(wanted.grid)}))
    first, second = (output / "runs" / f"learning_rate={rate}-seed0" for rate in (0.05, 0.1))
    arguments = ["sweep", "--sweep_config", str(tmp_path / "sweep.yaml"), "--output", str(output)]

    # The first run is killed: it is noted and the second starts. Then the sweep is killed, and its run ends with it.
    process = Prepared(arguments)
    try:
        wait_for(lambda: num_rows(first) >= 3)
        os.kill(child(output), signal.SIGKILL)
        wait_for(lambda: num_rows(second) >= 3)
        orphan = child(output)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not is_running(orphan))
    assert load_tensors(RunFolder(second).last)[1]["round"] == num_rows(second)
    assert "continue with: fedflair train --resume" in (output / "logs" / f"{second.name}.log").read_text()
    noted = json.loads((output / "sweep.json").read_text())["points"][0]["runs"][0]
    assert noted["error"] == "fedflair: the process was killed by SIGKILL"

    # The same again finishes both, with the numbers of runs that were never stopped.
    run_command(arguments)
    shown = capfd.readouterr()
    assert "[1/2] learning_rate=0.05, seed 0: resumed" in shown.err
    assert "[2/2] learning_rate=0.1, seed 0: resumed" in shown.err
    assert "learning_rate=0.1" in shown.out
    config = small_config(tiny_store, learning_rate=0.1, run=tmp_path / "whole", **SIZE)
    whole = RunFolder(train(config))
    one, two = (load_state(folder.last, torch.device("cpu"))[0] for folder in (whole, RunFolder(second)))
    assert torch.equal(one.parameters, two.parameters)
    assert timeless_rows(whole.path) == timeless_rows(second)

    # All done: nothing runs again.
    before = {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*.json*")}
    run_command([*arguments, "--json"])
    assert {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*.json*")} == before
    shown = capfd.readouterr()
    assert "started" not in shown.err
    assert "resumed" not in shown.err
    points = json.loads(shown.out)["points"]
    assert [(point["num_done"], point["num_runs"]) for point in points] == [(1, 1), (1, 1)]
    assert points[0]["val"]["macro_ap"]["mean"] >= points[1]["val"]["macro_ap"]["mean"]
    assert config_of_run(RunFolder(first)).server.learning_rate == 0.05


def test_a_sweep_waits_for_another_and_stops_when_asked(tiny_store: Path, tmp_path: Path) -> None:
    lock = os.open(tmp_path / "sweep.lock", os.O_RDWR | os.O_CREAT)
    os.write(lock, b"123\n")
    fcntl.flock(lock, fcntl.LOCK_EX)
    run = tmp_path / "runs" / "learning_rate=0.05-seed0"
    said: list[str] = []
    had_run: list[Path] = []

    def release_and_stop() -> None:
        wait_for(lambda: "waiting for process 123" in "".join(said))
        had_run.extend((tmp_path / "logs").iterdir())
        os.close(lock)
        wait_for(lambda: num_rows(run) >= 1)
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=release_and_stop)
    helper.start()
    with pytest.raises(Interrupted, match="is stopped; the same command continues it"):
        run_trials(plan_sweep(spec(tiny_store, learning_rate=[0.05])), tmp_path, said.append)
    helper.join()
    assert had_run == []
    assert said[0] == f"waiting for process 123, which is training in {tmp_path}"
    assert RunFolder(run).last.is_file()
    assert "continue with: fedflair train --resume" in (tmp_path / "logs" / f"{run.name}.log").read_text()


def test_finished_points_are_read_once_and_written_down_once(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**spec(tiny_store).options, "central_num_iterations": 1, "model": "small_cnn"}
    wanted = plan_sweep(SweepSpec(options=options, grid={"learning_rate": [round(0.01 * k, 2) for k in range(1, 31)]}))
    first = train(wanted[0].config.changed(run=tmp_path / "runs" / wanted[0].name))
    for trial in wanted[1:]:
        folder = shutil.copytree(first, tmp_path / "runs" / trial.name)
        rate = trial.config.server.learning_rate
        text = (folder / "config.yaml").read_text().replace("\nlearning_rate: 0.01\n", f"\nlearning_rate: {rate}\n")
        (folder / "config.yaml").write_text(text)
        kept = json.loads((folder / "provenance.json").read_text())
        kept["options"]["learning_rate"] = rate
        (folder / "provenance.json").write_text(json.dumps(kept))
    done: list[str] = []

    def counted(name: str) -> Any:
        function = getattr(trials, name)

        def call(*arguments: Any) -> Any:
            done.append(name)
            return function(*arguments)

        return call

    for name in ("outcome_of", "write_results"):
        monkeypatch.setattr(trials, name, counted(name))
    said: list[str] = []
    outcomes = run_trials(wanted, tmp_path, said.append)
    assert [outcome.status for outcome in outcomes] == ["done"] * 30
    assert [line.split(",")[0] for line in said][:2] == ["[1/30] learning_rate=0.01", "[2/30] learning_rate=0.02"]
    assert (done.count("outcome_of"), done.count("write_results")) == (30, 1)
    assert len(json.loads((tmp_path / "sweep.json").read_text())["points"]) == 30


def test_nothing_runs_where_one_run_could_not(tiny_store: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def sweep(wanted: SweepSpec) -> None:
        run_trials(plan_sweep(wanted), tmp_path / "sweep", said.append)

    with pytest.raises(ConfigError, match=r"sweep: cohort_size=7: cohort_size: 7 is more than the 6 training clients"):
        sweep(SweepSpec(options=spec(tiny_store).options, grid={"cohort_size": [3, 7]}))
    absent = {**spec(tiny_store).options, "data_path": "absent.hdf5"}
    with pytest.raises(DataError, match=r"sweep: run: absent\.hdf5: no such store"):
        sweep(SweepSpec(options=absent))
    assert not (tmp_path / "sweep").exists()
    RunFolder(tmp_path / "sweep" / "runs" / "run-seed0").path.mkdir(parents=True)
    options = {**SIZE, "central_num_iterations": 1}
    train(small_config(tiny_store, run=tmp_path / "sweep" / "runs" / "run-seed0", **options))
    message = r"sweep: run: central_num_iterations: central_lr_schedule polynomial was to end in"
    with pytest.raises(ConfigError, match=message):
        sweep(spec(tiny_store))
    assert said == []
