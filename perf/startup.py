"""How long a person waits: for ``fedflair --help``, and from the command to the first round on a full-scale store.

    python perf/startup.py                               # makes a store of 41,131 training users, one tiny image each
    python perf/startup.py --data_path flair.hdf5        # or takes one that is there

The first run of each command warms the page cache and the kernels' cache and is not counted. The first round begins
once the run has said what it is going to do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers.users import write_tiny_users

NUM_USERS = 41_131


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.data_path or write_tiny_users(Path(folder), NUM_USERS)
        measured = {
            "fedflair --help": [help_seconds() for _ in range(arguments.repeats + 1)],
            "first round begins": [first_round_seconds(path, Path(folder)) for _ in range(arguments.repeats + 1)],
        }
    for what, seconds in measured.items():
        counted = seconds[1:]
        print(f"{what:<20}{statistics.median(counted):6.2f} s (from {min(counted):.2f} to {max(counted):.2f})")


def help_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fedflair.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_round_seconds(path: Path, folder: Path) -> float:
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    command = [sys.executable, "-m", "fedflair.cli", "train", "--data_path", str(path), "--run", str(run)]
    command += ["--pretrained", "false", "--device", "cpu", "--central_num_iterations", "1"]
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "COLUMNS": "500"}
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "run folder:" in line:
                seconds = time.perf_counter() - started
                process.kill()
                return seconds
    raise SystemExit(f"training ended before its first round:\n{said}")


if __name__ == "__main__":
    main()
