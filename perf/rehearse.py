#!/usr/bin/env python
"""Every row of docs/reproducing.md begun for real on a store of FLAIR's size, and what all of it would take here.

Each row is a process that sets up as ``fedflair train`` does and trains the first rounds of the row's own schedule,
with its own cohort, at 224 pixels. Hours are those of all its image-steps at the rate that was measured, and of its
evaluations at that of ``perf/evaluate.py``. Where there is no network, rows that start from ImageNet start from random
weights of the same shapes, which compute the same.

    fedflair synthesize --scale full --output full.hdf5
    python perf/rehearse.py --data_path full.hdf5 --evaluated 153
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers.network import write_weights
from peers.task import device_name

from fedflair.backends.threads import thread_backend
from fedflair.config.options import build_config, read_options
from fedflair.config.train_config import TrainConfig
from fedflair.engine.allocator import keep_freed_memory
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.sweep.reproduction import ROWS
from fedflair.training.checkpoint import save_state
from fedflair.training.round import run_round, who_answers

ALSO_IID = ("baseline", "coarse_pretrained_private")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", default=[*ROWS, *(f"{row} flair_iid" for row in ALSO_IID)], metavar="ROW")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cohort_size", type=int, help="Fewer users a round than the row's 200, for less time.")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--evaluated", type=float, default=153.0, help="Images scored a second.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_begin(json.loads(options.one))))
        return
    print(f"{device_name(options.device)}, {options.precision}")
    heads = (("set-up", 7), ("image-steps", 12), ("per s", 6), ("all", 12), ("hours", 7), ("memory", 8), ("state", 7))
    print(f"{'row':38} {' '.join(head.rjust(width) for head, width in heads)}")
    with tempfile.TemporaryDirectory() as name:
        weights = write_weights(Path(name), "resnet18", 17, 224)
        for row in options.rows:
            given = {
                "row": row.split()[0],
                "options": _options(row, options, weights),
                "cohort_size": read_options(Path(row.split()[0])).get("cohort_size"),
                "rounds": options.rounds,
            }
            _show(row, _in_a_process(given), options.evaluated)


def _options(row: str, options: argparse.Namespace, weights: Path) -> dict[str, Any]:
    preset = read_options(Path(row.split()[0]))
    found: dict[str, Any] = {"data_path": str(options.data_path), "precision": options.precision}
    found["device"] = options.device
    if preset.get("pretrained", True):
        found["pretrained_weights"] = str(weights)
    if options.cohort_size and preset.get("algorithm_name") != "central":
        found["cohort_size"] = options.cohort_size
    if row.endswith("flair_iid"):
        found["dataset"] = "flair_iid"
    return found


def _in_a_process(given: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--data_path", ".", "--one", json.dumps(given)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{given['row']}: ended with status {done.returncode}; see above")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _begin(given: dict[str, Any]) -> dict[str, Any]:
    """The first rounds of a row: seconds of the set-up, image-steps, their seconds, and what it takes."""
    keep_freed_memory()
    started = time.perf_counter()
    config = build_config({**read_options(Path(given["row"])), **given["options"]}, "row")
    setup = make_setup(config, noise_seed=0)
    state = initial_state(setup)
    steps = 0
    with thread_backend(setup.worker) as backend, tempfile.TemporaryDirectory() as name:
        ready = time.perf_counter()
        for _ in range(given["rounds"]):
            state, cohort_sum = run_round(state, who_answers(setup, state).cohort, setup=setup, backend=backend)
            steps += cohort_sum.metrics.num_examples
        trained = time.perf_counter()
        save_state(Path(name) / "last", state, {})
        size = sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())
    return {
        "setup": ready - started,
        "steps": steps,
        "seconds": trained - ready,
        "all": _all_steps(setup, given["cohort_size"]),
        "scored": _all_scored(config, setup),
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "checkpoint_mb": size / 1e6,
    }


def _all_steps(setup: TrainingSetup, cohort_size: int) -> float:
    """Image-steps of the whole row with its own cohorts, as many as are expected."""
    config, rounds = setup.config, setup.config.algorithm.central_num_iterations
    if config.algorithm.algorithm_name == "central":
        return float(rounds * config.algorithm.central_batch_size)
    clients = setup.worker.clients
    sizes = np.minimum([clients.num_images(name) for name in clients.client_ids], config.data.max_num_user_images)
    return float(rounds * cohort_size * config.local.local_num_epochs * sizes.mean())


def _all_scored(config: TrainConfig, setup: TrainingSetup) -> int:
    """Images scored in the whole row: val at each evaluation, val and test at the end."""
    images = {name: partition.num_images for name, partition in setup.worker.store.partitions.items()}
    evaluations = config.algorithm.central_num_iterations // config.evaluation.evaluation_frequency
    return evaluations * images["val"] + images["val"] + images["test"]


def _show(row: str, measured: dict[str, Any], evaluated: float) -> None:
    rate = measured["steps"] / measured["seconds"]
    hours = (measured["all"] / rate + measured["scored"] / evaluated) / 3600
    print(
        f"{row:38} {measured['setup']:6.1f}s {measured['steps']:12,} {rate:6.1f} {measured['all'] / 1e6:10.1f} M "
        f"{hours:7,.0f} {measured['mb']:5,.0f} MB {measured['checkpoint_mb']:4,.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
