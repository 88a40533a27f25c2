"""``auto``: of the mechanisms and samplings whose cost is proven, the one whose noise moves a run the least.

What is compared is the root mean square, over rounds, of the noise in the sum of all rounds so far: what the parameters
of a server that adds up mean updates are off by. (An optimizer that looks at single rounds, such as Adam's second
moments, also sees each round's own noise, which correlated noise makes larger; it is in the table.) Only promises of
one kind are compared, one user's contribution replaced by zero: cohorts of a fixed size that are drawn have another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.calibration import calibrate
from fedflair.privacy.contract import Mechanism, PrivacyOptions
from fedflair.privacy.mechanisms.additive import no_adaptive_clipping
from fedflair.privacy.mechanisms.banded_matrix_factorization import (
    banded_matrix_factorization,
    banded_strategy,
    choose_bands,
)
from fedflair.privacy.mechanisms.correlated.banded import banded
from fedflair.privacy.mechanisms.correlated.strategy import Strategy
from fedflair.privacy.mechanisms.deployment import Deployment, make_deployment
from fedflair.privacy.mechanisms.gaussian import gaussian_moments_accountant
from fedflair.privacy.mechanisms.matrix_factorization import (
    banded_inverse_square_root,
    blt_strategy,
    buffered_linear_toeplitz,
    inverse_root_strategy,
    tree_aggregation,
    tree_strategy,
)
from fedflair.privacy.toeplitz import rounded_column
from fedflair.sampling import SamplerDescription, SamplingKind

_MAKERS = {
    "gaussian_moments_accountant": gaussian_moments_accountant,
    "banded_matrix_factorization": banded_matrix_factorization,
    "banded_inverse_square_root": banded_inverse_square_root,
    "buffered_linear_toeplitz": buffered_linear_toeplitz,
    "tree_aggregation": tree_aggregation,
}
CHOSEN_AMONG: tuple[SamplingKind, ...] = ("poisson", "b_min_separation", "rotating")
# For cohorts that rotate; the first is independent noise, as one band.
_STRATEGIES: dict[str, Callable[[Deployment], Strategy]] = {
    "gaussian_moments_accountant": lambda deployment: banded(deployment.num_rounds, 1),
    "banded_matrix_factorization": banded_strategy,
    "banded_inverse_square_root": inverse_root_strategy,
    "buffered_linear_toeplitz": blt_strategy,
    "tree_aggregation": tree_strategy,
}
# A vector as long as the model has to be worth something: what an error may be above the least, for fewer of them.
_AS_GOOD = 1.02


@dataclass(frozen=True)
class Candidate:
    """A mechanism at the budget.

    noise_multiplier: of the fresh noise. error: of running sums, root mean square over rounds; largest_error: of the
    round where it is largest; round_noise: of single rounds, root mean square. All over the clipping bound, and of the
    deployment.
    """

    mechanism: str
    sampling: SamplingKind
    min_separation: int
    num_buffers: int
    noise_multiplier: float
    error: float
    largest_error: float
    round_noise: float

    def row(self) -> dict[str, Any]:
        """As a description has it, under ``name``."""
        return {
            "noise_multiplier": self.noise_multiplier,
            "error": self.error,
            "largest_error": self.largest_error,
            "round_noise": self.round_noise,
            "num_buffers": self.num_buffers,
        }

    @property
    def name(self) -> str:
        return f"{self.mechanism}, {self.sampling}, min_separation {self.min_separation}"


def auto(options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int) -> Mechanism:
    """The mechanism with the least error at the budget, for cohorts of that one kind.

    Its description has the table that it was chosen from, as ``chosen_from``. Raises ConfigError and PrivacyError.
    """
    found = candidates(options, [sampler], num_rounds)
    best = chosen(found)
    return with_table(_MAKERS[best.mechanism](named(options, best), sampler, num_rounds, noise_seed), found)


def named(options: PrivacyOptions, best: Candidate) -> PrivacyOptions:
    """The options that make this mechanism."""
    asked = replace(options, mechanism=best.mechanism, min_separation=best.min_separation)
    return asked if best.num_buffers == 0 else replace(asked, num_buffers=best.num_buffers)


def with_table(mechanism: Mechanism, found: Sequence[Candidate]) -> Mechanism:
    """The mechanism with what it was chosen from in its description."""
    table = {one.name: one.row() for one in found}
    return replace(mechanism, description={**mechanism.description, "chosen_from": table})


def chosen(found: Sequence[Candidate]) -> Candidate:
    """The least error; of those within 2 % of it, the one that keeps the fewest vectors, and is accounted exactly."""
    enough = _AS_GOOD * min(one.error for one in found)
    return min((one for one in found if one.error <= enough), key=_effort)


def _effort(one: Candidate) -> tuple[int, bool, float]:
    return one.num_buffers, one.sampling == "b_min_separation", one.error


def candidates(
    options: PrivacyOptions, samplers: Sequence[SamplerDescription], num_rounds: int
) -> tuple[Candidate, ...]:
    """All that there are for these kinds of cohorts, the least error first. Raises ConfigError where there are none."""
    no_adaptive_clipping(options)
    found = [one for sampler in samplers for one in _of(make_deployment(options, sampler, num_rounds))]
    if not found:
        raise ConfigError(
            "central_privacy_mechanism: auto chooses among poisson, b_min_separation and rotating cohorts, whose "
            "promises are of one kind, and finds none here; use --cohort_sampling auto, or name a mechanism"
        )
    return tuple(sorted(found, key=lambda one: one.error))


def _of(deployment: Deployment) -> Iterator[Candidate]:
    options, num_rounds = deployment.options, deployment.num_rounds
    if deployment.sampler.kind == "rotating":
        one = calibrate(deployment.event("gaussian", 0.0, 1), options.epsilon, options.delta, options.accountant)
        for name, strategy_of in _STRATEGIES.items():
            try:
                strategy = strategy_of(deployment)
            except PrivacyError:
                continue
            multiplier = one * strategy.sensitivity(num_rounds, deployment.min_separation)
            yield _candidate(deployment, name, strategy, multiplier, deployment.min_separation)
    if deployment.sampler.kind == "b_min_separation":
        separation = options.min_separation or choose_bands(deployment)
        bands = separation if options.num_buffers is None else min(separation, options.num_buffers)
        event = deployment.spaced(0.0, num_rounds, rounded_column(num_rounds, bands, separation))
        if separation > 1 and separation * event.sampling_rate <= 1:
            multiplier = calibrate(event, options.epsilon, options.delta, options.accountant)
            yield _candidate(
                deployment, "banded_matrix_factorization", banded(num_rounds, bands), multiplier, separation
            )
    if deployment.sampler.kind == "poisson":
        for separation in sorted({1, options.min_separation or choose_bands(deployment)}):
            event = deployment.event("gaussian", 0.0, num_rounds, separation)
            if event.sampling_rate > 1:
                continue
            multiplier = calibrate(event, options.epsilon, options.delta, options.accountant)
            name = "gaussian_moments_accountant" if separation == 1 else "banded_matrix_factorization"
            bands = separation if options.num_buffers is None else min(separation, options.num_buffers)
            yield _candidate(deployment, name, banded(num_rounds, bands), multiplier, separation)


def _candidate(
    deployment: Deployment, name: str, strategy: Strategy, multiplier: float, min_separation: int
) -> Candidate:
    return Candidate(
        mechanism=name,
        sampling=deployment.sampler.kind,
        min_separation=min_separation,
        num_buffers=0 if name == "gaussian_moments_accountant" else strategy.num_buffers,
        noise_multiplier=multiplier,
        error=multiplier * strategy.mean_error,
        largest_error=multiplier * float(strategy.errors.max()),
        round_noise=multiplier * float((strategy.growth**2).mean()) ** 0.5,
    )


def choice_lines(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of a description's ``chosen_from``, a line each, for a terminal."""
    head = ("error", "largest", "a round's", "multiplier", "vectors")
    lines = ["  ".join([f"{name:>10}" for name in head] + ["mechanism"])]
    for name, row in table.items():
        numbers = [row[key] for key in ("error", "largest_error", "round_noise", "noise_multiplier")]
        lines.append("  ".join([*(f"{value:>10.5g}" for value in numbers), f"{row['num_buffers']:>10}", name]))
    return lines
