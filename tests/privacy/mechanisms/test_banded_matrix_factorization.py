from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.mechanisms import CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.banded_matrix_factorization import choose_bands, predicted_error
from fedflair.privacy.mechanisms.deployment import make_deployment
from fedflair.privacy.mechanisms.noise import binding, noise_key, standard_normal
from fedflair.runs.tensors import load_tensors, save_tensors
from fedflair.sampling import SamplerDescription

SAMPLER = SamplerDescription("poisson", 20, 1000)
COHORT = CohortStats(20, 0, 0)
SEED = 11 << 77


def made(num_rounds: int = 30, **changes: object) -> Mechanism:
    options = {"mechanism": "banded_matrix_factorization", "delta": 1e-5, "min_separation": 8, **changes}
    return make_mechanism(PrivacyOptions(**options), SAMPLER, num_rounds, SEED)  # type: ignore[arg-type]


def noises(mechanism: Mechanism, num_rounds: int, size: int) -> torch.Tensor:
    """The noise of each round over the standard deviation of the fresh noise in it: float64 [num_rounds, size]."""
    state, rows = mechanism.init(size), []
    fresh = mechanism.description["noise_multiplier"] * 0.1
    for round_ in range(num_rounds):
        total, state = mechanism.add_noise(torch.zeros(size), COHORT, round_, state)
        rows.append(total.double() / fresh)
    return torch.stack(rows)


def key_of(round_: int) -> int:
    """Of the noise that a round of zeros gets."""
    return noise_key(SEED, round_, binding(SEED, round_, torch.zeros(500)))


def test_the_strategy_undoes_the_correlation() -> None:
    mechanism = made()
    correlated = noises(mechanism, 30, 500).numpy()
    coefficients = mechanism.init(1)["coefficients"].numpy()
    column = np.zeros(30)
    column[:8] = coefficients
    strategy = toeplitz(column, np.zeros(30))
    independent = torch.stack([standard_normal(key_of(t), 500) for t in range(30)]).numpy()
    # The released noise is a multiple of its grid, 2^-20 of the standard deviation.
    assert strategy @ correlated == pytest.approx(independent, abs=1e-5)


def test_what_is_stated_is_the_noise_that_each_round_adds() -> None:
    mechanism = made()
    state = mechanism.init(20_000)
    stated = [mechanism.noise_std(state, round_) for round_ in range(30)]
    added = []
    for round_ in range(30):
        total, state = mechanism.add_noise(torch.zeros(20_000), COHORT, round_, state)
        added.append(float(total.double().square().mean().sqrt()))
    assert stated == pytest.approx(added, rel=0.03)
    fresh = mechanism.description["noise_multiplier"] * 0.1
    assert mechanism.description["noise_std"] == stated[0] > 1.1 * fresh
    assert stated == sorted(stated)


def test_the_running_sum_has_the_predicted_error() -> None:
    mechanism = made()
    sums = noises(mechanism, 30, 20_000).cumsum(0)
    predicted = mechanism.description["prefix_error"] / mechanism.description["noise_multiplier"]
    assert float((sums**2).mean().sqrt()) == pytest.approx(predicted, rel=0.02)
    # Independent noise would have a root mean square of sqrt((T + 1) / 2) = 3.94.
    assert predicted < 2.2


def test_epsilon_is_that_of_sampled_groups() -> None:
    facts = made(30).description
    event = PrivacyEvent("gaussian", facts["noise_multiplier"], 4, "poisson", 8 * 20 / 1000)
    assert made(30).event(30) == event
    assert facts["epsilon"] == epsilon(event, 1e-5) == pytest.approx(2.0, rel=1e-4)
    assert facts["min_separation"] == 8
    assert "No user is in two cohorts within 8 rounds." in facts["words"]
    wrong = PrivacyEvent("gaussian", facts["noise_multiplier"], 4, "poisson", 20 / 1000)
    assert epsilon(wrong, 1e-5) < 1.0


def test_one_band_is_the_gaussian_mechanism() -> None:
    banded = made(min_separation=1)
    gaussian = make_mechanism(PrivacyOptions("gaussian_moments_accountant"), SAMPLER, 30, SEED)
    assert banded.description["noise_multiplier"] == gaussian.description["noise_multiplier"]
    here, _ = banded.add_noise(torch.zeros(100), COHORT, 3, banded.init(100))
    there, _ = gaussian.add_noise(torch.zeros(100), COHORT, 3, {})
    assert torch.equal(here, there)


def test_resuming_from_a_checkpoint_continues_the_noise_bit_for_bit(tmp_path: Path) -> None:
    whole = noises(made(), 20, 300)
    mechanism = made()
    state = mechanism.init(300)
    for round_ in range(11):
        _, state = mechanism.add_noise(torch.zeros(300), COHORT, round_, state)
    save_tensors(tmp_path / "state.safetensors", dict(state), {})
    resumed, state = made(), load_tensors(tmp_path / "state.safetensors")[0]
    for round_ in range(11, 20):
        total, state = resumed.add_noise(torch.zeros(300), COHORT, round_, state)
        assert torch.equal(total.double() / (resumed.description["noise_multiplier"] * 0.1), whole[round_])


def test_doing_a_round_again_from_its_own_result_gives_the_same_noise() -> None:
    mechanism = made()
    state = mechanism.init(300)
    for round_ in range(11):
        first, state = mechanism.add_noise(torch.zeros(300), COHORT, round_, state)
    again, _ = mechanism.add_noise(torch.zeros(300), COHORT, 10, state)
    assert torch.equal(first, again)


def test_simulated_cohorts_scale_the_noise_and_have_two_epsilons() -> None:
    mechanism = made(noise_cohort_size=100)
    facts = mechanism.description
    first = float(mechanism.init(1)["coefficients"][0])
    assert facts["noise_std"] == pytest.approx(facts["noise_multiplier"] * 0.1 * 20 / 100 / first)
    assert mechanism.event(30) == PrivacyEvent("gaussian", facts["noise_multiplier"], 4, "poisson", 0.8)
    run = mechanism.run_event(30)
    assert run is not None
    assert (run.count, run.sampling_rate) == (4, 0.16)
    assert facts["run_epsilon"] > facts["epsilon"]


def test_bands_are_chosen_by_predicted_error() -> None:
    deployment = make_deployment(PrivacyOptions("banded_matrix_factorization"), SAMPLER, 100)
    chosen = choose_bands(deployment)
    assert made(100, min_separation=None).description["min_separation"] == chosen
    assert 1 < chosen < 32
    error = predicted_error(deployment, chosen)
    assert error < min(predicted_error(deployment, bands) for bands in (1, chosen // 2, chosen * 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_separation": 51}, "min_separation: 51 groups are too small for cohorts of 20 of 1000; at most 50 fits"),
        ({"min_separation": 11, "noise_cohort_size": 100}, "11 groups are too small for cohorts of 100 of 1000"),
        # The deployment has room for these groups, but the run's own clients do not.
        ({"min_separation": 60, "population": 2000, "delta": 1e-6}, "at most 50 fits"),
    ],
)
def test_groups_too_small_for_a_cohort_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        made(**changes)  # type: ignore[arg-type]


def test_impossible_options_are_named() -> None:
    with pytest.raises(ConfigError, match="min_separation: 0"):
        made(min_separation=0)
    for order in (1.0, 3.0, float("inf")):
        with pytest.raises(ConfigError, match="central_order: banded_matrix_factorization protects norms of order 2"):
            made(order=order)
    with pytest.raises(ConfigError, match="adaptive_clipping"):
        made(adaptive_clipping=True)
    fixed = SamplerDescription("fixed", 20, 1000)
    with pytest.raises(ConfigError, match="cohort_sampling"):
        make_mechanism(PrivacyOptions("banded_matrix_factorization"), fixed, 30, SEED)
