"""Which images of a large client a round takes: its own choice, of the round and of the client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedflair.backends.threads import thread_backend
from fedflair.federated.algorithms.base import ClientUpdateFn
from fedflair.federated.client import ClientUpdate
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.training.round import run_round
from tests.conftest import write_tiny_store
from tests.small_runs import small_config


def three_rounds(setup: TrainingSetup, client_update: ClientUpdateFn) -> list[str]:
    """Runs them with everybody in each, and what clients do in place of training; returns the cohort."""
    algorithm = replace(setup.worker.algorithm, client_update=client_update)
    setup = replace(setup, worker=replace(setup.worker, algorithm=algorithm))
    state, cohort = initial_state(setup), list(setup.worker.clients.client_ids)
    with thread_backend(setup.worker) as backend:
        for _ in range(3):
            state, _ = run_round(state, cohort, setup=setup, backend=backend)
    return cohort


def test_like_pfl_artificial_users_are_others_in_each_round(tiny_store: Path) -> None:
    config = small_config(tiny_store, model="small_cnn", dataset="flair_iid", like="pfl", num_threads=1)
    setup, picks = make_setup(config, noise_seed=0), {}

    def client_update(model: Any, server: Any, client: Any, generator: Any) -> ClientUpdate:
        picks[server.round, client.client_id] = tuple(bytes(image) for image in client.images)
        return ClientUpdate(torch.zeros_like(server.parameters), 1.0, client.num_examples, LocalMetrics(0.0, 4, 1))

    cohort = three_rounds(setup, client_update)
    assert len(cohort) == 6
    assert {len(images) for images in picks.values()} == {4}
    assert len(set(picks.values())) == 18


def test_each_large_client_picks_images_of_its_own_in_each_round(tmp_path: Path) -> None:
    store = write_tiny_store(tmp_path / "store.hdf5", {"train": (8,) * 6, "val": (3, 6), "test": (4, 5)})
    setup = make_setup(small_config(store, model="small_cnn", max_num_user_images=4, num_threads=1), noise_seed=0)
    users, picks = setup.worker.store.partitions["train"], {}

    def client_update(model: Any, server: Any, client: Any, generator: Any) -> ClientUpdate:
        user = users.user_ids.index(client.client_id)
        places = {users.encoded(k).tobytes(): k - users.user_slice(user).start for k in users.user_slice(user)}
        picks[server.round, client.client_id] = tuple(places[bytes(image)] for image in client.images)
        return ClientUpdate(torch.zeros_like(server.parameters), 1.0, client.num_examples, LocalMetrics(0.0, 4, 1))

    cohort = three_rounds(setup, client_update)
    assert len(picks) == 18
    assert all(len(set(places)) == 4 for places in picks.values())
    # 70 choices of 4 of 8: of 18, hardly any two are alike, and never all those of one round or of one client.
    assert len(set(picks.values())) >= 14
    for client in cohort:
        assert len({picks[round_, client] for round_ in range(3)}) > 1
    for round_ in range(3):
        assert len({picks[round_, client] for client in cohort}) > 3
