"""Processes that we start end with us, and signals end a command the way Ctrl-C does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PR_SET_PDEATHSIG = 1
# A terminal that closes, or a scheduler, may send its signal more than once within moments.
REPEAT_SECONDS = 1.0


class Signalled(KeyboardInterrupt):
    """The process was told to end by a signal; what cleans up after Ctrl-C cleans up after this. number: the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """To be called first thing in a child process: it gets signal ``number`` once ``parent`` is gone.

    The parent is the process that started it, however it ended. On Linux the kernel sends it, as soon as the parent's
    thread that started the child ends; elsewhere it comes within a second.
    """
    if sys.platform == "linux":
        # Here, so that what starts no process does not pay for it.
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    else:
        threading.Thread(target=_watch, args=(parent, number), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), number)


def signal_of(error: BaseException | None) -> int:
    """The signal that an error goes back to; SIGINT where no other is known."""
    while error is not None:
        if isinstance(error, Signalled):
            return error.number
        error = error.__cause__
    return signal.SIGINT


def stopping_signals() -> list[signal.Signals]:
    """What asks a training to stop: Ctrl-C, SIGTERM, a closed terminal, and a scheduler's warning (SIGUSR1).

    Less what the process was told to ignore (nohup); but for Ctrl-C, which shells have their background jobs ignore.
    """
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
    numbers = [signal.Signals[name] for name in names]
    return [n for n in numbers if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Signalled in the main thread, so that whatever is open is closed and cleaned up.

    Repeated within moments they raise nothing, so that cleaning up is not cut short. Elsewhere than in the main thread
    this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > REPEAT_SECONDS:
            raise Signalled(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in (signal.Signals[name] for name in names)}
    for number, handler in before.items():
        # What was told to ignore a signal (nohup) goes on ignoring it.
        if handler != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
