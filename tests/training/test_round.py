"""What is handed down to the clients of a round."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fedflair.backends.threads import thread_backend
from fedflair.federated.setup import initial_state, make_setup
from fedflair.privacy.mechanisms import CohortStats, PrivacyOptions, make_mechanism
from fedflair.sampling import SamplerDescription
from fedflair.training.round import released, run_round, who_answers
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


@pytest.mark.parametrize("ratio", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("name", ["gaussian_moments_accountant", "banded_matrix_factorization", "laplace"])
def test_a_noisy_sum_says_how_long_the_clean_one_is_beside_its_noise(name: str, ratio: float) -> None:
    options = PrivacyOptions(name, delta=1e-4, min_separation=4 if name.startswith("banded") else None)
    mechanism = make_mechanism(options, SamplerDescription("poisson", 20, 400), 8, noise_seed=3 << 90)
    size, state = 100_000, mechanism.init(100_000)
    for round_ in range(3):
        std, before = mechanism.noise_std(state, round_), state
        clean = torch.full((size,), math.sqrt(ratio) * std)
        noisy, state = mechanism.add_noise(clean, CohortStats(20, 0, 0), round_, before)
        release = released(mechanism, noisy, 20.0, before, round_)
        assert release is not None
        # Its standard deviation is sqrt((2 + 4 ratio) / P) with Gaussian noise, sqrt((5 + 4 ratio) / P) with Laplace's.
        assert release.signal_to_noise == pytest.approx(ratio, abs=5 * math.sqrt((5 + 4 * ratio) / size))
        assert float(release.mean_noise_variance) == pytest.approx((std / 20) ** 2, rel=1e-12)


def test_nothing_is_said_of_a_sum_without_noise() -> None:
    mechanism = make_mechanism(PrivacyOptions("norm_clipping_only"), SamplerDescription("poisson", 20, 400), 8, 1)
    assert released(mechanism, torch.ones(3), 20.0, mechanism.init(3), 0) is None


def test_adam_bc_takes_the_mechanisms_noise_out(tiny_store: Path) -> None:
    config = small_config(
        tiny_store, model="small_cnn", central_optimizer="adam_bc", central_privacy_clipping_bound=0.5,
        central_privacy_mechanism="banded_matrix_factorization", min_separation=2, cohort_size=1, central_delta=0.001,
    )  # fmt: skip
    setup = make_setup(config, noise_seed=7)
    state, expected = initial_state(setup), 0.0
    with thread_backend(setup.worker) as backend:
        for round_ in range(2):
            expected = 0.99 * expected + 0.01 * setup.mechanism.noise_std(state.mechanism_state, round_) ** 2
            state, cohort_sum = run_round(state, [], setup=setup, backend=backend)
            assert cohort_sum.release is not None
    assert float(state.optimizer_state["noise"]) == pytest.approx(expected, rel=1e-9)
