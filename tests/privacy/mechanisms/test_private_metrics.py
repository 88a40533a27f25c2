"""Loss and counts as further entries of the one release, by hand and against what the accountant has."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedflair.errors import PrivacyError
from fedflair.privacy.contract import ClipResult
from fedflair.privacy.mechanisms import MECHANISMS, CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.private_metrics import NUM_ENTRIES, split_of
from fedflair.sampling import SamplerDescription

SAMPLER = SamplerDescription("poisson", 100, 1000)
SEED = 5 << 90
WHOLE, CLIPPED, REJECTED = ClipResult(0.5, False, False), ClipResult(2.0, True, False), ClipResult(1.0, False, True)
NAMES = ("gaussian", "gaussian_moments_accountant", "laplace", "banded_matrix_factorization")


def options_of(name: str, **changes: object) -> PrivacyOptions:
    bands = {"min_separation": 4} if name.startswith("banded") else {}
    return replace(PrivacyOptions(name, delta=1e-5, clipping_bound=0.5, private_metrics=0.1), **bands, **changes)  # type: ignore[arg-type]


def made(name: str, **changes: object) -> Mechanism:
    return make_mechanism(options_of(name, **changes), SAMPLER, 20, SEED)


def sums_of(mechanism: Mechanism, clients: list[tuple[float, int, ClipResult]], bound: float) -> tuple[float, ...]:
    measure = mechanism.measure
    assert measure is not None
    total = CohortStats(0, 0, 0)
    for loss, images, clip in clients:
        total += CohortStats(1, 0, 0, measure(bound, loss, images, clip))
    return total.metrics


@pytest.mark.parametrize("name", NAMES)
def test_update_and_metrics_together_are_no_longer_than_what_is_accounted(name: str) -> None:
    mechanism, order = made(name), 1.0 if name == "laplace" else 2.0
    measure, bound = mechanism.measure, mechanism.clipping_bound(mechanism.init(3))
    assert measure is not None
    assert bound == pytest.approx(0.5, rel=1e-12)
    plain = made(name, private_metrics=0.0)
    assert mechanism.description["epsilon"] == plain.description["epsilon"]
    assert mechanism.event(20) == plain.event(20)
    for loss, images, clip in [(0.0, 0, WHOLE), (9.0, 900, CLIPPED), (math.nan, 50, REJECTED), (math.inf, 7, WHOLE)]:
        update = torch.full((10,), 7.0)
        mechanism.clip(update, bound)
        joint = np.concatenate([update.double().numpy(), measure(bound, loss, images, clip)])
        # What one client moves the release by, in units of its noise, is no more than without metrics.
        moved = np.linalg.norm(joint, order) / mechanism.noise_std(mechanism.init(3), 0)
        allowed = 0.5 / plain.noise_std(plain.init(3), 0)
        assert 0.99 * allowed < moved <= allowed * (1 + 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_noise_on_them_is_that_of_the_release(name: str) -> None:
    mechanism = made(name)
    state, clients = mechanism.init(10), [(0.25, 10, WHOLE), (0.5, 30, CLIPPED), (4.0, 80, REJECTED), (0.1, 5, WHOLE)]
    metrics = sums_of(mechanism, clients, 0.5)
    entry = split_of(options_of(name))
    assert entry is not None
    unit = entry.entry * 0.5
    clean = [4.0, -0.5 + 0.0 + 1.0 - 0.8, -0.6 + 0.2 + 1.0 - 0.8, 0.0]
    assert np.allclose(np.array(metrics) / unit, clean, atol=1e-4)
    noises = []
    for number in range(200):
        total = torch.full((10,), float(number))
        _, after = mechanism.add_noise(total, CohortStats(4, 1, 1, metrics), 0, state)
        noises.append(after["private_metrics"].numpy() - clean)
    stated = mechanism.description["private_metrics"]["num_clients_noise_std"]
    assert stated == pytest.approx(mechanism.noise_std(state, 0) / unit, rel=1e-9)
    assert np.std(noises) == pytest.approx(stated, rel=0.12)
    assert np.abs(np.corrcoef(np.array(noises).T) - np.eye(NUM_ENTRIES)).max() < 0.35


def test_what_is_said_of_a_cohort() -> None:
    mechanism = made("gaussian_moments_accountant", private_metrics_loss_bound=2.0, private_metrics_images_bound=20)
    state = {**mechanism.init(1), "private_metrics": torch.tensor([4.0, -2.0, 1.0, 2.0], dtype=torch.float64)}
    assert mechanism.noisy_metrics(state) == {
        "num_clients": 4.0,
        "loss": 0.5,
        "num_images": 50.0,
        "share_clipped": 0.25,
    }
    # No mean over less than a client, and none outside of what a mean can be.
    state["private_metrics"] = torch.tensor([-3.0, 7.0, 1.0, 0.5], dtype=torch.float64)
    assert mechanism.noisy_metrics(state) == {
        "num_clients": -3.0,
        "loss": 2.0,
        "num_images": -20.0,
        "share_clipped": 0.25,
    }


def test_sums_of_metrics_are_exact() -> None:
    mechanism, random = made("gaussian_moments_accountant"), np.random.default_rng(0)
    measure = mechanism.measure
    assert measure is not None
    each = [
        measure(0.5, float(loss), int(n), WHOLE) for loss, n in zip(random.random(264), random.integers(0, 60, 264))
    ]
    sums = np.array(each).sum(axis=0)
    # 264 is as many as the grid is for; float32, which they travel in, holds every partial sum.
    assert np.array_equal(np.float32(sums).astype(np.float64), sums)
    assert np.array_equal(np.array(each[::-1]).sum(axis=0), sums)


def test_adaptive_clipping_moves_the_updates_bound_as_without_metrics() -> None:
    mechanism = made("gaussian_moments_accountant", adaptive_clipping=True, private_metrics=0.36)
    state = mechanism.init(10)
    assert mechanism.clipping_bound(state) == pytest.approx(0.5, rel=1e-12)
    # A share of 0.36 leaves 0.8 of the length, so a quarter more noise.
    plain = made("gaussian_moments_accountant", adaptive_clipping=True, private_metrics=0.0)
    assert mechanism.noise_std(state, 0) == pytest.approx(plain.noise_std(plain.init(10), 0) / 0.8, rel=1e-9)
    _, after = mechanism.add_noise(torch.zeros(10), CohortStats(100, 100, 0), 0, state)
    moved = mechanism.clipping_bound(after) / 0.5
    # All were clipped: the share left whole is 0, less the noise of 5 clients in 100.
    assert moved == pytest.approx(math.exp(0.2 * 0.5), rel=0.05)
    assert mechanism.noise_std(after, 1) == pytest.approx(moved * mechanism.noise_std(state, 0), rel=1e-9)


def test_mechanisms_without_noise_release_none(monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism = made("norm_clipping_only")
    assert mechanism.measure is None
    assert mechanism.noisy_metrics(mechanism.init(3)) == {}
    monkeypatch.setitem(MECHANISMS, "of_order_one", MECHANISMS["laplace"])
    with pytest.raises(
        PrivacyError, match=r"private_metrics: laplace bounds norms of order 1\.0, and metrics are accounted"
    ):
        made("of_order_one")
