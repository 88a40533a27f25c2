"""A run of a few rounds, killed again and again at random instants; run by test_record.py in a process of its own.

Arguments: folder, number of rounds, number of kills. Prints, for each kill, how many rounds the ledger had.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from fedflair.config.train_config import TrainConfig
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.mechanisms import CohortStats
from fedflair.runs.tensors import load_tensors, save_tensors
from fedflair.sampling import stream
from fedflair.training.verification import verify
from tests.privacy.ledgers import begun_run, facts_of, mechanism_of, resumed, small_config


def config(num_rounds: int) -> TrainConfig:
    # With everybody in every cohort epsilon is a formula, so that time goes into writing lines and being killed.
    return small_config(cohort_size=400, noise_cohort_size=None, central_num_iterations=num_rounds)


def run(folder: Path, num_rounds: int) -> None:
    """What the engine does, with a vector of 50,000 zeros for a model; a checkpoint every third round."""
    checkpoint = folder / "checkpoints" / "last.safetensors"
    if checkpoint.exists():
        tensors, saved = load_tensors(checkpoint)
        model, done = tensors.get("model", torch.zeros(50_000)), int(saved["round"])
        book = resumed(folder, done, config(num_rounds), head=saved["ledger"])
    else:
        for path in folder.glob("*.*"):
            path.unlink()
        model, done = torch.zeros(50_000), 0
        book = begun_run(folder, config(num_rounds))
    for round_ in range(done, num_rounds):
        cohort = CohortStats(int(stream(5, "cohort", round_).binomial(400, 0.5)), 0, 0)
        total, after = book.mechanism.add_noise(torch.zeros(50_000), cohort, round_, {})
        model += total
        book = ledger.append(book, round_, cohort, {}, after)
        if (round_ + 1) % 3 == 0 or round_ + 1 == num_rounds:
            save_tensors(checkpoint, {"model": model}, facts_of(book))


def kill_soon(child: int, path: Path, chance: random.Random) -> None:
    """Kills the child a moment after it has written to the ledger a few times; at once where it has ended."""
    seen, changes = _signature(path), chance.randrange(0, 9)
    while changes and os.waitpid(child, os.WNOHANG) == (0, 0):
        now = _signature(path)
        changes, seen = changes - (now != seen), now
    time.sleep(chance.uniform(0.0, 0.004))
    if changes == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main(words: Sequence[str]) -> int:
    folder, num_rounds, num_kills = Path(words[0]), int(words[1]), int(words[2])
    torch.set_num_threads(1)
    mechanism_of(config(num_rounds))
    chance = random.Random(num_kills)
    for _ in range(num_kills):
        child = os.fork()
        if child == 0:
            run(folder, num_rounds)
            os._exit(0)
        kill_soon(child, folder / ledger.FILE_NAME, chance)
        if (folder / "checkpoints" / "last.safetensors").exists():
            found = verify(folder, use_cache=True)
            print(found.num_rounds, *found.problems)
    run(folder, num_rounds)
    return 0


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_size
