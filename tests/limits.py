"""The command line as a process whose memory or permissions are limited, as an ordinary user's are."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PR_CAPBSET_DROP = 24
_OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def fedflair(
    *arguments: str | Path,
    memory: int | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Runs a command; permissions of files bind it even where the tests are run by root.

    memory: bytes of address space.
    """

    def limit() -> None:
        libc = ctypes.CDLL(None)
        for capability in _OVERRIDES:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    return subprocess.run(
        [sys.executable, "-m", "fedflair.cli", *map(str, arguments)],
        preexec_fn=limit,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed, in one line with these words."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("fedflair: ")]) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def hidden(folder: Path) -> list[str]:
    """What is left half-written in a folder and below."""
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith(".") or "partial" in path.name)
