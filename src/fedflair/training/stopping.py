"""When a run ends before its last round: a signal, or no better score for a while."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fedflair.config.train_config import TrainConfig


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process the usual way."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Callable[..., Any] | int | None] = {number: signal.getsignal(number) for number in signals}

    def handle(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[number])
        os.write(2, b"\nstopping after the clients at work; press again to stop at once\n")

    for number in signals:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number in signals:
            signal.signal(number, before[number])


def out_of_patience(config: TrainConfig, facts: Mapping[str, Any], round_: int) -> bool:
    """Whether ``early_stopping_patience`` evaluations have passed without a better score."""
    patience = config.evaluation.early_stopping_patience * config.evaluation.evaluation_frequency
    return patience > 0 and facts["best"] is not None and round_ - facts["best_round"] >= patience
