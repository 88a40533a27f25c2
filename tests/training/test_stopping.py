"""A training that is told to stop, once or twice, or whose disk or memory gives out: what it keeps, what it says."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedflair.errors import DiskError, FedflairError, Interrupted
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.runs.tensors import load_tensors
from fedflair.system.processes import REPEAT_SECONDS, signals_as_errors
from fedflair.training.stopping import out_of_patience, stop_on_signals
from tests.prepared import Prepared
from tests.small_runs import command, small_config


@contextmanager
def training(run: Path, store: Path, **options: object) -> Iterator[Prepared]:
    """A training that has a few rounds behind it, and its next evaluation far ahead."""
    options = {"model": "small_cnn", "central_num_iterations": 100_000, "evaluation_frequency": 100_000, **options}
    process = Prepared(command(small_config(store, run=run, **options))[3:])
    try:
        deadline = time.monotonic() + 120
        while len(read_rows(RunFolder(run))) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_leaves_a_checkpoint_of_the_last_whole_round(tiny_store: Path, tmp_path: Path, name: str) -> None:
    with training(tmp_path / "run", tiny_store) as process:
        # A terminal that closes says it twice.
        process.send_signal(signal.Signals[name])
        process.send_signal(signal.Signals[name])
        _, errors = process.communicate(timeout=120)
    rounds = [row["round"] for row in read_rows(RunFolder(tmp_path / "run"))]
    assert len(rounds) >= 3
    assert load_tensors(RunFolder(tmp_path / "run").last)[1]["round"] == rounds[-1]
    assert process.returncode == 130
    last = errors.splitlines()[-1]
    run = tmp_path / "run"
    assert last == f"fedflair: stopped after round {rounds[-1]}; continue with: fedflair train --resume --run {run}"


def test_ctrl_c_twice_ends_at_once_and_says_how_to_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    said = "stopped at once, without another checkpoint; go on"
    with pytest.raises(Interrupted, match=said), stop_on_signals("go on") as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    assert capfd.readouterr().err == "\nstopping after the clients at work; press again to stop at once\n"


def test_a_scheduler_that_repeats_itself_is_heard_once_and_later_again() -> None:
    with pytest.raises(Interrupted, match="stopped at once"), signals_as_errors(), stop_on_signals("go on") as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.02)
        assert stop.is_set()
        time.sleep(REPEAT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)


def test_handlers_are_put_back() -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    before = [signal.getsignal(number) for number in numbers]
    with stop_on_signals("go on"):
        assert not set(before) & {signal.getsignal(number) for number in numbers}
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device", "m.jsonl"), DiskError, "m.jsonl: cannot be written .*; then go on"),
        (DiskError("m.jsonl: full"), DiskError, "m.jsonl: full; then go on"),
        (MemoryError(), FedflairError, "out of memory .*; then go on"),
    ],
)
def test_what_a_machine_refuses_says_how_to_go_on(error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words), stop_on_signals("go on"):
        raise error


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.csv", "checkpoints/last.safetensors"])
def test_a_file_that_cannot_be_written_later_ends_the_run_in_one_line(
    tiny_store: Path, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    with training(run, tiny_store, central_num_iterations=60) as process:
        # A folder takes the file's place, as it might be a disk that is full; halted, lest the run makes the file anew.
        process.send_signal(signal.SIGSTOP)
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors and "internal error" not in errors
    assert f"{run / name}: " in errors.splitlines()[-1]
    assert f"continue with: fedflair train --resume --run {run}" in errors.splitlines()[-1]
    assert not [path for path in run.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize(
    ("patience", "frequency", "best_round", "round_", "ends"),
    [
        # Two evaluations without a better score, at rounds 6 and 9.
        (2, 3, 3, 6, False),
        (2, 3, 3, 8, False),
        (2, 3, 3, 9, True),
        (2, 3, 6, 9, False),
        (1, 1, 4, 4, False),
        (1, 1, 4, 5, True),
        # 0: a run never stops for its score.
        (0, 3, 1, 1000, False),
    ],
)
def test_patience_is_counted_in_evaluations(
    tiny_store: Path, patience: int, frequency: int, best_round: int, round_: int, ends: bool
) -> None:
    config = small_config(tiny_store, early_stopping_patience=patience, evaluation_frequency=frequency)
    assert out_of_patience(config, {"best": 0.0, "best_round": best_round}, round_) is ends
