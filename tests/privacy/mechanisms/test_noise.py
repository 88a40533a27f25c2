"""Noise: its distribution, what it depends on, and that neither its bits nor its repetition give a sum away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from fedflair.privacy.mechanisms.noise import (
    add_noise,
    binding,
    grid,
    noise_fingerprint,
    noise_key,
    scalar_normal,
    standard_normal,
)

SIZE = 1_000_000
GOLDEN = [-0.9446348174394191, -1.0920282328364803, -0.0960623674994994]
GOLDEN_SCALAR = 1.3500679401777607
SEED = 0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0


def key(round_: int = 3, seed: int = SEED) -> int:
    return noise_key(seed, round_, "")


def test_normal_at_a_million_draws() -> None:
    noise = standard_normal(key(), SIZE).numpy()
    # Five standard errors of the mean, the variance and the fourth moment.
    assert abs(noise.mean()) < 5 / np.sqrt(SIZE)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / SIZE)
    assert abs((noise**4).mean() - 3) < 5 * np.sqrt(96 / SIZE)
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert 4.3 < np.abs(noise).max() < 6.5


@pytest.mark.parametrize(("kind", "variance", "fourth"), [("gaussian", 1.0, 3.0), ("laplace", 2.0, 24.0)])
@pytest.mark.parametrize("scale", [1e-6, 0.3, 40.0])
def test_what_is_added_has_its_scale(kind: str, variance: float, fourth: float, scale: float) -> None:
    total = add_noise(torch.full((SIZE,), 0.7 * scale), kind, scale, key())  # type: ignore[arg-type]
    noise = total.double().numpy() / scale - 0.7
    assert abs(noise.mean()) < 5 * np.sqrt(variance / SIZE)
    assert abs(noise.var() - variance) < 5 * np.sqrt((fourth - variance**2) / SIZE)
    assert stats.kstest(noise, {"gaussian": "norm", "laplace": "laplace"}[kind]).pvalue > 1e-4


def test_rounds_seeds_bindings_and_blocks_are_independent() -> None:
    size = 3 << 20
    here = standard_normal(key(), size)
    for other in (
        key(4),
        key(seed=SEED + 1),
        key(seed=SEED ^ (1 << 127)),
        noise_key(SEED, 3, "ab"),
        noise_key(SEED, 3, "", client="a"),
    ):
        there = standard_normal(other, size)
        assert abs(float(torch.corrcoef(torch.stack([here, there]))[0, 1])) < 5 / np.sqrt(size)
    blocks = here.reshape(3, -1)
    correlations = torch.corrcoef(blocks) - torch.eye(3)
    assert float(correlations.abs().max()) < 5 / np.sqrt(1 << 20)


def test_noise_depends_on_its_key_alone() -> None:
    size = (2 << 20) + 17
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = standard_normal(key(9), size)
        sum_of_one = add_noise(torch.ones(size), "gaussian", 1.0, key(9))
        torch.set_num_threads(2)
        assert torch.equal(one, standard_normal(key(9), size))
        assert torch.equal(sum_of_one, add_noise(torch.ones(size), "gaussian", 1.0, key(9)))
    finally:
        torch.set_num_threads(threads)
    # The numbers are part of the run folder's format: an old run must resume with them.
    assert one[:3].tolist() == GOLDEN
    assert scalar_normal(key(9)) == GOLDEN_SCALAR


def test_a_binding_changes_with_seed_round_sum_and_count() -> None:
    total = torch.linspace(-1, 1, 1000)
    nudged = total.clone()
    nudged[500] = torch.nextafter(nudged[500], torch.tensor(9.0))
    bindings = [
        binding(SEED, 3, total),
        binding(SEED + 1, 3, total),
        binding(SEED, 4, total),
        binding(SEED, 3, nudged),
        binding(SEED, 3, total, 1.0),
        binding(SEED, 3, total, 2.0),
        binding(SEED, 3, total[:-1]),
    ]
    assert len(set(bindings)) == len(bindings)
    assert binding(SEED, 3, total.clone()) == bindings[0]
    assert all(len(found) == 32 for found in bindings)


def test_fingerprints_tell_rounds_and_bindings_apart() -> None:
    prints = {noise_fingerprint(SEED, round_, "") for round_ in range(1000)}
    prints |= {noise_fingerprint(SEED + 1, 0, ""), noise_fingerprint(SEED, 0, "00")}
    assert len(prints) == 1002
    assert all(len(p) == 16 for p in prints)


def test_the_scalar_is_no_entry_of_the_vectors() -> None:
    vector = standard_normal(key(5), SIZE)
    assert float((vector - scalar_normal(key(5))).abs().min()) > 0
    scalars = np.array([scalar_normal(key(round_)) for round_ in range(5000)])
    assert stats.kstest(scalars, "norm").pvalue > 1e-4


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_sizes_at_the_edges_of_blocks(size: int) -> None:
    assert standard_normal(key(), size).shape == (size,)
    assert add_noise(torch.zeros(size), "gaussian", 1.0, key()).shape == (size,)


@pytest.mark.parametrize("scale", [0.0021818, 0.73, 1.0])
def test_every_release_is_a_multiple_of_the_noises_grid(scale: float) -> None:
    assert scale * 2**-21 < grid(scale) <= scale * 2**-20
    for mean in (0.0, 0.05, 1 / 3):
        total = add_noise(torch.full((50_000,), mean), "gaussian", scale, key())
        assert torch.equal(total, (total.double() / grid(scale)).round().mul(grid(scale)).float())


def float32_noise(mean: float, scale: float, seed: int) -> torch.Tensor:
    """The obvious way, which the attack below sees through: noise and sum in float32."""
    noise = np.random.default_rng(seed).standard_normal(200_000, dtype=np.float32)
    return torch.full((200_000,), mean).add_(torch.from_numpy(noise), alpha=scale)


def guess(released: torch.Tensor, means: tuple[float, float], scale: float) -> int:
    """Which of two sums was released, from which numbers near zero float32 noise can make of which; -1 is no idea."""
    seen = released[released.abs() < 1e-4 * scale].double().numpy()
    shares = []
    for mean in means:
        nearest = ((seen - mean) / scale).astype(np.float32)
        draws = np.stack([nearest, np.nextafter(nearest, np.float32(9)), np.nextafter(nearest, np.float32(-9))])
        shares.append(np.mean(np.any((mean + scale * draws.astype(np.float64)).astype(np.float32) == seen, axis=0)))
    return -1 if shares[0] == shares[1] else int(shares[1] > shares[0])


def test_no_bit_of_a_release_tells_which_sum_it_was() -> None:
    """Two sums, each of one value; of the numbers near zero float32 noise reaches few, and others from each sum."""
    scale, means = (float(np.float32(0.07)), (float(np.float32(0.05)), float(np.float32(0.0012))))
    right = [guess(float32_noise(means[k % 2], scale, k), means, scale) == k % 2 for k in range(24)]
    assert sum(right) == 24
    guesses = [
        guess(add_noise(torch.full((200_000,), means[k % 2]), "gaussian", scale, key(k)), means, scale)
        for k in range(24)
    ]
    assert set(guesses) == {-1}
