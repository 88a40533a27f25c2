"""What is handed down to the clients of a round."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedflair.backends.threads import thread_backend
from fedflair.federated.setup import initial_state, make_setup
from fedflair.training.round import run_round, who_answers
from tests.small_runs import small_config


@pytest.mark.parametrize(
    ("algorithm", "up", "down"),
    # SCAFFOLD sends the server's control variate along, and gets a client's back; AdaFedProx adapts scalars only.
    [("fedavg", 1, 1), ("adafedprox", 1, 1), ("scaffold", 2, 2)],
)
def test_bytes_are_those_of_the_vectors_that_are_sent(tiny_store: Path, algorithm: str, up: int, down: int) -> None:
    setup = make_setup(small_config(tiny_store, model="small_cnn", algorithm_name=algorithm), noise_seed=0)
    state = initial_state(setup)
    answered = who_answers(setup, state)
    assert len(answered.cohort) == 3
    size = 4 * state.parameters.numel()
    assert (answered.bytes_up, answered.bytes_down) == (3 * up * size, 3 * down * size)


@pytest.mark.parametrize("algorithm", ["fedavg", "fedprox", "reptile", "scaffold"])
def test_a_round_in_which_nobody_answers_changes_nothing(tiny_store: Path, algorithm: str) -> None:
    setup = make_setup(small_config(tiny_store, model="small_cnn", algorithm_name=algorithm, learning_rate=1.0), 0)
    state = initial_state(setup)
    with thread_backend(setup.worker) as backend:
        after, cohort_sum = run_round(state, [], setup=setup, backend=backend)
    assert (after.round, cohort_sum.cohort.num_clients) == (1, 0)
    assert torch.equal(after.parameters, state.parameters)


def test_central_training_asks_nobody(tiny_store: Path) -> None:
    setup = make_setup(
        small_config(tiny_store, model="small_cnn", algorithm_name="central", central_batch_size=8), noise_seed=0
    )
    answered = who_answers(setup, initial_state(setup))
    assert (answered.bytes_up, answered.bytes_down, answered.seconds, answered.num_dropped) == (0, 0, 0.0, 0)
