"""Memory that training has freed is kept for the next step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedflair.training import train

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from fedflair.engine import allocator
if sys.argv[1] == "kept":
    allocator.keep_freed_memory()
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
blocks = [np.ones(8_000_000, dtype=np.uint8) for _ in range(40)]
peak = resident()
del blocks
print(peak - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_stays_with_the_process() -> None:
    returned = {
        how: int(
            subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout
        )
        for how in ("kept", "not kept")
    }
    assert returned["kept"] < 10e6
    assert returned["not kept"] > 250e6


def test_training_asks_for_it(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(train, "keep_freed_memory", lambda: calls.append(1))
    config = train.TrainConfig.of(
        data_path=tiny_store,
        run=tmp_path / "run",
        model="small_cnn",
        pretrained=False,
        image_size=32,
        cohort_size=2,
        central_num_iterations=1,
    )
    train.train(config)
    assert calls == [1]
