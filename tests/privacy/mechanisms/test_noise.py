from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from fedflair.privacy.mechanisms.noise import noise_fingerprint, scalar_normal, standard_laplace, standard_normal

SIZE = 1_000_000
GOLDEN = [-1.4342011213302612, -0.10919491946697235, -0.5895536541938782]
GOLDEN_SCALAR = 1.3500679401777607
SEED = 0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0


def test_normal_at_a_million_draws() -> None:
    noise = standard_normal(SEED, 3, SIZE).double().numpy()
    # Five standard errors of the mean, the variance and the fourth moment.
    assert abs(noise.mean()) < 5 / np.sqrt(SIZE)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / SIZE)
    assert abs((noise**4).mean() - 3) < 5 * np.sqrt(96 / SIZE)
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert 4.3 < np.abs(noise).max() < 6.5


def test_laplace_at_a_million_draws() -> None:
    noise = standard_laplace(SEED, 3, SIZE).double().numpy()
    assert abs(noise.mean()) < 5 * np.sqrt(2 / SIZE)
    assert abs(noise.var() - 2) < 5 * np.sqrt(20 / SIZE)
    assert stats.kstest(noise, "laplace").pvalue > 1e-4


def test_rounds_seeds_and_blocks_are_independent() -> None:
    size = 3 << 20
    here = standard_normal(SEED, 3, size).double()
    for there in (
        standard_normal(SEED, 4, size),
        standard_normal(SEED + 1, 3, size),
        standard_normal(SEED ^ (1 << 127), 3, size),
    ):
        assert abs(float(torch.corrcoef(torch.stack([here, there.double()]))[0, 1])) < 5 / np.sqrt(size)
    blocks = here.reshape(3, -1)
    correlations = torch.corrcoef(blocks) - torch.eye(3)
    assert float(correlations.abs().max()) < 5 / np.sqrt(1 << 20)


def test_noise_depends_on_nothing_but_seed_and_round() -> None:
    size = (2 << 20) + 17
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = standard_normal(SEED, 9, size)
        torch.set_num_threads(2)
        assert torch.equal(one, standard_normal(SEED, 9, size))
    finally:
        torch.set_num_threads(threads)
    # The numbers are part of the run folder's format: an old run must resume with them.
    assert one[:3].tolist() == GOLDEN
    assert scalar_normal(SEED, 9) == GOLDEN_SCALAR


def test_fingerprints_tell_rounds_apart() -> None:
    prints = {noise_fingerprint(SEED, round_) for round_ in range(1000)} | {noise_fingerprint(SEED + 1, 0)}
    assert len(prints) == 1001
    assert all(len(p) == 16 for p in prints)


def test_the_scalar_is_no_entry_of_the_vectors() -> None:
    vector = standard_normal(SEED, 5, SIZE).double()
    assert float((vector - scalar_normal(SEED, 5)).abs().min()) > 0
    scalars = np.array([scalar_normal(SEED, round_) for round_ in range(5000)])
    assert stats.kstest(scalars, "norm").pvalue > 1e-4


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_sizes_at_the_edges_of_blocks(size: int) -> None:
    assert standard_normal(SEED, 0, size).shape == (size,)
