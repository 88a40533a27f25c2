"""Local mechanisms: noise on each client's own update, so that not even the server learns it.

What one update may be mistaken for is any other update within the bound, at a distance of up to twice the bound: the
noise is scaled to that (``replace_one``), not to the bound.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.calibration import single_release
from fedflair.privacy.accounting.events import Noise, PrivacyEvent
from fedflair.privacy.accounting.shown import SEEDED, finite, show
from fedflair.privacy.contract import ClipResult, LocalMechanism, LocalPrivacyOptions
from fedflair.privacy.mechanisms.additive import ORDERS, check_order
from fedflair.privacy.mechanisms.clipping import clip_update, norm_order
from fedflair.privacy.mechanisms.deployment import check_delta, require_positive
from fedflair.privacy.mechanisms.noise import add_noise, binding, noise_key
from fedflair.sampling import SamplerDescription


def local_none(
    options: LocalPrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> LocalMechanism:
    """Leaves updates alone; one that is not finite counts as zero."""
    return LocalMechanism("none", lambda update, round_, client: clip_update(update, math.inf), {})


def local_norm_clipping_only(
    options: LocalPrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> LocalMechanism:
    """Clipping in any order's norm, no noise."""
    require_positive("local_privacy_clipping_bound", options.clipping_bound)
    bound, order = options.clipping_bound, norm_order(options.order, "local_order")
    description = {
        "mechanism": "norm_clipping_only",
        "epsilon": None,
        "delta": None,
        "clipping_bound": bound,
        "order": order if math.isfinite(order) else "inf",
        "words": f"each client clips its update to {order:g}-norm {bound:g} and adds no noise: not private",
    }
    return LocalMechanism(
        "norm_clipping_only", lambda update, round_, client: clip_update(update, bound, order), description
    )


def local_gaussian(
    options: LocalPrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> LocalMechanism:
    """One update is (epsilon, delta)-private towards the server."""
    return _noisy("gaussian", options, sampler, num_rounds, noise_seed)


def local_laplace(
    options: LocalPrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> LocalMechanism:
    """One update is (epsilon, 0)-private towards the server; clipping is in L1."""
    return _noisy("laplace", options, sampler, num_rounds, noise_seed)


def _noisy(
    noise: Literal["gaussian", "laplace"],
    options: LocalPrivacyOptions,
    sampler: SamplerDescription,
    num_rounds: int,
    noise_seed: int,
) -> LocalMechanism:
    require_positive("local_epsilon", options.epsilon)
    require_positive("local_privacy_clipping_bound", options.clipping_bound)
    check_delta("local_delta", options.delta, sampler.population, "the run's users", allow=options.allow_large_delta)
    order = ORDERS[noise]
    check_order(options, order)
    multiplier = single_release(noise, options.epsilon, options.delta, "replace_one")
    scale = multiplier * options.clipping_bound

    def privatise(update: torch.Tensor, round_: int, client: str) -> ClipResult:
        result = clip_update(update, options.clipping_bound, order)
        key = noise_key(noise_seed, round_, binding(noise_seed, round_, update), client)
        add_noise(update, noise, scale, key)
        return result

    return LocalMechanism(noise, privatise, _describe(noise, options, multiplier, sampler, num_rounds))


def _describe(
    noise: Noise, options: LocalPrivacyOptions, multiplier: float, sampler: SamplerDescription, num_rounds: int
) -> dict[str, Any]:
    # The server knows whom it asked, so sampling hides nobody; a client may be asked every round.
    most = epsilon(PrivacyEvent(noise, multiplier, num_rounds, neighbouring="replace_one"), options.delta)
    expected = max(1, round(num_rounds * sampler.sampling_rate))
    usual = epsilon(PrivacyEvent(noise, multiplier, expected, neighbouring="replace_one"), options.delta)
    words = (
        f"Local privacy: epsilon {show(options.epsilon)} at delta {options.delta:g} towards the server for one update; "
        f"epsilon {show(usual)} for a client asked {expected:,} times (the expected number), {show(most)} for one "
        f"asked in all {num_rounds:,} rounds."
    )
    if options.delta >= 1 / sampler.population:
        words += f" Delta is not below 1/{sampler.population:,}: a weak promise, for comparison only."
    if options.noise_from_seed:
        words = f"{SEEDED} Epsilon of this run: infinite. With noise that nobody knows: {words}"
    return {
        "mechanism": noise,
        "epsilon": finite(most),
        "epsilon_per_release": options.epsilon,
        "epsilon_expected": finite(usual),
        "expected_participations": expected,
        "delta": options.delta,
        "noise_multiplier": multiplier,
        "noise_std": multiplier * options.clipping_bound * (math.sqrt(2) if noise == "laplace" else 1.0),
        "clipping_bound": options.clipping_bound,
        "order": ORDERS[noise],
        "neighbouring": "replace_one",
        "rounds": num_rounds,
        "noise_from_seed": options.noise_from_seed,
        "words": words,
    }
