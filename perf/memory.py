"""Peak memory of a training run on a full-scale store, and whether it grows with users or with rounds.

    python perf/memory.py                               # a store of 41,131 training users, one tiny image each
    python perf/memory.py --data_path flair.hdf5        # or one that is there
    fedflair synthesize --scale full --num_users 514 --output few.hdf5
    python perf/memory.py --data_path flair.hdf5 --few_path few.hdf5

ResNet-18 at 224 pixels with the published options, in one process of its own per line. Resident memory counts the pages
of the mapped store that are in the page cache too; they can be dropped at any time.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers.users import write_tiny_users

NUM_USERS = 41_131
LIMIT_MB = 2500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path)
    parser.add_argument("--few_path", type=Path, help="a store of fewer users; by default 1/100, one tiny image each")
    parser.add_argument("--rounds", type=int, nargs=2, default=(1, 3), help="few and more rounds")
    parser.add_argument("--cohort_size", type=int, default=50)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.data_path or write_tiny_users(Path(folder), NUM_USERS)
        few = arguments.few_path or write_tiny_users(Path(folder), NUM_USERS // 100)
        lines = [(store.name, store, rounds) for store in (path, few) for rounds in arguments.rounds]
        for what, store, rounds in lines:
            peak = peak_mb(store, Path(folder), rounds, arguments.cohort_size, arguments.precision)
            verdict = "ok" if peak < LIMIT_MB else "TOO MUCH"
            print(f"{what}, {rounds} rounds: {peak:,.0f} MB (limit {LIMIT_MB:,} MB): {verdict}", flush=True)


def peak_mb(path: Path, folder: Path, rounds: int, cohort_size: int, precision: str) -> float:
    """Peak resident memory of ``fedflair train`` when it has done this many rounds, where it is then stopped."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    command = [sys.executable, "-m", "fedflair.cli", "train", "--data_path", str(path), "--run", str(run)]
    command += ["--pretrained", "false", "--device", "cpu", "--central_num_iterations", "1000000"]
    command += ["--cohort_size", str(cohort_size), "--evaluation_frequency", "1000000", "--precision", precision]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        metrics = run / "metrics.jsonl"
        while not metrics.is_file() or len(metrics.read_text().splitlines()) < rounds:
            if process.poll() is not None:
                raise SystemExit(f"training ended with status {process.returncode}; its messages are above")
            time.sleep(0.2)
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.kill()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found is None:
        raise SystemExit("this system does not tell a process's peak memory in /proc")
    return int(found[1]) * 1.024 / 1000


if __name__ == "__main__":
    main()
