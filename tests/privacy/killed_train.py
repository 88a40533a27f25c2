"""Training runs that are killed again and again at random instants; run by test_killed_runs.py in a process of its own.

Arguments: store, folder, number of kills, names of mechanisms. For each mechanism the folder then holds a run that was
never killed and one that was. Prints, for each kill: the mechanism, rounds in the ledger, and what is wrong with it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from fedflair.config.train_config import TrainConfig
from fedflair.runs.folder import RunFolder
from fedflair.training.train import train
from fedflair.training.verification import verify
from tests.privacy.runs import run_config


def start(config: TrainConfig) -> int:
    """Trains in a child process: from the run's checkpoint where there is one, else from the beginning."""
    folder = RunFolder(config.run.run or Path())
    resume = folder.last.is_file()
    if not resume:
        shutil.rmtree(folder.path, ignore_errors=True)
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        train(config.changed(resume=resume))
        status = 0
    finally:
        os._exit(status)


def kill_soon(child: int, folder: Path, chance: random.Random) -> None:
    """Kills the child a moment after its files have changed a few times; lets it be where it has ended."""
    seen, changes = signature(folder), chance.randrange(1, 16)
    while changes:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return
        time.sleep(0.001)
        now = signature(folder)
        changes, seen = changes - (now != seen), now
    time.sleep(chance.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def signature(folder: Path) -> tuple[int, ...]:
    names = ("privacy_ledger.jsonl", "metrics.jsonl", "checkpoints/last.safetensors", "checkpoints/best.safetensors")
    found: list[int] = []
    for name in names:
        try:
            stat = (folder / name).stat()
        except FileNotFoundError:
            continue
        found += [stat.st_ino, stat.st_size]
    return tuple(found)


def main(words: Sequence[str]) -> int:
    store, folder, num_kills = Path(words[0]), Path(words[1]), int(words[2])
    torch.set_num_threads(1)
    chance = random.Random(num_kills)
    for name in words[3:]:
        whole = run_config(store, folder / name / "whole", name, noise_from_seed=True, evaluation_frequency=2)
        killed = whole.changed(run=folder / name / "killed")
        os.waitpid(start(whole), 0)
        for _ in range(num_kills):
            kill_soon(start(killed), folder / name / "killed", chance)
            if (folder / name / "killed" / "checkpoints" / "last.safetensors").exists() and "local" not in name:
                found = verify(folder / name / "killed", use_cache=True)
                print(name, found.num_rounds, *found.problems, sep="\t", flush=True)
        os.waitpid(start(killed), 0)
    return 0
