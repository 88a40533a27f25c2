"""A sweep as a person runs it: runs crash, the sweep is stopped and killed, and the same command finishes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedflair.checkpoint import load_state
from fedflair.errors import ConfigError, DataError
from fedflair.options import config_of_run
from fedflair.sweep import sweep
from fedflair.sweep_plan import SweepSpec
from fedflair.tracking import RunFolder, read_rows
from fedflair.train import train
from tests.test_train import small_config, timeless_rows

ROUNDS = 20


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
    options = small_config(store, central_num_iterations=ROUNDS).as_dict()
    options = {name: value for name, value in options.items() if name not in ("run", "resume", "seed", "learning_rate")}
    return SweepSpec(options=options, grid=grid)


def test_a_sweep_outlives_crashes_stops_and_kills(
    tiny_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output, wanted = tmp_path / "sweep", spec(tiny_store, learning_rate=[0.05, 0.1])
    (tmp_path / "sweep.yaml").write_text(json.dumps({"options": dict(wanted.options), "grid": dict(wanted.grid)}))
    first, second = (output / "runs" / f"learning_rate={rate}-seed0" for rate in (0.05, 0.1))
    arguments = ["sweep", "--sweep_config", str(tmp_path / "sweep.yaml"), "--output", str(output)]
    command = [sys.executable, "-m", "fedflair.cli", *arguments]

    # The first run is killed: it is noted and the second starts. Then the sweep is asked to stop.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: num_rows(first) >= 3)
        os.kill(child(output), signal.SIGKILL)
        wait_for(lambda: num_rows(second) >= 3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "unfinished: fedflair: the process was killed by SIGKILL" in errors
    assert f"fedflair: the sweep in {output} is stopped; the same command continues it" in errors
    assert "Traceback" not in errors
    assert RunFolder(second).last.is_file()
    statuses = [run["status"] for p in json.loads((output / "sweep.json").read_text())["points"] for run in p["runs"]]
    assert statuses == ["unfinished", "unfinished"]

    # The next one is killed; its run goes on alone, and the one after waits for it.
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (output / "logs" / f"{first.name}.log").read_text().count("run folder") == 2)
    finally:
        process.kill()
        process.wait()
    sweep(wanted, output)
    shown = capfd.readouterr()
    assert "waiting for process" in shown.err
    assert "[2/2] learning_rate=0.1, seed 0: resumed" in shown.err
    assert "learning_rate=0.1" in shown.out
    whole = RunFolder(
        train(small_config(tiny_store, central_num_iterations=ROUNDS, learning_rate=0.1, run=tmp_path / "w"))
    )
    one, two = (load_state(folder.last, torch.device("cpu"))[0] for folder in (whole, RunFolder(second)))
    assert torch.equal(one.parameters, two.parameters)
    assert timeless_rows(whole.path) == timeless_rows(second)

    # All done: nothing runs again.
    before = {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*.json*")}
    sweep(wanted, output, as_json=True)
    assert {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*.json*")} == before
    shown = capfd.readouterr()
    assert "started" not in shown.err
    assert "resumed" not in shown.err
    points = json.loads(shown.out)["points"]
    assert [(point["num_done"], point["num_runs"]) for point in points] == [(1, 1), (1, 1)]
    assert points[0]["val"]["macro_ap"]["mean"] >= points[1]["val"]["macro_ap"]["mean"]
    assert config_of_run(RunFolder(first)).learning_rate == 0.05


def test_only_one_sweep_works_in_a_folder(tiny_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import fcntl

    lock = os.open(tmp_path / "sweep.lock", os.O_RDWR | os.O_CREAT)
    os.write(lock, b"123\n")
    fcntl.flock(lock, fcntl.LOCK_EX)
    wanted = SweepSpec(
        options={**spec(tiny_store).options, "central_num_iterations": 1}, grid={"learning_rate": [0.05]}
    )
    waiting = threading.Thread(target=sweep, args=(wanted, tmp_path))
    waiting.start()
    said = ""
    deadline = time.monotonic() + 60
    while "waiting for process 123" not in said and time.monotonic() < deadline:
        said += capfd.readouterr().err
        time.sleep(0.05)
    assert f"waiting for process 123, which is training in {tmp_path}" in said
    assert not list((tmp_path / "logs").iterdir())
    os.close(lock)
    waiting.join(timeout=120)
    assert RunFolder(tmp_path / "runs" / "run-seed0").summary.is_file()


def test_nothing_runs_where_one_run_could_not(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep: cohort_size=7: cohort_size: 7 is more than the 6 training clients"):
        sweep(SweepSpec(options=spec(tiny_store).options, grid={"cohort_size": [3, 7]}), tmp_path / "sweep")
    absent = {**spec(tiny_store).options, "data_path": "absent.hdf5"}
    with pytest.raises(DataError, match=r"sweep: run: absent\.hdf5: no such store"):
        sweep(SweepSpec(options=absent), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
    RunFolder(tmp_path / "sweep" / "runs" / "run-seed0").path.mkdir(parents=True)
    train(small_config(tiny_store, central_num_iterations=1, run=tmp_path / "sweep" / "runs" / "run-seed0"))
    with pytest.raises(ConfigError, match=r"sweep: run: central_num_iterations: 20 differs from 1 of the run in"):
        sweep(spec(tiny_store), tmp_path / "sweep")
