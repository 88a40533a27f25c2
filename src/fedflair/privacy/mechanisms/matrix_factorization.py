"""Mechanisms of correlated noise: a strategy (``correlated/``), the noise drawn for it, and what it costs.

With cohorts that rotate nothing is gained from sampling, and a run is one Gaussian release: of all of a user's
contributions together, which move C X by the strategy's sensitivity at most, in noise of the same scale everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from fedflair.errors import ConfigError
from fedflair.privacy.accounting.calibration import calibrate
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.contract import BINDING, CohortStats, Mechanism, MechanismState, PrivacyOptions, encoded
from fedflair.privacy.mechanisms.additive import check_order, no_adaptive_clipping
from fedflair.privacy.mechanisms.clipping import clip_update, exact_grid
from fedflair.privacy.mechanisms.correlated.buffered_linear_toeplitz import buffered_linear_toeplitz as blt
from fedflair.privacy.mechanisms.correlated.inverse_square_root import banded_inverse_square_root as inverse_root
from fedflair.privacy.mechanisms.correlated.strategy import Strategy
from fedflair.privacy.mechanisms.correlated.tree import tree_aggregation as tree
from fedflair.privacy.mechanisms.deployment import Deployment, describe, make_deployment
from fedflair.privacy.mechanisms.noise import binding, noise_key, on_grid, standard_normal
from fedflair.sampling import SamplerDescription

Events = Callable[[int], PrivacyEvent]

# Vectors as long as the model that are kept without having been asked for.
MOST_BUFFERS = 64


def buffered_linear_toeplitz(
    options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> Mechanism:
    """All rounds together are (epsilon, delta)-private; the state is a few vectors, however many the rounds."""
    return _rotating(options, sampler, num_rounds, noise_seed, blt_strategy)


def banded_inverse_square_root(
    options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> Mechanism:
    """All rounds together are (epsilon, delta)-private; the state is the last p rounds' fresh noises."""
    return _rotating(options, sampler, num_rounds, noise_seed, inverse_root_strategy)


def tree_aggregation(
    options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> Mechanism:
    """All rounds together are (epsilon, delta)-private; the state is a noise for each level of the tree."""
    return _rotating(options, sampler, num_rounds, noise_seed, tree_strategy)


def blt_strategy(deployment: Deployment) -> Strategy:
    return blt(deployment.num_rounds, deployment.options.num_buffers, deployment.min_separation)


def inverse_root_strategy(deployment: Deployment) -> Strategy:
    """Of a power of 2 of bands, up to 64, the one with the least error, if no number was asked for."""
    rounds = deployment.num_rounds
    bands = [1 << k for k in range(1, min(MOST_BUFFERS, rounds).bit_length())] or [1]
    return _asked_or_best(deployment, bands, partial(inverse_root, rounds))


def tree_strategy(deployment: Deployment) -> Strategy:
    """With restarts after the number of rounds that has the least error, if no number of levels was asked for."""
    rounds = deployment.num_rounds
    return _asked_or_best(deployment, range(1, rounds.bit_length() + 1), partial(tree, rounds))


def _asked_or_best(deployment: Deployment, sizes: range | list[int], make: Callable[[int], Strategy]) -> Strategy:
    if deployment.options.num_buffers is not None:
        return make(deployment.options.num_buffers)
    return min(map(make, sizes), key=lambda strategy: unamplified_error(strategy, deployment))


def unamplified_error(strategy: Strategy, deployment: Deployment) -> float:
    """Root mean square error of running sums, over the noise that one release of one contribution would need."""
    return strategy.mean_error * strategy.sensitivity(deployment.num_rounds, deployment.min_separation)


def _rotating(
    options: PrivacyOptions,
    sampler: SamplerDescription,
    num_rounds: int,
    noise_seed: int,
    strategy_of: Callable[[Deployment], Strategy],
) -> Mechanism:
    no_adaptive_clipping(options)
    check_order(options, 2.0)
    if sampler.kind != "rotating":
        raise ConfigError(f"cohort_sampling: {options.mechanism} is accounted for rotating cohorts only; use rotating")
    deployment = make_deployment(options, sampler, num_rounds)
    return unamplified(deployment, strategy_of(deployment), noise_seed)


def unamplified(deployment: Deployment, strategy: Strategy, noise_seed: int) -> Mechanism:
    """The mechanism of a strategy for cohorts that rotate."""
    options, whole = deployment.options, strategy.sensitivity
    one = calibrate(_release(0.0), options.epsilon, options.delta, options.accountant)
    multiplier = one * whole(deployment.num_rounds, deployment.min_separation)

    def event(rounds: int) -> PrivacyEvent:
        return _release(multiplier / whole(max(rounds, 1), deployment.min_separation))

    def run_event(rounds: int) -> PrivacyEvent:
        return _release(multiplier * deployment.noise_scale / whole(max(rounds, 1), deployment.run_min_separation))

    return correlated_mechanism(deployment, strategy, noise_seed, multiplier, event, run_event)


def _release(noise_multiplier: float) -> PrivacyEvent:
    """One Gaussian release of all that a user contributes."""
    return PrivacyEvent("gaussian", noise_multiplier, 1)


def correlated_mechanism(
    deployment: Deployment,
    strategy: Strategy,
    noise_seed: int,
    multiplier: float,
    event: Events,
    run_event: Events,
    min_separation: int = 1,
) -> Mechanism:
    """The mechanism that adds the rows of C^-1 Z to the rounds' sums.

    multiplier: standard deviation of Z over the clipping bound. event, run_event: as of a ``Mechanism``.
    min_separation: of groups that take turns, where cohorts are drawn.
    """
    options, sampler, num_rounds = deployment.options, deployment.sampler, deployment.num_rounds
    std = multiplier * options.clipping_bound * deployment.noise_scale
    description = describe(
        deployment,
        name=strategy.name,
        noise="gaussian",
        noise_multiplier=multiplier,
        order=2.0,
        event=event(num_rounds),
        run_event=run_event(num_rounds),
        min_separation=min_separation,
    )

    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        bound_to = binding(noise_seed, round_, total)
        fresh = standard_normal(noise_key(noise_seed, round_, bound_to), total.numel()).to(total.device)
        noise, after = strategy.correlate(fresh, round_, state)
        total.copy_(on_grid(noise.mul_(std).add_(total), std))
        return total, {**after, BINDING: encoded(bound_to)}

    return Mechanism(
        name=strategy.name,
        init=lambda num_parameters: {**strategy.init(num_parameters), BINDING: encoded("0" * 32)},
        clipping_bound=lambda state: options.clipping_bound,
        clip=lambda update, bound: clip_update(update, bound, 2.0, exact_grid(bound, sampler.cohort_size)),
        add_noise=add_noise,
        event=event,
        # What a row of the last round is told of the next one, which there is not, is that round's own.
        noise_std=lambda state, round_: std * float(strategy.growth[min(round_, num_rounds - 1)]),
        description={
            **description,
            # Of the first round; later ones have the noises before them in theirs too.
            "noise_std": std * float(strategy.growth[0]),
            "prefix_error": multiplier * strategy.mean_error,
            "num_buffers": strategy.num_buffers,
        },
        run_event=run_event,
        strategy=lambda state, rounds: strategy.matrix(rounds, state),
    )
