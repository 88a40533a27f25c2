"""When a run ends before its last round."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from fedflair.training.stopping import out_of_patience, stop_on_signals
from tests.small_runs import small_config


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


def test_without_a_score_nothing_is_out_of_patience(tiny_store: Path) -> None:
    config = small_config(tiny_store, early_stopping_patience=1, evaluation_frequency=1)
    assert not out_of_patience(config, {"best": None, "best_round": 0}, 1000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    class Ended(Exception):
        pass

    def end(*_: object) -> None:
        raise Ended

    before = signal.signal(number, end)
    try:
        with stop_on_signals() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), number)
            assert stop.wait(10)
            assert "stopping after the clients at work; press again" in capfd.readouterr().err
            with pytest.raises(Ended):
                os.kill(os.getpid(), number)
        with stop_on_signals():
            pass
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    found = []

    def look() -> None:
        with stop_on_signals() as stop:
            found.append(stop.is_set())

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [False]
    assert signal.getsignal(signal.SIGINT) is before
