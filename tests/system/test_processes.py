"""Processes that end with their parent, and signals that end a command as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fedflair.cli import guarded
from fedflair.errors import Interrupted
from fedflair.system.processes import REPEAT_SECONDS, Signalled, signals_as_errors
from tests.processes import is_running

PARENT = """
import os, subprocess, sys, time
child = "import os, sys, time; from fedflair.system.processes import end_with_parent; "
child += "end_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child, str(os.getpid())])
time.sleep(600)
"""


def test_a_child_ends_with_its_parent_however_that_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    deadline = time.monotonic() + 20
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    program = "from fedflair.system.processes import end_with_parent; end_with_parent(1 << 22); print('lives')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=str
)
def test_a_signal_cleans_up_and_is_the_exit_status(
    capfd: pytest.CaptureFixture[str], number: signal.Signals, status: int
) -> None:
    cleaned: list[bool] = []

    def action() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            # The terminal says it once more, and is not heard.
            if number != signal.SIGINT:
                os.kill(os.getpid(), number)
            cleaned.append(True)

    assert guarded(action) == status
    assert cleaned == [True]
    words = "stopped" if number == signal.SIGINT else f"stopped by {number.name}"
    assert capfd.readouterr().err == f"fedflair: {words}\n"


def test_what_explains_a_stop_keeps_the_signals_status(capfd: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt as error:
            raise Interrupted("run it again to go on") from error

    assert guarded(action) == 143
    assert capfd.readouterr().err == "fedflair: run it again to go on\n"


def test_a_signal_that_was_ignored_stays_ignored_and_handlers_are_put_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_errors():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            handler = signal.getsignal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is not handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_comes_again_later_is_heard_again() -> None:
    with signals_as_errors():
        for _ in range(2):
            with pytest.raises(Signalled):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            time.sleep(REPEAT_SECONDS)
