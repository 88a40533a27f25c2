"""Algorithms with states of clients, and pieces of batches instead of clients, on Ray's workers: the same bits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.backends.ray.cluster import LOOPBACK

# Read when Ray is imported.
os.environ.update(LOOPBACK)
pytest.importorskip("ray", reason="ray is not installed; pip install fedflair[ray]")

from fedflair.backends.ray.cluster import connected
from fedflair.runs.folder import RunFolder
from fedflair.training.checkpoint import load_state
from fedflair.training.train import train
from tests.small_runs import small_config

OPTIONS: dict[str, dict[str, Any]] = {
    "scaffold": {"algorithm_name": "scaffold", "scaffold_option": 1, "scaffold_dtype": "bfloat16"},
    "central": {"algorithm_name": "central", "central_batch_size": 20, "local_batch_size": 3},
}


@pytest.fixture(scope="module")
def cluster(tiny_store: Path) -> Iterator[None]:
    with connected(small_config(tiny_store, workers=1).hardware):
        yield


@pytest.mark.parametrize("name", OPTIONS)
def test_workers_do_not_matter(tiny_store: Path, tmp_path: Path, name: str, cluster: None) -> None:
    states = []
    for workers in (0, 1):
        options = {"model": "small_cnn", "workers": workers, "central_num_iterations": 2, **OPTIONS[name]}
        folder = train(small_config(tiny_store, run=tmp_path / str(workers), **options))
        states.append(load_state(RunFolder(folder).last, torch.device("cpu"))[0])
    assert torch.equal(states[0].parameters, states[1].parameters)
    for key, tensor in states[0].algorithm_state.items():
        assert torch.equal(tensor, states[1].algorithm_state[key])
