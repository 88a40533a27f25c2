"""Memory is kept for reuse, and handed back between rounds once the process has grown large."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from pathlib import Path
import numpy as np
from fedflair import allocator
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
allocator.keep_freed_memory()
blocks = [np.ones(8_000_000, dtype=np.uint8) for _ in range(40)]
pins = [bytes(100_000) for _ in range(40)]
peak = resident()
del blocks
kept = resident()
few = allocator.release_freed_memory()
allocator._KEPT = 1
many = allocator.release_freed_memory()
print(few, many, peak - kept < 50e6, peak - resident() > 250e6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_kept_until_there_is_much_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True", "True"]
