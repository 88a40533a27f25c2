"""Threads that die for want of memory end the command, instead of keeping others waiting for ever.

A thread that has no memory left, even to hand its error on, leaves a promise that nobody keeps: a future, a lock of an
import, the event that says that it has started. Python tells of such a death in three places; each wakes the main
thread.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fedflair.system.memory import REMEDY, shortage

# What the main thread gets to clean up in, before the process is ended.
_SECONDS = 10


class _Watch:
    """Whether a command is being watched, and whether it is ending."""

    on = False
    ending = False


@contextmanager
def pool(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads, of which the block's end waits for those at work: not for ever where memory has run out."""
    with ThreadPoolExecutor(count, thread_name_prefix=name) as executor:
        try:
            yield executor
        except BaseException as error:
            if shortage(error) is not None:
                _end_soon()
            raise


@contextmanager
def deaths_as_errors() -> Iterator[None]:
    """Where a thread dies for want of memory, MemoryError is raised in the main thread, which cleans up or is ended.

    Elsewhere than in the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def look(error: BaseException | None) -> bool:
        if shortage(error) is None:
            return False
        # A real signal: the main thread may be waiting inside the operating system.
        os.kill(os.getpid(), signal.SIGALRM)
        return True

    def thread_hook(arguments: threading.ExceptHookArgs) -> None:
        look(arguments.exc_value) or hooks[0](arguments)

    def unraisable_hook(arguments: Any) -> None:
        look(arguments.exc_value) or hooks[1](arguments)

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            look(record.exc_info[1] if record.exc_info else None)

    listener, logger = Listener(), logging.getLogger("concurrent.futures")
    hooks = threading.excepthook, sys.unraisablehook
    before = signal.signal(signal.SIGALRM, _end)
    threading.excepthook, sys.unraisablehook = thread_hook, unraisable_hook
    logger.addHandler(listener)
    _Watch.on, _Watch.ending = True, False
    try:
        yield
    finally:
        _Watch.on = False
        signal.alarm(0)
        logger.removeHandler(listener)
        threading.excepthook, sys.unraisablehook = hooks
        signal.signal(signal.SIGALRM, before)


def are_stuck() -> bool:
    """Whether threads are left that the interpreter would wait for at its end."""
    return any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate())


def _end_soon() -> None:
    if _Watch.on:
        _Watch.ending = True
        signal.alarm(_SECONDS)


def _end(number: int, frame: FrameType | None) -> None:
    if _Watch.ending:
        os.write(2, f"fedflair: out of memory: {REMEDY}\n".encode())
        os._exit(1)
    _end_soon()
    raise MemoryError("a thread died of it")
