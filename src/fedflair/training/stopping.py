"""When a run ends before its last round: a signal, or no better score for a while."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fedflair.config.train_config import TrainConfig
from fedflair.errors import DiskError, FedflairError, Interrupted
from fedflair.system import memory
from fedflair.system.files import why
from fedflair.system.processes import REPEAT_SECONDS, stopping_signals


@contextmanager
def stop_on_signals(how_to_go_on: str) -> Iterator[threading.Event]:
    """An event that the first signal to stop sets (``stopping_signals``); a second one ends the run at once.

    how_to_go_on: said at the end of every error that ends the run at once: a second signal, a disk or a memory that is
    full. The last checkpoint is then what it goes on from.
    """
    stop = threading.Event()
    try:
        with _handled(stop):
            yield stop
    except KeyboardInterrupt as error:
        raise Interrupted(f"stopped at once, without another checkpoint; {how_to_go_on}") from error
    except DiskError as error:
        raise DiskError(f"{error}; then {how_to_go_on}") from error
    except OSError as error:
        raise DiskError(f"{error.filename or 'run'}: {why(error)}; then {how_to_go_on}") from error
    except MemoryError as error:
        raise FedflairError(f"{memory.words_of(error)}; then {how_to_go_on}") from error


@contextmanager
def _handled(stop: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = 0.0
    before: dict[int, Callable[..., Any] | int | None] = {n: signal.getsignal(n) for n in stopping_signals()}

    def handle(number: int, frame: object) -> None:
        nonlocal first
        if stop.is_set():
            # People who press twice mean it; a terminal that closes or a scheduler may only repeat itself.
            if number == signal.SIGINT or time.monotonic() - first > REPEAT_SECONDS:
                _as_before(before)
                os.kill(os.getpid(), number)
            return
        stop.set()
        first = time.monotonic()
        os.write(2, b"\nstopping after the clients at work; press again to stop at once\n")

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        _as_before(before)


def _as_before(handlers: Mapping[int, Callable[..., Any] | int | None]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def out_of_patience(config: TrainConfig, facts: Mapping[str, Any], round_: int) -> bool:
    """Whether ``early_stopping_patience`` evaluations have passed without a better score."""
    patience = config.evaluation.early_stopping_patience * config.evaluation.evaluation_frequency
    return patience > 0 and facts["best"] is not None and round_ - facts["best_round"] >= patience
