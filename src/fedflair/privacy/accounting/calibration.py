"""From an epsilon to the noise that costs as much, for every accountant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.accountants import (
    TOLERANCE,
    coins_of,
    compute_epsilon,
    epsilon_anew,
    quiet,
    renyi_orders,
    resolve_accountant,
    rough_epsilon,
    spaced_epsilon,
)
from fedflair.privacy.accounting.cache import remembered
from fedflair.privacy.accounting.events import (
    Accountant,
    AskedAccountant,
    Neighbouring,
    Noise,
    PrivacyEvent,
    in_turns,
    is_sampled,
    neighbour_distance,
    without_sampling,
)
from fedflair.privacy.accounting.monte_carlo import estimated_epsilon
from fedflair.privacy.accounting.roots import root_of

# Relative errors of epsilon: of a first step of calibration, and of its last step.
_COARSE_TOLERANCE = 1e-3
_CALIBRATION_TOLERANCE = 5e-6
# How much less than what was asked for a calibration may cost: orders of Renyi divergence leave gaps.
_GAP = 1e-2
# Of noise under b-min-separation: how often a proof is tried, of noises that lie this share apart, on either side of
# the first at most so many: what is tried after a proof's draws were looked at is then one of 4,000 all the same.
_PROOFS = 12
_NOISE_STEP = 5e-4
_MOST_STEPS = 1999


def calibrate(event: PrivacyEvent, epsilon: float, delta: float, accountant: AskedAccountant = "auto") -> float:
    """The least noise multiplier (to 1e-4 relative) with which ``event`` costs at most ``epsilon`` at ``delta``.

    ``event.noise_multiplier`` is ignored. What it then costs is computed anew from what is returned, wherever that came
    from. Raises PrivacyError where no accountant can bound the event, or where the cost is not what was asked for.
    """
    chosen = resolve_accountant(event, accountant, delta)
    inputs = {**event.as_dict(), "noise_multiplier": None, "epsilon": epsilon, "delta": delta, "accountant": chosen}
    found = math.nan
    for anew in (False, True):
        multiplier = remembered("calibrate", inputs, partial(_calibrate, event, epsilon, delta, chosen), anew=anew)
        if multiplier > 0 and math.isfinite(multiplier):
            found = epsilon_anew(replace(event, noise_multiplier=multiplier), delta, chosen)
            if epsilon * (1 - _GAP) <= found <= epsilon:
                return multiplier
    raise PrivacyError(
        f"epsilon: the noise calibrated for {epsilon} at delta {delta:g} costs {found:.6g} by {chosen}; "
        "ask for another epsilon or delta"
    )


def single_release(noise: Noise, epsilon: float, delta: float, neighbouring: Neighbouring = "zero_out") -> float:
    """The noise multiplier with which one release, of everybody, is (epsilon, delta)-private.

    Gaussian: the analytic mechanism of Balle and Wang (2018, arXiv:1805.06530). Laplace: 1 / epsilon, with delta 0.
    """
    distance = neighbour_distance(neighbouring)
    if noise == "laplace":
        return distance / epsilon
    import dp_accounting

    return distance * float(dp_accounting.get_sigma_gaussian(epsilon, delta))


def quick_noise_multiplier(event: PrivacyEvent, target: float, delta: float) -> float:
    """Within a few tens of percent of ``calibrate``, in well under a second: for comparing, not for promising."""
    return _quick(in_turns(event) if event.column else event, target, delta)


@lru_cache(maxsize=64)
def _quick(event: PrivacyEvent, target: float, delta: float) -> float:
    if event.noise == "laplace":
        return 2 * neighbour_distance(event.neighbouring) * max(event.sampling_rate * event.count, 1.0) / target
    low, high = 1e-2, 1e4
    with quiet():
        while high / low > 1.1:
            middle = math.sqrt(low * high)
            if rough_epsilon(replace(event, noise_multiplier=middle), delta) > target:
                low = middle
            else:
                high = middle
    return high


def _calibrate(event: PrivacyEvent, target: float, delta: float, accountant: Accountant) -> float:
    if event.sampling == "b_min_separation":
        return _calibrate_spaced(event, target, delta, accountant)
    # Aiming a little below the target puts the answer on the safe side of it.
    aim = target * (1 - _CALIBRATION_TOLERANCE)
    if accountant == "rdp" and (is_sampled(event) or event.noise != "gaussian"):
        _refuse_below_rdp(target, delta, renyi_orders(event))

    def gap(log_multiplier: float, tolerance: float = TOLERANCE, rough: float = 0.0) -> float:
        noisy = replace(event, noise_multiplier=math.exp(log_multiplier))
        return math.log(max(compute_epsilon(noisy, delta, accountant, tolerance, rough), 1e-12) / aim)

    start = math.log(quick_noise_multiplier(event, target, delta))
    if accountant == "pld":
        coarse = partial(gap, tolerance=_COARSE_TOLERANCE, rough=target)
        start = root_of(coarse, start, step=0.1, tolerance=_COARSE_TOLERANCE)
    # Discretised as ``epsilon`` does it, so that what it then finds is at most what was asked for.
    return math.exp(root_of(gap, start, step=1e-3, tolerance=_CALIBRATION_TOLERANCE))


def _calibrate_spaced(event: PrivacyEvent, target: float, delta: float, accountant: Accountant) -> float:
    """The noise is looked for with estimates, and then moved until a proof of it is a little below ``target``."""

    def found(log_multiplier: float, *, proof: bool) -> float:
        noisy = replace(event, noise_multiplier=math.exp(log_multiplier))
        if proof or accountant == "rdp":
            return spaced_epsilon(noisy, delta, accountant)
        unsampled = compute_epsilon(without_sampling(noisy), delta, "pld")
        return min(estimated_epsilon(coins_of(noisy), delta), unsampled)

    aim = target * (1 - _GAP / 3)
    start = math.log(quick_noise_multiplier(event, target, delta))
    logarithm = root_of(
        lambda x: math.log(max(found(x, proof=False), 1e-12) / aim), start, step=0.05, tolerance=_COARSE_TOLERANCE
    )
    steps, moved, gap, slope = 0, 0, 0.0, 2.0
    # Too little noise, and too much, as far as is known.
    low, high = -_MOST_STEPS - 1, _MOST_STEPS + 1
    for _ in range(_PROOFS):
        proven, before = found(logarithm + steps * _NOISE_STEP, proof=True), gap
        if target * (1 - _GAP) <= proven <= target:
            return math.exp(logarithm + steps * _NOISE_STEP)
        gap = math.log(min(max(proven / aim, 0.5), 2.0))
        if moved:
            # Epsilon falls as the noise grows, or as its square, and near 0 faster.
            slope = min(max((before - gap) / (moved * _NOISE_STEP), 1.0), 20.0)
        low, high = (steps, high) if gap > 0 else (low, steps)
        aimed = steps + (round(gap / slope / _NOISE_STEP) or (1 if gap > 0 else -1))
        following = aimed if low < aimed < high else (low + high) // 2
        steps, moved = following, following - steps
    raise PrivacyError(
        f"epsilon: no proof of {target:g} at delta {delta:g} settles under b_min_separation; use --accountant rdp, or "
        "--cohort_sampling poisson"
    )


def _refuse_below_rdp(target: float, delta: float, orders: Sequence[float]) -> None:
    """PrivacyError for an epsilon that rdp jumps over: down to what a divergence of 0 at these orders proves, or to 0.

    Canonne, Kamath and Steinke (2020, arXiv:2004.00010), proposition 12.
    """
    least = min(math.log1p(-1 / order) - math.log(delta * order) / (order - 1) for order in orders)
    if target < least:
        raise PrivacyError(
            f"epsilon: rdp proves nothing between 0 and {least:.6g} at a delta of {delta:g}, whatever the noise; "
            "ask for another epsilon or delta"
        )
