"""Cohorts that rotate: nothing gained from sampling, one Gaussian release of all that a client contributes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.mechanisms import CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.noise import binding, noise_key, standard_normal
from fedflair.runs.tensors import load_tensors, save_tensors
from fedflair.sampling import SamplerDescription

# Everybody is back after 50 rounds.
SAMPLER = SamplerDescription("rotating", 20, 1000)
ROUNDS, SEED = 120, 11 << 77
NAMES = (
    "banded_matrix_factorization",
    "banded_inverse_square_root",
    "buffered_linear_toeplitz",
    "tree_aggregation",
)


def made(name: str, num_rounds: int = ROUNDS, **changes: object) -> Mechanism:
    options = {"mechanism": name, "delta": 1e-5, "num_buffers": 3, **changes}
    return make_mechanism(PrivacyOptions(**options), SAMPLER, num_rounds, SEED)  # type: ignore[arg-type]


def released(mechanism: Mechanism, num_rounds: int, size: int) -> torch.Tensor:
    """What each round of zeros becomes: float32 [num_rounds, size]."""
    state, rows = mechanism.init(size), []
    for round_ in range(num_rounds):
        total, state = mechanism.add_noise(torch.zeros(size), CohortStats(20, 0, 0), round_, state)
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_run_is_one_release_and_its_noise_is_that_of_the_strategy(name: str) -> None:
    mechanism = made(name)
    facts, strategy = mechanism.description, mechanism.strategy
    assert strategy is not None
    dense = strategy(mechanism.init(0), ROUNDS)
    # Dense, and by what a client of rounds 0, 50 and 100 really adds up to.
    counts = float(np.linalg.norm(dense[:, [0, 50, 100]].sum(axis=1)))
    event = mechanism.event(ROUNDS)
    assert event is not None and event == mechanism.run_event(ROUNDS)
    assert (event.count, event.sampling, event.neighbouring) == (1, "none", "zero_out")
    assert event.noise_multiplier <= facts["noise_multiplier"] / counts * (1 + 1e-9)
    if name != "tree_aggregation":
        assert event.noise_multiplier == pytest.approx(facts["noise_multiplier"] / counts, rel=0.01)
    assert facts["epsilon"] == epsilon(event, 1e-5) == pytest.approx(2.0, rel=1e-4)
    keys = [noise_key(SEED, t, binding(SEED, t, torch.zeros(200))) for t in range(ROUNDS)]
    fresh = torch.stack([standard_normal(key, 200) for key in keys]).numpy()
    noise = released(mechanism, ROUNDS, 200).double().numpy() / (facts["noise_multiplier"] * 0.1)
    assert dense @ noise == pytest.approx(fresh, abs=1e-4)
    stated = [mechanism.noise_std(mechanism.init(0), t) for t in range(ROUNDS)]
    inverse = np.linalg.inv(dense)
    assert stated == pytest.approx(np.linalg.norm(inverse, axis=1) * facts["noise_multiplier"] * 0.1)
    prefix = np.linalg.norm(np.cumsum(inverse, axis=0)) / math.sqrt(ROUNDS)
    assert facts["prefix_error"] == pytest.approx(prefix * facts["noise_multiplier"])
    (kept,) = (tensor for tensor in mechanism.init(1).values() if tensor.ndim == 2)
    assert (facts["min_separation"], facts["run_min_separation"], facts["num_buffers"]) == (50, 50, len(kept))
    assert "Who is in a cohort is no secret: nothing is gained from sampling." in facts["words"]
    assert "No user is in two cohorts within 50 rounds." in facts["words"]


@pytest.mark.parametrize("name", NAMES)
def test_epsilon_grows_with_the_rounds_and_ends_at_the_budget(name: str) -> None:
    mechanism = made(name)
    multipliers = [event.noise_multiplier for t in (1, 50, 51, 100, 101, 120) if (event := mechanism.event(t))]
    assert multipliers == sorted(multipliers, reverse=True)
    assert multipliers[0] > multipliers[1] * 0.999 > multipliers[2] * 1.1


def test_bands_within_the_separation_count_once_a_participation() -> None:
    """Sensitivity sqrt(ceil(T / b)), and without any bands the Gaussian mechanism's composition."""
    banded, gaussian = made(NAMES[0]), made("gaussian_moments_accountant", num_buffers=None)
    event = banded.event(ROUNDS)
    assert event is not None
    assert event.noise_multiplier == pytest.approx(banded.description["noise_multiplier"] / math.sqrt(3), rel=1e-12)
    z = gaussian.description["noise_multiplier"]
    assert gaussian.event(ROUNDS) == PrivacyEvent("gaussian", z, 3)
    assert gaussian.event(101) == PrivacyEvent("gaussian", z, 3) != gaussian.event(100)
    assert z == pytest.approx(banded.description["noise_multiplier"], rel=1e-3)
    one = made(NAMES[0], num_buffers=1)
    assert one.description["prefix_error"] == pytest.approx(z * math.sqrt((ROUNDS + 1) / 2), rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_resuming_from_a_checkpoint_continues_the_noise_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole, mechanism = released(made(name), 20, 300), made(name)
    state = mechanism.init(300)
    for round_ in range(11):
        _, state = mechanism.add_noise(torch.zeros(300), CohortStats(20, 0, 0), round_, state)
    save_tensors(tmp_path / "state.safetensors", dict(state), {})
    resumed, state = made(name), load_tensors(tmp_path / "state.safetensors")[0]
    for round_ in range(11, 20):
        total, state = resumed.add_noise(torch.zeros(300), CohortStats(20, 0, 0), round_, state)
        assert torch.equal(total, whole[round_])


def test_a_deployment_has_its_own_separation_and_the_run_its_own_epsilon() -> None:
    mechanism = made(NAMES[2], noise_cohort_size=100, population=20_000)
    facts, event, run = mechanism.description, mechanism.event(ROUNDS), mechanism.run_event(ROUNDS)
    assert event is not None and run is not None
    assert (facts["min_separation"], facts["run_min_separation"]) == (200, 50)
    # In 120 rounds a user of the deployment is asked once: a single column, in which the run's own users have three.
    assert facts["noise_multiplier"] / event.noise_multiplier < 1.8
    assert run.noise_multiplier < event.noise_multiplier / 5 / 1.5
    assert facts["run_epsilon"] > 5 * facts["epsilon"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"min_separation": 51},
            PrivacyError,
            "min_separation: 51 is more than rotating cohorts of 20 of 1,000 keep",
        ),
        ({"order": 1.0}, ConfigError, "central_order: buffered_linear_toeplitz protects norms of order 2"),
        ({"adaptive_clipping": True}, ConfigError, "adaptive_clipping: buffered_linear_toeplitz has none"),
    ],
)
def test_what_cannot_be_promised_is_named(changes: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made("buffered_linear_toeplitz", **changes)


def test_drawn_cohorts_are_refused_where_nothing_accounts_for_them() -> None:
    for name in NAMES[1:]:
        for kind in ("poisson", "fixed"):
            with pytest.raises(ConfigError, match=f"cohort_sampling: {name} is accounted for rotating cohorts only"):
                make_mechanism(PrivacyOptions(name), SamplerDescription(kind, 20, 1000), 30, SEED)  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match="num_buffers: 51 bands reach beyond min_separation 50"):
        made(NAMES[0], num_buffers=51)


def test_sizes_that_nobody_asked_for_are_those_of_the_least_error() -> None:
    for name, others in (
        ("banded_inverse_square_root", lambda size: (size // 2, size * 2)),
        ("tree_aggregation", lambda size: (size - 1, size + 1)),
    ):
        found = made(name, num_buffers=None).description
        for other in others(found["num_buffers"]):
            assert found["prefix_error"] < made(name, num_buffers=other).description["prefix_error"]
    assert made(NAMES[0], num_buffers=None).description["num_buffers"] == 50
