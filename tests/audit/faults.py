"""Honest paths of every kind, and faults to plant in them: for the audit's tests and for ``perf/audit_power.py``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fedflair.audit.measure import AuditResult, Sizes, audit_central, audit_local
from fedflair.config.groups.cohort import CohortOptions
from fedflair.privacy.accounting.accountants import epsilon as accounted
from fedflair.privacy.contract import (
    ClipResult,
    CohortStats,
    LocalMechanism,
    LocalPrivacyOptions,
    MechanismState,
    PrivacyOptions,
)
from fedflair.privacy.path import PrivacyPath
from fedflair.sampling import CohortSampler, poisson_sampler, stream

Noisy = tuple[torch.Tensor, MechanismState]
Change = Callable[[torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of central path: options of its mechanism, the sampling rate of its audit, and what else it is given."""

    options: PrivacyOptions
    rate: float = 0.5
    more: dict[str, Any] = field(default_factory=dict)

    def audited(
        self, seed: int, sizes: Sizes, tamper: Callable[[PrivacyPath], PrivacyPath] = lambda path: path
    ) -> AuditResult:
        """Audited at ``sizes``, at the kind's own sampling rate."""
        return audit_central(self.options, replace(sizes, sampling_rate=self.rate), seed, tamper=tamper, **self.more)


KINDS = {
    "gaussian_moments_accountant": Kind(PrivacyOptions("gaussian_moments_accountant")),
    "gaussian": Kind(PrivacyOptions("gaussian", epsilon=0.8)),
    "laplace": Kind(PrivacyOptions("laplace", epsilon=0.3)),
    "adaptive": Kind(PrivacyOptions("gaussian_moments_accountant", adaptive_clipping=True)),
    "metrics": Kind(PrivacyOptions("gaussian_moments_accountant", adaptive_clipping=True, private_metrics=0.2)),
    "grouped": Kind(PrivacyOptions("gaussian_moments_accountant", adaptive_clipping=True, clipping_groups="kinds")),
    "banded": Kind(PrivacyOptions("banded_matrix_factorization", min_separation=4), rate=0.2),
    "apart": Kind(
        PrivacyOptions("banded_matrix_factorization", min_separation=4),
        rate=0.2,
        more={"sampling": "b_min_separation"},
    ),
    "blt": Kind(PrivacyOptions("buffered_linear_toeplitz", num_buffers=2), rate=0.2, more={"sampling": "rotating"}),
    "rotating": Kind(PrivacyOptions("gaussian_moments_accountant"), rate=0.2, more={"sampling": "rotating"}),
    "tree": Kind(PrivacyOptions("tree_aggregation", num_buffers=2), rate=0.2, more={"sampling": "rotating"}),
    "fixed": Kind(PrivacyOptions("gaussian_moments_accountant"), more={"sampling": "fixed"}),
    "simulated": Kind(
        PrivacyOptions(
            "gaussian_moments_accountant",
            epsilon=0.3,
            noise_cohort_size=400,
            population=10_000,
            allow_large_delta=True,
        ),
        more={"cohort": CohortOptions(cohort_size=200)},
    ),
    "dropout": Kind(
        PrivacyOptions("gaussian_moments_accountant"),
        more={"cohort": CohortOptions(dropout_rate=0.2, compression="quantize_8bit")},
    ),
}
LOCAL_KINDS = {
    "local gaussian": LocalPrivacyOptions("gaussian"),
    "local laplace": LocalPrivacyOptions("laplace"),
}


def with_noise(path: PrivacyPath, change: Change) -> PrivacyPath:
    """change: (noise, round) -> the noise that is added instead."""

    def add_noise(total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState) -> Noisy:
        clean = total.clone()
        noisy, after = path.mechanism.add_noise(total, cohort, round_, state)
        return clean + change(noisy - clean, round_), after

    return replace(path, mechanism=replace(path.mechanism, add_noise=add_noise))


def noise_times(factor: float) -> Callable[[PrivacyPath], PrivacyPath]:
    return lambda path: with_noise(path, lambda noise, round_: factor * noise)


def less_noise_stated_so(path: PrivacyPath) -> PrivacyPath:
    """Half of the noise, in the mechanism's own words too; accounted as before."""
    halved = noise_times(0.5)(path).mechanism
    facts = {**halved.description, "noise_std": halved.description["noise_std"] / 2}
    stated = replace(halved, noise_std=lambda state, round_: path.mechanism.noise_std(state, round_) / 2)
    return replace(path, mechanism=replace(stated, description=facts))


def noise_on_half_of_the_coordinates(path: PrivacyPath) -> PrivacyPath:
    return with_noise(path, lambda noise, round_: noise * (torch.arange(len(noise)) % 2))


def noise_in_first_rounds(path: PrivacyPath) -> PrivacyPath:
    return with_noise(path, lambda noise, round_: noise if round_ < 5 else 0 * noise)


def one_noise_for_many_coordinates(path: PrivacyPath) -> PrivacyPath:
    return with_noise(path, lambda noise, round_: noise[: len(noise) // 4].repeat(5)[: len(noise)])


def replayed_noise(path: PrivacyPath) -> PrivacyPath:
    """As after a resume from round 5 with a generator that the checkpoint forgot."""

    def add_noise(total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState) -> Noisy:
        noise, after = path.mechanism.add_noise(torch.zeros_like(total), cohort, round_ % 5, state)
        return total + noise, after

    return replace(path, mechanism=replace(path.mechanism, add_noise=add_noise))


def sum_added_twice(path: PrivacyPath) -> PrivacyPath:
    def add_noise(total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState) -> Noisy:
        return path.mechanism.add_noise(2 * total, cohort, round_, state)

    return replace(path, mechanism=replace(path.mechanism, add_noise=add_noise))


def skipped_clip(path: PrivacyPath) -> PrivacyPath:
    return replace(path, mechanism=replace(path.mechanism, clip=lambda u, bound: ClipResult(1.0, False, False)))


def bound_doubled(path: PrivacyPath) -> PrivacyPath:
    return replace(path, mechanism=replace(path.mechanism, clip=lambda u, b: path.mechanism.clip(u, 2 * b)))


def weight_two(path: PrivacyPath) -> PrivacyPath:
    def clip(update: torch.Tensor, bound: float) -> ClipResult:
        result = path.mechanism.clip(update, bound)
        update.mul_(2)
        return result

    return replace(path, mechanism=replace(path.mechanism, clip=clip))


def clipped_entry_by_entry(path: PrivacyPath) -> PrivacyPath:
    """To the bound in the norm that is the largest entry: right for an update of one entry."""

    def clip(update: torch.Tensor, bound: float) -> ClipResult:
        update.nan_to_num_().clamp_(-bound, bound)
        return ClipResult(1.0, True, False)

    return replace(path, mechanism=replace(path.mechanism, clip=clip))


def _clients(path: PrivacyPath) -> list[str]:
    """All whom the path's sampler draws from, found by drawing."""
    return sorted({client for round_ in range(2000, 2060) for client in path.sampler.sample(round_)})


def twice_the_rate(path: PrivacyPath) -> PrivacyPath:
    """Two cohorts in one, in place of one."""

    def sample(round_: int) -> list[str]:
        return sorted({*path.sampler.sample(round_), *path.sampler.sample(1000 + round_)})

    return replace(path, sampler=CohortSampler(sample, path.sampler.description))


def with_replacement(path: PrivacyPath) -> PrivacyPath:
    clients = _clients(path)

    def sample(round_: int) -> list[str]:
        drawn = stream(1, "cohort", round_).integers(0, len(clients), path.sampler.description.cohort_size)
        return [clients[i] for i in drawn]

    return replace(path, sampler=CohortSampler(sample, path.sampler.description))


def the_same_cohort_always(path: PrivacyPath) -> PrivacyPath:
    return replace(path, sampler=CohortSampler(lambda round_: path.sampler.sample(0), path.sampler.description))


def separation_not_enforced(path: PrivacyPath) -> PrivacyPath:
    return replace(path, sampler=poisson_sampler(_clients(path), path.sampler.description.cohort_size, 1))


def correlation_lost(path: PrivacyPath) -> PrivacyPath:
    """As after a resume in every round with a checkpoint that has forgotten the noises of the rounds before."""

    def add_noise(total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState) -> Noisy:
        return path.mechanism.add_noise(total, cohort, round_, {**state, "noises": 0 * state["noises"]})

    return replace(path, mechanism=replace(path.mechanism, add_noise=add_noise))


def buffers_lost(path: PrivacyPath) -> PrivacyPath:
    """As ``correlation_lost``, of buffered linear Toeplitz noise."""

    def add_noise(total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState) -> Noisy:
        return path.mechanism.add_noise(total, cohort, round_, {**state, "buffers": 0 * state["buffers"]})

    return replace(path, mechanism=replace(path.mechanism, add_noise=add_noise))


def back_too_soon(path: PrivacyPath) -> PrivacyPath:
    """The cohorts of every other round come twice."""
    return replace(
        path, sampler=CohortSampler(lambda round_: path.sampler.sample(round_ // 2), path.sampler.description)
    )


def columns_of_norm_two(path: PrivacyPath) -> PrivacyPath:
    """The correlation is twice as long, with the noise for columns of norm 1."""

    def init(num_parameters: int) -> MechanismState:
        state = path.mechanism.init(num_parameters)
        return {**state, "coefficients": 2 * state["coefficients"]}

    return replace(path, mechanism=replace(path.mechanism, init=init))


def count_noise_times(factor: float) -> Callable[[PrivacyPath], PrivacyPath]:
    """Less noise on the count of whole updates that moves the bound; by the default quantile 0.5 and rate 0.2."""

    def tamper(path: PrivacyPath) -> PrivacyPath:
        mechanism, size = path.mechanism, path.sampler.description.cohort_size

        def add_noise(total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState) -> Noisy:
            total, after = mechanism.add_noise(total, cohort, round_, state)
            bound = mechanism.clipping_bound(state)
            count = cohort.num_clients / 2 - cohort.num_clipped - cohort.num_rejected
            noisy = -math.log(mechanism.clipping_bound(after) / bound) / 0.2 * size
            moved = bound * math.exp(-0.2 * (count + factor * (noisy - count)) / size)
            return total, {**after, "clipping_bound": torch.tensor(moved, dtype=torch.float64)}

        return replace(path, mechanism=replace(mechanism, add_noise=add_noise))

    return tamper


def one_group_bare(path: PrivacyPath) -> PrivacyPath:
    """No noise on the first of the groups that are clipped apart."""
    return with_noise(path, lambda noise, round_: noise * (torch.arange(len(noise)) >= len(noise) // 3))


def group_bound_doubled(path: PrivacyPath) -> PrivacyPath:
    """The first group of an update may be twice as long as its bound."""
    grouped = path.mechanism.grouped
    assert grouped is not None

    def clip(update: torch.Tensor, bounds: Sequence[float]) -> ClipResult:
        return grouped.clip(update, [2 * bounds[0], *bounds[1:]])

    return replace(path, mechanism=replace(path.mechanism, grouped=replace(grouped, clip=clip)))


def metrics_noise_times(factor: float) -> Callable[[PrivacyPath], PrivacyPath]:
    """Less noise on the metrics of a cohort of nobody, whose clean sums are zero."""

    def tamper(path: PrivacyPath) -> PrivacyPath:
        def add_noise(total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState) -> Noisy:
            total, after = path.mechanism.add_noise(total, cohort, round_, state)
            return total, {**after, "private_metrics": factor * after["private_metrics"]}

        return replace(path, mechanism=replace(path.mechanism, add_noise=add_noise))

    return tamper


def twice_the_epsilon(sizes: Sizes) -> Callable[[PrivacyPath], PrivacyPath]:
    """The noise of twice the epsilon, where nobody else can see it: accounted as before."""

    def tamper(path: PrivacyPath) -> PrivacyPath:
        known = path.mechanism.run_event(sizes.num_rounds)
        epsilon = path.mechanism.description["run_epsilon"]
        if known is None or epsilon is None:
            raise AssertionError("an honest path has an epsilon")
        # To a hundredth, by bisection: the factor only has to be known as well as a budget is.
        low, high = 0.3, 1.0
        while high - low > 0.01:
            middle = (low + high) / 2
            weaker = replace(known, noise_multiplier=middle * known.noise_multiplier)
            spent = accounted(weaker, path.mechanism.description["delta"], path.mechanism.description["accountant"])
            low, high = (middle, high) if spent > 2 * epsilon else (low, middle)
        return noise_times(high)(path)

    return tamper


FAULTS: dict[str, Callable[[PrivacyPath], PrivacyPath]] = {
    "noise halved": noise_times(0.5),
    "noise x 0.9": noise_times(0.9),
    "noise halved, and stated so": less_noise_stated_so,
    "noise on half of the coordinates": noise_on_half_of_the_coordinates,
    "noise in the first rounds only": noise_in_first_rounds,
    "one noise for many coordinates": one_noise_for_many_coordinates,
    "noise repeated after 5 rounds": replayed_noise,
    "no clipping": skipped_clip,
    "clipping bound doubled": bound_doubled,
    "a weight of 2": weight_two,
    "clipped entry by entry": clipped_entry_by_entry,
    "sum added twice": sum_added_twice,
    "twice the sampling rate": twice_the_rate,
    "drawn with replacement": with_replacement,
    "the same cohort always": the_same_cohort_always,
}
# Of one kind of path only.
FAULTS_OF: dict[str, dict[str, Callable[[PrivacyPath], PrivacyPath]]] = {
    "banded": {
        "min_separation violated": separation_not_enforced,
        "correlation lost": correlation_lost,
        "columns of norm 2": columns_of_norm_two,
    },
    "apart": {"min_separation violated": separation_not_enforced, "columns of norm 2": columns_of_norm_two},
    "blt": {"min_separation violated": back_too_soon, "correlation lost": buffers_lost},
    "rotating": {"min_separation violated": back_too_soon},
    "adaptive": {"no noise on the count": count_noise_times(0.0), "count's noise halved": count_noise_times(0.5)},
    "grouped": {"no noise on a group": one_group_bare, "a group's bound doubled": group_bound_doubled},
    "metrics": {"noise on metrics halved": metrics_noise_times(0.5)},
}


def local_noise_times(factor: float) -> Callable[[LocalMechanism], LocalMechanism]:
    def tamper(mechanism: LocalMechanism) -> LocalMechanism:
        bound = float(mechanism.description["clipping_bound"])

        def privatise(update: torch.Tensor, round_: int, client: str) -> ClipResult:
            sign = float(update[0].sign())
            result = mechanism.privatise(update, round_, client)
            update[0] -= sign * bound
            update.mul_(factor)
            update[0] += sign * bound
            return result

        return replace(mechanism, privatise=privatise)

    return tamper


def local_noise_of_the_round_alone(mechanism: LocalMechanism) -> LocalMechanism:
    """All clients add the same noise."""

    def privatise(update: torch.Tensor, round_: int, client: str) -> ClipResult:
        noise = torch.zeros_like(update)
        mechanism.privatise(noise, round_, "all")
        bound = float(mechanism.description["clipping_bound"])
        update.clamp_(-bound, bound).add_(noise)
        return ClipResult(1.0, True, False)

    return replace(mechanism, privatise=privatise)


def local_clip_doubled(mechanism: LocalMechanism) -> LocalMechanism:
    bound = float(mechanism.description["clipping_bound"])

    def privatise(update: torch.Tensor, round_: int, client: str) -> ClipResult:
        sign = float(update[0].sign())
        result = mechanism.privatise(update, round_, client)
        update[0] += sign * bound
        return result

    return replace(mechanism, privatise=privatise)


LOCAL_FAULTS: dict[str, Callable[[LocalMechanism], LocalMechanism]] = {
    "noise halved": local_noise_times(0.5),
    "noise x 0.9": local_noise_times(0.9),
    "the same noise for all": local_noise_of_the_round_alone,
    "clipping bound doubled": local_clip_doubled,
}


def audited_local(name: str, seed: int, sizes: Sizes, fault: str | None = None) -> AuditResult:
    tamper = LOCAL_FAULTS[fault] if fault else lambda mechanism: mechanism
    return audit_local(LOCAL_KINDS[name], sizes, seed, tamper=tamper)
