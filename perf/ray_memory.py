"""Whether memory grows with rounds under Ray: that of the driver, of its workers, and of Ray's object store.

    python perf/ray_memory.py                   # 600 rounds of a small model on 2 workers

Private memory is what a process has for itself; the object store is shared memory, as the driver has touched it. A
group's sum is 1.6 MB: keeping each would be 19 MB a round. The slope is fitted to the second half of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from chaos import OPTIONS, command

from fedflair.data.synthetic.synthesize import synthesize
from fedflair.runs.folder import RunFolder, read_rows
from processes import MEGABYTE, memory, processes, shared_memory

LIMIT = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--every", type=int, default=50, help="rounds between two lines")
    arguments = parser.parse_args()
    OPTIONS.update(central_num_iterations=str(arguments.rounds), evaluation_frequency=str(arguments.every))
    rounds: list[int] = []
    columns: list[tuple[float, float, float]] = []
    print("rounds  driver MB  workers MB  object store MB")
    with tempfile.TemporaryDirectory() as temporary:
        folder, run = Path(temporary), Path(temporary) / "run"
        with contextlib.redirect_stdout(sys.stderr):
            synthesize(output=folder / "store.hdf5", num_users=60)
        with subprocess.Popen(command(folder, run, workers=2), stderr=subprocess.DEVNULL) as driver:
            while driver.poll() is None:
                done = len(read_rows(RunFolder(run)))
                if done >= arguments.every * (len(rounds) + 1):
                    workers = sum(value for pid in processes("ray::RayWorker") for value in memory(pid))
                    store = shared_memory(driver.pid)
                    if workers and store:
                        rounds.append(done)
                        columns.append((sum(memory(driver.pid)) / MEGABYTE, workers / MEGABYTE, store / MEGABYTE))
                        print(
                            f"{done:<8}{columns[-1][0]:<11.1f}{columns[-1][1]:<12.1f}{columns[-1][2]:.1f}", flush=True
                        )
                time.sleep(0.1)
    half = len(rounds) // 2
    slopes = [float(np.polyfit(rounds[half:], column[half:], 1)[0]) * 100 for column in map(list, zip(*columns))]
    print("MB per 100 rounds: " + ", ".join(f"{slope:+.2f}" for slope in slopes))
    return int(driver.returncode != 0 or max(slopes) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
