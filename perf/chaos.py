"""Kills parts of running trainings at random instants, and compares what comes out with a run that nobody disturbed.

    python perf/chaos.py                      # 100 kills
    python perf/chaos.py --kills 20 --seed 3

Each run is ``fedflair train --workers 2`` of a small private model in a process of its own. What happens to it, at
random: a worker gets SIGKILL; a worker gets SIGSTOP, and hangs until the deadline of its group; the driver gets
SIGKILL; the cluster's raylet gets SIGKILL, which is the loss of the driver's node. A run without a driver is continued
with ``--resume``, as its last line must have said. Final parameters, optimizer state, metrics and privacy ledger must
equal, bit for bit, those of a run in threads. Prints what was done, and what memory the processes had. Exits with 1
where anything differs, or where the user was shown a traceback or Ray's own logs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fedflair.data.synthetic.synthesize import synthesize
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training.checkpoint import load_state
from processes import MEGABYTE, memory, processes, title

OPTIONS = {
    "model": "small_cnn",
    "pretrained": "false",
    "image_size": "32",
    "cohort_size": "12",
    "max_num_user_images": "32",
    "central_num_iterations": "60",
    "evaluation_frequency": "6",
    "central_lr_num_warmup_iterations": "0",
    "central_privacy_mechanism": "gaussian_moments_accountant",
    "central_epsilon": "50",
    "central_delta": "0.001",
    "noise_from_seed": "true",
    "device": "cpu",
    "worker_timeout": "15",
}
# Chances of each kind; what takes the driver along costs a whole start of Ray.
KINDS = {"worker killed": 0.75, "worker stopped": 0.1, "driver killed": 0.1, "raylet killed": 0.05}
MEAN_SECONDS = 1.5

# Tracebacks, lines of Ray's C++ logs, and what it prints of its raylets and workers.
FOREIGN = r"^(?:Traceback|\[20\d\d-\S+ \S+ [A-Z] |.{0,9}\((?:raylet|RayWorker|pid)).*$"


@dataclass
class Tally:
    """What was done and seen."""

    kills: Counter[str] = field(default_factory=Counter)
    groups_redone: int = 0
    resumed: int = 0
    foreign_lines: int = 0
    driver_memory: list[int] = field(default_factory=list)
    worker_memory: list[int] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator, tally, runs, differing = random.Random(arguments.seed), Tally(), 0, 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contextlib.redirect_stdout(sys.stderr):
            synthesize(output=folder / "store.hdf5", num_users=60)
        calm = folder / "calm"
        subprocess.run(command(folder, calm, workers=0), check=True, stderr=subprocess.DEVNULL)
        while sum(tally.kills.values()) < arguments.kills:
            runs += 1
            run = folder / f"run{runs}"
            shake(folder, run, generator, tally, arguments.kills)
            same = equal(calm, run)
            differing += not same
            kills = sum(tally.kills.values())
            print(f"run {runs}: {'equal' if same else 'DIFFERENT'} after {kills} kills in all", file=sys.stderr)
    print(f"runs                     {runs}, of which {differing} differ from the undisturbed one")
    for kind in KINDS:
        print(f"{kind:<25}{tally.kills[kind]}")
    print(f"kills in all             {sum(tally.kills.values())}")
    print(f"groups done again        {tally.groups_redone}")
    print(f"resumed                  {tally.resumed} times")
    print(f"lines of Ray's own       {tally.foreign_lines}")
    for name, values in (("driver", tally.driver_memory), ("worker", tally.worker_memory)):
        if values:
            low, high = min(values) / MEGABYTE, max(values) / MEGABYTE
            print(f"memory of a {name:<13}{low:.0f} to {high:.0f} MB")
    print(f"minutes                  {(time.monotonic() - started) / 60:.1f}")
    return 1 if differing or tally.foreign_lines else 0


def command(folder: Path, run: Path, *, workers: int, resume: bool = False) -> list[str]:
    """``fedflair train`` of the run, or its continuation."""
    start = [sys.executable, "-m", "fedflair.cli", "train", "--run", str(run), "--workers", str(workers)]
    if resume:
        return [*start, "--resume"]
    return [*start, "--data_path", str(folder / "store.hdf5"), *(f"--{k}={v}" for k, v in OPTIONS.items())]


def shake(folder: Path, run: Path, generator: random.Random, tally: Tally, limit: int) -> None:
    """One run to its end, however often it has to be continued."""
    resume = False
    while not (run / "summary.json").exists():
        resume = RunFolder(run).last.exists()
        tally.resumed += resume
        log = folder / "stderr"
        with log.open("w") as errors:
            driver = subprocess.Popen(command(folder, run, workers=2, resume=resume), stderr=errors)
        seen: set[int] = set()
        try:
            disturb(driver, run, generator, tally, limit, seen)
        finally:
            driver.kill()
            driver.wait()
        text = said_at_the_end(log, driver.returncode)
        tally.groups_redone += len(re.findall(r"its work is done again elsewhere", text))
        tally.foreign_lines += len(re.findall(FOREIGN, text, re.MULTILINE))
        wait_for_the_end_of(seen)


def disturb(
    driver: subprocess.Popen[bytes], run: Path, generator: random.Random, tally: Tally, limit: int, seen: set[int]
) -> None:
    """Adds the workers that it sees to ``seen``. Kills until the run ends, or its driver does."""
    while driver.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(generator.expovariate(1 / MEAN_SECONDS))
        workers = processes("ray::RayWorker")
        seen.update(workers)
        if sum(tally.kills.values()) >= limit or not workers or not RunFolder(run).last.exists():
            continue
        tally.driver_memory += memory(driver.pid)
        tally.worker_memory += [value for pid in processes("ray::RayWorker.run") for value in memory(pid)]
        kind = generator.choices(list(KINDS), list(KINDS.values()))[0]
        victims = {"driver killed": [driver.pid], "raylet killed": processes("raylet")}.get(kind, workers)
        number = signal.SIGSTOP if kind == "worker stopped" else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.kill(generator.choice(victims), number)
            tally.kills[kind] += 1


def said_at_the_end(log: Path, status: int) -> str:
    """What the driver said. Raises RuntimeError where a driver that failed does not close with how to go on."""
    deadline = time.monotonic() + 10
    while status:
        text = log.read_text()
        closing = [line for line in text.splitlines() if line.startswith("fedflair: ")]
        if len(closing) == 1 and "continue with: fedflair train --resume" in closing[0]:
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"status {status} and {len(closing)} closing lines:\n{text}")
        time.sleep(0.1)
    return log.read_text()


def equal(calm: Path, run: Path) -> bool:
    """Whether two runs ended with the same parameters, optimizer state, metrics and ledger, bit for bit."""
    one, two = (load_state(RunFolder(folder).last, torch.device("cpu"))[0] for folder in (calm, run))
    rows = [
        [{k: v for k, v in row.items() if "second" not in k} for row in read_rows(RunFolder(f))] for f in (calm, run)
    ]
    ledgers = [(folder / "privacy_ledger.jsonl").read_bytes() for folder in (calm, run)]
    states = all(torch.equal(tensor, two.optimizer_state[name]) for name, tensor in one.optimizer_state.items())
    return torch.equal(one.parameters, two.parameters) and states and rows[0] == rows[1] and ledgers[0] == ledgers[1]


def wait_for_the_end_of(workers: set[int]) -> None:
    """Raises RuntimeError where worker processes outlive their driver by more than 30 s."""
    deadline = time.monotonic() + 30
    while orphans := [pid for pid in workers if title(pid).startswith("ray::")]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"workers that outlived their driver: {orphans}")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
