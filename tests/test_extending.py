"""The code of docs/extending.md runs as it stands, and is FedNova."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.algorithms import ALGORITHMS
from fedflair.federated.server import ServerState
from fedflair.federated.setup import initial_state, make_setup
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.training.round import run_round
from tests.small_runs import small_config

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_pages_code_trains(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, run = blocks()
    assert len(algorithm.splitlines()) < 40
    (tmp_path / "data" / "demo").mkdir(parents=True)
    shutil.copy(tiny_store, tmp_path / "data" / "demo" / "flair_federated.hdf5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ALGORITHMS, "fednova", None)
    names: dict[str, Any] = {}
    exec(algorithm, names)
    exec(run, names)
    folder = RunFolder(names["folder"])
    assert [row["round"] for row in read_rows(folder)] == [1, 2, 3]
    assert read_summary(folder)["rounds"] == 3


def test_it_is_fednova(tiny_store: Path) -> None:
    """Clients of 1 and 9 images take 2 and 6 steps; weights 1 and 9: the mean of updates per step, times 5.6."""
    names: dict[str, Any] = {}
    exec(blocks()[0], names)
    options = {"central_optimizer": "sgd", "learning_rate": 1.0, "central_lr_schedule": "constant"}
    config = small_config(tiny_store, model="small_cnn", local_batch_size=4, weighting="num_examples", **options)
    setup = make_setup(config, noise_seed=0)
    object.__setattr__(setup.worker, "algorithm", names["make"](config, 6))
    state = initial_state(setup)
    cohort = [setup.worker.clients.client_ids[0], setup.worker.clients.client_ids[4]]
    with thread_backend(setup.worker) as backend:
        after, total = run_round(state, cohort, setup=setup, backend=backend)
        alone = [run_round(state, [client], setup=setup, backend=backend)[0] for client in cohort]
    assert float(total.extra["weighted_steps"]) == 1 * 2 + 9 * 6
    moved = [one.parameters - state.parameters for one in alone]
    expected = (1 * moved[0] / 2 + 9 * moved[1] / 6) / 10 * 5.6
    torch.testing.assert_close(after.parameters - state.parameters, expected, rtol=0, atol=1e-6)
    empty = ServerState(0, torch.zeros(2), {}, {}, {})
    algorithm = names["make"](TrainConfig.of(central_optimizer="sgd"), 6)
    assert np.all(algorithm.server_update(empty, torch.zeros(2), UpdateSum()).parameters.numpy() == 0)
