"""What is said for a process that ends at once, and not for one that can speak itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHIN = """\
import os, signal, sys
from fedflair.backends.ray.last_words import last_words
with last_words('it ended'):
    """


@pytest.mark.parametrize(
    ("action", "status", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, "it ended\n"),
        ("os._exit(3)", 3, "it ended\n"),
        ("sys.exit('by itself')", 1, "by itself\n"),
        ("pass", 0, ""),
    ],
)
def test_only_an_end_at_once_is_said(action: str, status: int, said: str) -> None:
    process = subprocess.run([sys.executable, "-c", WITHIN + action], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (status, said)
