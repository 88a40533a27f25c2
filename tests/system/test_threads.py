"""Threads that die for want of memory, and what it looks like."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from fedflair.errors import ConfigError, DataError, WorkerError
from fedflair.system import memory
from fedflair.system.threads import deaths_as_errors

STUCK = """
import sys, threading, time
from fedflair import cli
from fedflair.system import threads
threads._SECONDS = 1
started = threading.Event()

def for_ever():
    started.set()
    time.sleep(600)

def action():
    with threads.pool(1, "stuck") as pool:
        pool.submit(for_ever)
        started.wait()
        raise MemoryError
sys.exit(cli.guarded(action))
"""


def raise_in_thread() -> None:
    raise MemoryError


class Unkept(Future[None]):
    """A promise whose thread has no memory left to say that it has none."""

    def set_exception(self, exception: BaseException | None) -> None:
        raise MemoryError


def die_in_pool() -> None:
    from concurrent.futures.thread import ThreadPoolExecutor, _WorkItem

    pool = ThreadPoolExecutor(1)
    pool._work_queue.put(_WorkItem(Unkept(), raise_in_thread, (), {}))
    pool._adjust_thread_count()


@pytest.mark.parametrize("die", [lambda: threading.Thread(target=raise_in_thread).start(), die_in_pool])
def test_a_death_for_want_of_memory_wakes_who_waits(die: Callable[[], None]) -> None:
    started = time.monotonic()
    with pytest.raises(MemoryError, match="a thread died of it"), deaths_as_errors():
        die()
        Future[None]().result(timeout=60)
    assert time.monotonic() - started < 30


def test_what_cannot_be_cleaned_up_is_not_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"fedflair: out of memory: {memory.REMEDY}\n"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        OSError("codec configuration error when writing image file"),
        ImportError("libx.so: failed to map segment from shared object"),
        caused(DataError("x.parquet: damaged, download it again"), MemoryError()),
        caused(ConfigError("x"), RuntimeError("std::bad_alloc")),
        caused(WorkerError("client 3"), MemoryError()),
    ],
    ids=repr,
)
def test_a_want_of_memory_is_known_by_any_name(error: Exception) -> None:
    assert memory.shortage(error) is not None


@pytest.mark.parametrize("error", [ValueError("x"), OSError(28, "No space left on device"), DataError("damaged")])
def test_other_errors_are_none(error: Exception) -> None:
    assert memory.shortage(error) is None
