from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.mechanisms import LocalMechanism, LocalPrivacyOptions, make_local_mechanism
from fedflair.privacy.mechanisms.noise import noise_key, standard_normal
from fedflair.sampling import SamplerDescription

SEED = 13 << 88


def made(name: str, num_rounds: int = 100, **changes: object) -> LocalMechanism:
    options = LocalPrivacyOptions(name, **changes)  # type: ignore[arg-type]
    return make_local_mechanism(options, SamplerDescription("poisson", 20, 400), num_rounds, SEED)


def test_gaussian_hides_which_of_two_opposite_updates_it_was() -> None:
    mechanism = made("gaussian", epsilon=1.0, delta=1e-5, clipping_bound=3.0)
    std = mechanism.description["noise_std"]
    assert std == pytest.approx(2 * 3.0 * 3.73063, rel=1e-6)
    # Updates at +3 and -3: the hockey-stick divergence of two Gaussians 6 apart is delta, by Balle and Wang's formula.
    distance = 6.0 / std
    delta = norm.cdf(distance / 2 - 1 / distance) - math.e * norm.cdf(-distance / 2 - 1 / distance)
    assert delta == pytest.approx(1e-5, rel=1e-6)


def test_updates_are_clipped_and_noised_in_place() -> None:
    mechanism = made("gaussian", clipping_bound=3.0)
    update = torch.full((400_000,), 1.0)
    result = mechanism.privatise(update, 2, "59769174@N00")
    assert result.clipped and result.norm == pytest.approx(math.sqrt(400_000))
    noise = update.double() - 3.0 / math.sqrt(400_000)
    assert float(noise.std()) == pytest.approx(mechanism.description["noise_std"], rel=0.01)


def test_each_client_and_round_has_noise_of_its_own() -> None:
    mechanism = made("gaussian")
    drawn = []
    for round_, client in ((0, "a"), (1, "a"), (0, "b"), (0, "")):
        update = torch.zeros(50_000)
        mechanism.privatise(update, round_, client)
        drawn.append(update / mechanism.description["noise_std"])
    drawn.append(standard_normal(noise_key(SEED, 0, ""), 50_000).float())
    correlations = torch.corrcoef(torch.stack(drawn)) - torch.eye(5)
    assert float(correlations.abs().max()) < 0.03
    again = torch.zeros(50_000)
    mechanism.privatise(again, 1, "a")
    assert torch.equal(again / mechanism.description["noise_std"], drawn[1])


def test_laplace_is_scaled_to_twice_the_l1_bound() -> None:
    mechanism = made("laplace", epsilon=0.5, clipping_bound=3.0)
    update = torch.zeros(400_000)
    mechanism.privatise(update, 0, "a")
    assert float(update.abs().mean()) == pytest.approx(2 * 3.0 / 0.5, rel=0.01)
    assert mechanism.description["order"] == 1.0


def test_it_says_what_many_updates_compose_to() -> None:
    facts = made("gaussian", epsilon=1.0).description
    assert facts["epsilon_per_release"] == 1.0
    assert facts["expected_participations"] == 5
    multiplier = facts["noise_multiplier"]
    assert facts["epsilon"] == epsilon(PrivacyEvent("gaussian", multiplier, 100, neighbouring="replace_one"), 1e-5)
    assert 2.0 < facts["epsilon_expected"] < 3.0 < 10 < facts["epsilon"]
    assert "asked 5 times (the expected number)" in facts["words"]


@pytest.mark.parametrize("name", ["none", "norm_clipping_only", "gaussian", "laplace"])
def test_an_update_that_is_not_finite_counts_as_zero(name: str) -> None:
    mechanism = made(name)
    update = torch.tensor([1.0, math.nan, 2.0])
    assert mechanism.privatise(update, 0, "a").rejected
    assert torch.isfinite(update).all()
    assert bool((update != 0).any()) == (name in ("gaussian", "laplace"))


def test_norm_clipping_only() -> None:
    update = torch.tensor([3.0, -4.0])
    made("norm_clipping_only", clipping_bound=2.0, order=math.inf).privatise(update, 0, "a")
    assert update.tolist() == pytest.approx([1.5, -2.0], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gausian", {}, "local_privacy_mechanism: 'gausian' is unknown; choose one of none, "),
        ("gaussian", {"epsilon": 0.0}, "local_epsilon"),
        ("gaussian", {"delta": 0.0}, "local_delta"),
        ("gaussian", {"order": 1.0}, "local_order: gaussian protects norms of order 2"),
        ("laplace", {"clipping_bound": math.inf}, "local_privacy_clipping_bound"),
        ("norm_clipping_only", {"order": 0.0}, "local_order"),
        ("norm_clipping_only", {"clipping_bound": 0.0}, "local_privacy_clipping_bound"),
    ],
)
def test_impossible_options_are_named(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(name, **changes)  # type: ignore[arg-type]


def test_a_delta_that_gives_a_user_away_is_refused() -> None:
    """0.9 was accepted."""
    sampler = SamplerDescription("poisson", 20, 400)
    with pytest.raises(PrivacyError, match=r"local_delta: 0\.9 is not below 1/400 .*lower it"):
        make_local_mechanism(LocalPrivacyOptions("gaussian", delta=0.9), sampler, 5, 1)
    allowed = LocalPrivacyOptions("gaussian", delta=0.9, allow_large_delta=True)
    words = make_local_mechanism(allowed, sampler, 5, 1).description["words"]
    assert "Delta is not below 1/400: a weak promise" in words
    seeded = LocalPrivacyOptions("gaussian", delta=1e-5, noise_from_seed=True)
    words = make_local_mechanism(seeded, sampler, 5, 1).description["words"]
    assert words.startswith("The noise is drawn from the run's seed")
    assert "Epsilon of this run: infinite." in words
