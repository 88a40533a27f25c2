"""Gaussian noise with a clipping bound for each group of parameters, which follows a quantile of that group's norms.

The quantile is estimated as by Andrew et al. 2021 (``adaptive_clipping.py``), for each group by itself: a client gives,
beside each group of its update, of norm <= C_g, b_g - 1/2, where b_g is 1 if the group was left whole. The G noisy
counts cost 1 / z^2 - 1 / z_sum^2 = G / (2 s)^2 of the budget, where z is the multiplier that it allows and s the noise
on each count.

A client's update over the noise, group by group, is a vector of length sqrt(sum_g C_g^2 / sigma_g^2) at most, which has
to be 1 / z_sum. The noise on a group of P_g entries has the variance sigma_g^2 = z_sum^2 C_g / sqrt(P_g) * sum_h C_h
sqrt(P_h), with which the noise on the whole is shortest: its squared length is z_sum^2 (sum_g C_g sqrt(P_g))^2, and
with one sigma for all it would be z_sum^2 (sum_g C_g^2) (sum_g P_g), which is never less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from fedflair.errors import PrivacyError
from fedflair.privacy.contract import (
    BINDING,
    Clipping,
    ClipResult,
    CohortStats,
    Grouped,
    Measure,
    Mechanism,
    MechanismState,
    ParameterGroups,
    encoded,
)
from fedflair.privacy.mechanisms import noise as noises
from fedflair.privacy.mechanisms.adaptive_clipping import split_noise
from fedflair.privacy.mechanisms.clipping import bring_within, clip_update, exact_grid, vector_norm
from fedflair.privacy.mechanisms.deployment import Deployment, describe


def grouped_gaussian(name: str, deployment: Deployment, noise_multiplier: float, noise_seed: int) -> Mechanism:
    """The mechanism whose release in a round, sum and counts together, has noise multiplier ``noise_multiplier``.

    The state is the groups' bounds, float64 [G], which begin alike and together as long as the options' bound. What the
    mechanism calls its clipping bound is the length of the vector of them, which no update is longer than; what it
    calls its noise's standard deviation is the root of the mean variance of an entry.
    Raises PrivacyError where the counts leave no budget for the sum, or where nobody said what the groups are.
    """
    options, num_rounds, sampler = deployment.options, deployment.num_rounds, deployment.sampler
    groups = options.groups
    if groups is None:
        raise PrivacyError("clipping_groups: the groups of this network's parameters are not known here")
    num_groups, sizes = len(groups.names), torch.tensor(groups.sizes, dtype=torch.float64)
    count_std, sum_multiplier = split_noise(deployment, noise_multiplier, num_groups)
    scale = deployment.noise_scale
    quantile, rate = options.adaptive_clipping_quantile, options.adaptive_clipping_learning_rate
    start = torch.full((num_groups,), options.clipping_bound / math.sqrt(num_groups), dtype=torch.float64)

    def stds(state: MechanismState) -> torch.Tensor:
        bounds, roots = state["clipping_bound"].cpu(), sizes.sqrt()
        found: torch.Tensor = sum_multiplier * scale * (bounds / roots * (bounds * roots).sum()).sqrt()
        return found

    def noise_std(state: MechanismState, round_: int) -> float:
        return math.sqrt(float((sizes * stds(state) ** 2).sum() / sizes.sum()))

    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        bounds = state["clipping_bound"].cpu()
        clipped = torch.tensor(cohort.clipped_groups or (0,) * num_groups, dtype=torch.float64)
        counts = cohort.num_clients - cohort.num_rejected - clipped - cohort.num_clients / 2
        bound_to = noises.binding(noise_seed, round_, total, *counts.tolist(), *bounds.tolist())
        key = noises.noise_key(noise_seed, round_, bound_to)
        fresh = noises.standard_normal(key, total.numel()).to(total.device)
        for group, part in groups.parts(total.numel()):
            std = float(stds(state)[group])
            total[part] = noises.on_grid(fresh[part].mul_(std).add_(total[part]), std).to(total.dtype)
        count_noise = count_std * scale * torch.from_numpy(noises.scalar_normals(key, num_groups))
        noisy = noises.on_grid(counts + count_noise, count_std * scale)
        share = noisy / sampler.cohort_size + 0.5
        # The bounds are public numbers from here on: functions of the noisy counts alone.
        moved = bounds * torch.exp(-rate * (share - quantile))
        return total, {"clipping_bound": moved, BINDING: encoded(bound_to)}

    description = describe(
        deployment,
        name=name,
        noise="gaussian",
        noise_multiplier=noise_multiplier,
        order=2.0,
        event=deployment.event("gaussian", noise_multiplier, num_rounds),
        run_event=deployment.run_event("gaussian", noise_multiplier, num_rounds),
    )
    first: MechanismState = {"clipping_bound": start}
    return Mechanism(
        name=name,
        init=lambda num_parameters: {"clipping_bound": start.clone(), BINDING: encoded("0" * 32)},
        clipping_bound=lambda state: float(torch.linalg.vector_norm(state["clipping_bound"])),
        clip=lambda update, bound: clip_update(update, bound, 2.0, exact_grid(bound, sampler.cohort_size)),
        add_noise=add_noise,
        event=lambda rounds: deployment.event("gaussian", noise_multiplier, rounds),
        noise_std=noise_std,
        description={
            **description,
            "noise_std": noise_std(first, 0),
            "count_noise_std": count_std,
            "run_count_noise_std": count_std * scale,
            "clipping_groups": dict(zip(groups.names, groups.sizes)),
            "words": f"{description['words']} {_words(groups)}",
        },
        run_event=lambda rounds: deployment.run_event("gaussian", noise_multiplier, rounds),
        grouped=Grouped(
            groups=groups,
            bounds=lambda state: tuple(state["clipping_bound"].tolist()),
            noise_stds=lambda state, round_: tuple(stds(state).tolist()),
            clip=clip_groups(groups, sampler.cohort_size),
        ),
    )


def clip_groups(groups: ParameterGroups, cohort_size: int) -> Callable[[torch.Tensor, Sequence[float]], ClipResult]:
    """What clips an update (float32 [P], in place) group by group to bounds, one of each group.

    As ``clip_update`` does the whole: exactly, on the grid of each bound; one that is not finite becomes zero.
    """

    def clip(update: torch.Tensor, bounds: Sequence[float]) -> ClipResult:
        parts: list[list[torch.Tensor]] = [[] for _ in groups.names]
        for group, part in groups.parts(update.numel()):
            parts[group].append(update[part])
        norms = [math.hypot(*(vector_norm(part, 2.0) for part in mine)) for mine in parts]
        norm = math.hypot(*norms)
        if not math.isfinite(norm):
            update.zero_()
            return ClipResult(norm, clipped=False, rejected=True, groups=(False,) * len(norms))
        clipped = tuple(
            # Not any(), which would leave the parts after the first one alone.
            max(bring_within(part, own, bound, exact_grid(bound, cohort_size)) for part in mine)
            for mine, own, bound in zip(parts, norms, bounds, strict=True)
        )
        return ClipResult(norm, clipped=any(clipped), rejected=False, groups=clipped)

    return clip


def clipping_in(
    mechanism: str,
    order: float,
    cohort_size: int,
    measure: Measure | None = None,
    groups: ParameterGroups | None = None,
) -> Clipping:
    """What the mechanism of that name does to single updates: clips them in the norm of ``order``, and measures.

    groups: where each of them has a bound of its own.
    """
    noisy = mechanism not in ("none", "norm_clipping_only")

    def clip(update: torch.Tensor, bound: float) -> ClipResult:
        return clip_update(update, bound, order, exact_grid(bound, cohort_size) if noisy else None)

    by_group = None if groups is None else clip_groups(groups, cohort_size)
    return Clipping(mechanism, clip, measure if noisy else None, by_group)


def _words(groups: ParameterGroups) -> str:
    sizes = ", ".join(f"{name} {size:,}" for name, size in zip(groups.names, groups.sizes))
    return (
        f"Clipped group by group ({sizes} parameters), each to a bound of its own; the bound named is of all together."
    )
