"""Every algorithm gives the same bits for any number of threads, and when it is killed and resumed."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.commands.train import parse_train_config
from fedflair.config.train_config import TrainConfig
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.algorithms import ALGORITHMS as ALGORITHM_TABLE
from fedflair.federated.algorithms import Algorithm
from fedflair.federated.server import ServerState
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training.checkpoint import load_state
from fedflair.training.train import train
from tests.prepared import Prepared
from tests.small_runs import command, small_config, timeless_rows

ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedprox": {"algorithm_name": "fedprox"},
    "adafedprox": {"algorithm_name": "adafedprox", "adafedprox_metric_name": "val/loss", "mu": 0.5},
    "scaffold on disk": {"algorithm_name": "scaffold", "scaffold_max_clients": 4},
    "scaffold in memory": {
        "algorithm_name": "scaffold", "scaffold_states": "memory", "scaffold_option": 1, "scaffold_dtype": "bfloat16",
    },
    "reptile": {"algorithm_name": "reptile", "central_optimizer": "yogi"},
    "central": {"algorithm_name": "central", "central_batch_size": 20, "local_batch_size": 3},
    "stragglers": {
        "over_selection": 0.6, "dropout_rate": 0.3, "client_speed_std": 1.0, "compression": "quantize_8bit",
        "local_momentum": 0.9, "local_num_steps": 3, "weighting": "sqrt", "central_optimizer": "adagrad",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ALGORITHMS)
def test_threads_do_not_matter(tiny_store: Path, tmp_path: Path, name: str) -> None:
    finals = []
    for threads in (1, 3):
        options = {"model": "small_cnn", "num_threads": threads, "run": tmp_path / str(threads), **ALGORITHMS[name]}
        folder = RunFolder(train(small_config(tiny_store, **options)))
        finals.append((load_state(folder.last, torch.device("cpu"))[0], timeless_rows(folder.path)))
    assert torch.equal(finals[0][0].parameters, finals[1][0].parameters)
    for key, tensor in finals[0][0].algorithm_state.items():
        assert torch.equal(tensor, finals[1][0].algorithm_state[key])
    assert finals[0][1] == finals[1][1]


def assert_same_run(one: RunFolder, two: RunFolder) -> None:
    states = [load_state(folder.last, torch.device("cpu"))[0] for folder in (one, two)]
    assert torch.equal(states[0].parameters, states[1].parameters)
    for group in ("optimizer_state", "algorithm_state"):
        for key, tensor in getattr(states[0], group).items():
            assert torch.equal(tensor, getattr(states[1], group)[key])
    assert timeless_rows(one.path) == timeless_rows(two.path)
    kept = [
        sorted(str(p.relative_to(folder.path)) for p in (folder.path / "client_states").rglob("*.safetensors"))
        for folder in (one, two)
    ]
    assert kept[0] == kept[1]


def resume(folder: RunFolder) -> None:
    train(parse_train_config(["--resume", "--run", str(folder.path)]))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_that_failed_resumes_bit_for_bit(
    tiny_store: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run breaks in its fourth round, a round after the last checkpoint."""
    options = {"model": "small_cnn", "central_num_iterations": 5, **ALGORITHMS[name]}
    algorithm = options.get("algorithm_name", "fedavg")
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    train(small_config(tiny_store, run=whole.path, **options))
    make = ALGORITHM_TABLE[algorithm]

    def fragile(config: TrainConfig, num_clients: int) -> Algorithm:
        made = make(config, num_clients)

        def server_update(state: ServerState, mean_delta: torch.Tensor, cohort_sum: UpdateSum) -> ServerState:
            if state.round == 3:
                raise ZeroDivisionError
            return made.server_update(state, mean_delta, cohort_sum)

        return replace(made, server_update=server_update)

    with monkeypatch.context() as patch:
        patch.setitem(ALGORITHM_TABLE, algorithm, fragile)
        with pytest.raises(ZeroDivisionError):
            train(small_config(tiny_store, run=broken.path, **options))
    assert [row["round"] for row in read_rows(broken)] == [1, 2, 3]
    resume(broken)
    assert_same_run(whole, broken)


def test_client_states_survive_a_kill(tiny_store: Path, tmp_path: Path) -> None:
    """Killed for good, in a process of its own, at whatever instant the clock gives."""
    options = {
        "model": "small_cnn", "central_num_iterations": 30, "evaluation_frequency": 5, **ALGORITHMS["scaffold on disk"],
    }  # fmt: skip
    whole = RunFolder(train(small_config(tiny_store, run=tmp_path / "whole", **options)))
    halted = RunFolder(tmp_path / "halted")
    process = Prepared(command(small_config(tiny_store, run=halted.path, **options))[3:])
    try:
        deadline = time.monotonic() + 120
        while len(read_rows(halted)) < 7 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert not halted.summary.exists()
    resume(halted)
    assert_same_run(whole, halted)
    kept = [path.name.split(".")[0] for path in (whole.path / "client_states").rglob("*.safetensors")]
    # The newest of four clients, and what was replaced or forgotten since the checkpoint before the last one.
    assert 4 <= len(kept) <= 4 + 2 * 5 * 3
