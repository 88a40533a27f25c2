from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting import cache, calibration
from fedflair.privacy.accounting.accountants import accounted_round, epsilon, resolve_accountant
from fedflair.privacy.accounting.calibration import calibrate, single_release
from fedflair.privacy.accounting.events import PrivacyEvent


def test_published_noise_multipliers() -> None:
    large = PrivacyEvent("gaussian", 0.0, 5000, "poisson", 5000 / 1e7)
    flair = PrivacyEvent("gaussian", 0.0, 5000, "poisson", 5000 / 41131)
    assert calibrate(large, 2.0, 1e-5) == pytest.approx(0.545453, rel=1e-4)
    assert calibrate(flair, 2.0, 41131**-1.1) == pytest.approx(17.3330, rel=1e-4)
    assert single_release("gaussian", 1.0, 1e-5) == pytest.approx(3.73063, rel=1e-6)
    assert single_release("laplace", 0.5, 0.0) == 2.0


@pytest.mark.parametrize(
    ("event", "target", "delta", "accountant"),
    [
        (PrivacyEvent("gaussian", 0.0, 50, "poisson", 0.05), 1.5, 1e-5, "pld"),
        (PrivacyEvent("gaussian", 0.0, 50, "poisson", 0.05), 1.5, 1e-5, "rdp"),
        (PrivacyEvent("gaussian", 0.0, 210, "poisson", 5e-4), 2.0, 5e-8, "pld"),
        (PrivacyEvent("gaussian", 0.0, 40, "poisson", 0.05, "replace_one"), 0.5, 1e-6, "pld"),
    ],
)
def test_calibration_stays_on_the_safe_side(event: PrivacyEvent, target: float, delta: float, accountant: str) -> None:
    multiplier = calibrate(event, target, delta, accountant)  # type: ignore[arg-type]
    found = epsilon(replace(event, noise_multiplier=multiplier), delta, accountant)  # type: ignore[arg-type]
    assert target * (1 - 2e-5) < found <= target


def test_one_sampled_release_against_the_hockey_stick_integral() -> None:
    q, sigma, delta = 0.1, 0.8, 1e-6
    found = epsilon(PrivacyEvent("gaussian", sigma, 1, "poisson", q), delta)
    x = np.linspace(-15, 20, 2_000_001)
    without = norm.pdf(x, 0, sigma)
    with_client = (1 - q) * without + q * norm.pdf(x, 1, sigma)
    remove = np.trapezoid(np.maximum(with_client - math.exp(found) * without, 0), x)
    add = np.trapezoid(np.maximum(without - math.exp(found) * with_client, 0), x)
    assert max(remove, add) == pytest.approx(delta, rel=1e-3)


def test_composed_gaussian_is_exact() -> None:
    # 100 releases with multiplier 10 are one with multiplier 1; delta(epsilon) of Balle and Wang, theorem 8.
    found = epsilon(PrivacyEvent("gaussian", 10.0, 100), 1e-5)
    delta = norm.cdf(0.5 - found) - math.exp(found) * norm.cdf(-0.5 - found)
    assert delta == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_replacing_a_client_moves_an_unsampled_sum_twice_as_far(accountant: str) -> None:
    add_remove = PrivacyEvent("gaussian", 2.0, 3)
    replace_one = PrivacyEvent("gaussian", 4.0, 3, neighbouring="replace_one")
    assert epsilon(replace_one, 1e-5, accountant) == pytest.approx(epsilon(add_remove, 1e-5, accountant), rel=1e-9)  # type: ignore[arg-type]


def test_replacing_costs_more_than_adding_under_sampling() -> None:
    event = PrivacyEvent("gaussian", 1.0, 20, "poisson", 0.05)
    add_remove = epsilon(event, 1e-5)
    replace_one = epsilon(replace(event, neighbouring="replace_one"), 1e-5)
    assert add_remove < replace_one < 2.5 * add_remove


def test_laplace_alone_composes_to_at_most_the_sum() -> None:
    assert epsilon(PrivacyEvent("laplace", 1 / 0.7, 1), 1e-9) == pytest.approx(0.7, rel=2e-4)
    assert epsilon(PrivacyEvent("laplace", 1 / 0.7, 10), 1e-9) <= 7.0 + 1e-6
    assert 6.0 < epsilon(PrivacyEvent("laplace", 1 / 0.7, 10), 1e-18) <= 7.1
    amplified = math.log1p(0.01 * math.expm1(0.7))
    assert epsilon(PrivacyEvent("laplace", 1 / 0.7, 10, "poisson", 0.01), 1e-10) <= 10 * amplified + 1e-3


def test_huge_epsilons_fit_in_memory_and_stay_below_the_renyi_bound() -> None:
    event = PrivacyEvent("gaussian", 17.3330 * 20 / 5000, 5000, "poisson", 20 / 400)
    found = epsilon(event, 1e-5)
    # About 250 participations of 1/(2 sigma^2) = 104 each.
    assert 250 * 104 < found < 400 * 104 < epsilon(event, 1e-5, "rdp")


def test_no_noise_is_infinite_and_no_round_is_nothing() -> None:
    assert epsilon(PrivacyEvent("gaussian", 0.0, 5, "poisson", 0.1), 1e-5) == math.inf
    assert epsilon(PrivacyEvent("gaussian", 1.0, 0, "poisson", 0.1), 1e-5) == 0.0


def test_rounds_are_not_epochs() -> None:
    # A run of T rounds at rate q is T compositions; taking q * T epochs for T understates the noise.
    rounds = PrivacyEvent("gaussian", 0.0, 1000, "poisson", 0.01)
    epochs = PrivacyEvent("gaussian", 0.0, 10, "poisson", 0.01)
    assert calibrate(rounds, 1.0, 1e-5) > 1.5 * calibrate(epochs, 1.0, 1e-5)
    multiplier = calibrate(epochs, 1.0, 1e-5)
    assert epsilon(replace(rounds, noise_multiplier=multiplier), 1e-5) > 3.0


@pytest.mark.parametrize(
    ("event", "accountant"),
    [
        (PrivacyEvent("laplace", 1.0, 1, "fixed", 0.1, "replace_one"), "pld"),
        (PrivacyEvent("laplace", 1.0, 1, "poisson", 0.1, "replace_one"), "pld"),
        (PrivacyEvent("laplace", 1.0, 1, "poisson", 0.1), "rdp"),
        (PrivacyEvent("gaussian", 1.0, 1, "poisson", 0.1, "replace_one"), "rdp"),
    ],
)
def test_what_no_accountant_can_bound_is_refused(event: PrivacyEvent, accountant: str) -> None:
    with pytest.raises(PrivacyError, match="use "):
        epsilon(event, 1e-5, accountant)  # type: ignore[arg-type]


def test_cache_serves_the_same_inputs_and_survives_damage(own_cache: Path) -> None:
    event = PrivacyEvent("gaussian", 1.0, 10, "poisson", 0.01)
    first = epsilon(event, 1e-5)
    (entry,) = own_cache.rglob("*.json")
    whole = entry.read_text()
    entry.write_text(rewritten(whole, 123.0))
    assert epsilon(event, 1e-5) == 123.0
    with cache.unremembered():
        assert epsilon(event, 1e-5) == first
    for damaged in (
        whole.replace(f'"value": {first}', '"value": 123.0'),
        "",
        whole[:-5],
        "[]",
        whole.replace('"count": 10', '"count": 11'),
        whole.replace(str(first), '"x"'),
    ):
        entry.write_text(damaged)
        assert epsilon(event, 1e-5) == first
        assert entry.read_text() == whole
    assert [path.name for path in own_cache.rglob("*") if path.is_file()] == [entry.name]


def rewritten(entry: str, value: float) -> str:
    """An entry of the cache with another value, as if it had been computed."""
    content = json.loads(entry)
    checksum = cache._checksum(json.dumps(content["question"], sort_keys=True), value)
    return json.dumps({**content, "value": value, "checksum": checksum})


@pytest.mark.parametrize("factor", [1e-3, 0.9, 1.2, 0.0, -1.0])
def test_a_calibration_from_the_cache_is_never_taken_on_trust(own_cache: Path, factor: float) -> None:
    event = PrivacyEvent("gaussian", 0.0, 10, "poisson", 0.01)
    multiplier = calibrate(event, 2.0, 1e-5)
    entries = {json.loads(path.read_text())["question"]["kind"]: path for path in own_cache.rglob("*.json")}
    text = entries["calibrate"].read_text()
    entries["calibrate"].write_text(rewritten(text, multiplier * factor))
    # What the cache says of its cost is of no avail either.
    event_used = replace(event, noise_multiplier=multiplier * factor)
    if factor > 0:
        epsilon(event_used, 1e-5)
        for path in own_cache.rglob("*.json"):
            if json.loads(path.read_text())["question"]["kind"] == "epsilon":
                path.write_text(rewritten(path.read_text(), 2.0))
    assert calibrate(event, 2.0, 1e-5) == multiplier
    assert entries["calibrate"].read_text() == text
    assert epsilon(replace(event, noise_multiplier=multiplier), 1e-5) == pytest.approx(2.0, rel=1e-4)


def test_a_calibration_that_misses_what_was_asked_for_is_refused(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = PrivacyEvent("gaussian", 0.0, 10, "poisson", 0.01)
    for multiplier in (0.3, 30.0, math.nan):
        monkeypatch.setattr(calibration, "_calibrate", lambda *inputs, found=multiplier: found)
        with pytest.raises(PrivacyError, match="ask for another epsilon or delta"):
            calibrate(event, 2.0, 1e-5)


def test_less_than_rdp_proves_with_any_noise_is_refused_before_a_search() -> None:
    event = PrivacyEvent("laplace", 0.0, 10)
    with pytest.raises(PrivacyError, match=r"rdp proves nothing between 0 and 0\.00350.* at a delta of 1e-05, what"):
        calibrate(event, 0.0034, 1e-5, "rdp")
    assert epsilon(replace(event, noise_multiplier=1e4), 1e-5, "rdp") > 0.0034
    # The orders are not asked where the answer is a formula.
    calibrate(replace(event, noise="gaussian"), 0.0034, 1e-5, "rdp")


@pytest.mark.parametrize("delta", [9e-11, 1e-13, 1e-18, 1e-100])
def test_below_what_pld_can_do_the_bound_is_that_of_rdp(delta: float) -> None:
    event = PrivacyEvent("gaussian", 0.0, 100, "poisson", 0.01)
    multiplier = calibrate(event, 2.0, delta)
    found = epsilon(replace(event, noise_multiplier=multiplier), delta)
    assert resolve_accountant(event, "auto", delta) == "rdp"
    with pytest.raises(PrivacyError, match=r"accountant: pld is not exact at a delta of .*; use auto or rdp"):
        resolve_accountant(event, "pld", delta)
    assert 2.0 * (1 - 1e-2) < found <= 2.0
    assert found == epsilon(replace(event, noise_multiplier=multiplier), delta, "rdp")
    # Less delta never takes less noise.
    assert multiplier > calibrate(event, 2.0, 1e-10)


def test_pld_is_exact_down_to_its_smallest_delta() -> None:
    for sigma, count in ((2.0, 3), (20.0, 100), (100.0, 5000)):
        almost = PrivacyEvent("gaussian", sigma, count, "poisson", 1 - 1e-9)
        assert resolve_accountant(almost, "pld", 1e-10) == "pld"
        exact = epsilon(replace(almost, sampling="none", sampling_rate=1.0), 1e-10)
        assert epsilon(almost, 1e-10) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(
    "event",
    [PrivacyEvent("laplace", 1.0, 8, "poisson", 0.1), PrivacyEvent("gaussian", 1.0, 8, "poisson", 0.1, "replace_one")],
)
def test_a_tiny_delta_is_refused_where_rdp_has_no_bound(event: PrivacyEvent) -> None:
    with pytest.raises(PrivacyError, match="raise delta"):
        epsilon(event, 1e-12)


def test_the_exact_answer_for_gaussians_needs_no_other_accountant() -> None:
    event = PrivacyEvent("gaussian", 10.0, 100)
    assert resolve_accountant(event, "pld", 1e-18) == "pld"
    found = epsilon(event, 1e-18)
    delta = norm.cdf(0.5 - found) - math.exp(found + norm.logcdf(-0.5 - found))
    assert delta == pytest.approx(1e-18, rel=1e-3)


@pytest.mark.parametrize("sampling_rate", [0.125, 1.0])
def test_an_epsilon_that_no_float_holds_is_infinite(sampling_rate: float) -> None:
    event = PrivacyEvent("laplace", 1.2e-3, 3, "poisson", sampling_rate)
    assert math.isfinite(epsilon(replace(event, noise_multiplier=1e-2), 5e-8))
    for multiplier in (1.2e-3, 1e-6):
        assert epsilon(replace(event, noise_multiplier=multiplier), 5e-8) == math.inf
        # From the cache too, where infinity is written as null.
        assert epsilon(replace(event, noise_multiplier=multiplier), 5e-8) == math.inf


def test_an_unwritable_cache_is_no_cache(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    assert epsilon(PrivacyEvent("gaussian", 1.0, 10, "poisson", 0.01), 1e-5) > 0


def test_accounted_rounds_are_a_rising_grid_that_ends_with_the_run() -> None:
    grid = [accounted_round(t, 5000) for t in range(1, 5001)]
    assert all(t <= g <= max(t + 1, 1.125 * t + 1) for t, g in enumerate(grid, start=1))
    assert grid == sorted(grid)
    assert grid[-1] == 5000
    assert len(set(grid)) < 70
    assert accounted_round(7, 5) == 7


def test_the_cohorts_rate_would_understate_epsilon() -> None:
    # Accounting ceil(T/b) compositions at q = B/N, as other tools do, claims epsilon 2 where it is 13.7.
    wrong = PrivacyEvent("gaussian", 0.0, 105, "poisson", 5000 / 1e7)
    multiplier = calibrate(wrong, 2.0, 1e-5)
    right = PrivacyEvent("gaussian", multiplier, 105, "poisson", 48 * 5000 / 1e7)
    assert epsilon(right, 1e-5) == pytest.approx(13.7, abs=0.05)


@pytest.mark.parametrize("multiplier", [1e5, 1e7, 1e9, 1e300])
def test_noise_beyond_all_need_costs_nothing(multiplier: float) -> None:
    """Of fixed cohorts too, whose divergences no longer differ from 0 in floating point."""
    event = PrivacyEvent("gaussian", multiplier, 100, "fixed", 0.01, "replace_one")
    assert epsilon(event, 1e-5, "rdp") == 0.0
