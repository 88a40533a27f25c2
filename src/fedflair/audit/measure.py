"""Is the privacy path what the accountant takes it for? Measured with canary clients.

Canaries are clients that flip a coin and send one huge coordinate each, a different one: the worst that one client can
do, since all of a contribution is where nobody else's is. Heads they count when they are drawn; tails they are left
out or, where the promise is about replacing a client, send the opposite. The sampler and the mechanism that training
would have are made for them, and the rounds are those of training (``run.py``). Then somebody who sees only the noisy
sums guesses the coins (``scores``), and the auditor, who knows all, checks each part (``direct.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedflair.audit.direct import direct_findings
from fedflair.audit.game import Game, measured
from fedflair.audit.local import local_event, local_findings, local_game, run_local
from fedflair.audit.run import canary_groups, population, run_canaries
from fedflair.audit.scores import game_of
from fedflair.config.groups.cohort import CohortOptions
from fedflair.errors import ConfigError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.shown import finite
from fedflair.privacy.contract import LocalMechanism, LocalPrivacyOptions, PrivacyOptions
from fedflair.privacy.mechanisms import make_local_mechanism
from fedflair.privacy.path import PrivacyPath, make_path
from fedflair.sampling import AskedSampling, SamplerDescription, stream

# What a network's parameters are grouped into depends on the network, and an audit has none.
_NUM_GROUPS = 3


@dataclass(frozen=True)
class AuditResult:
    """What an audit measured; None is infinite.

    accounted: epsilon of the run itself. estimate, estimate_range, conditional_lower_bound, lower_bound: as
        measured; see ``game.py``.
    findings: what is wrong, each one line; empty where nothing is.
    """

    accounted: float | None
    delta: float
    estimate: float | None
    estimate_range: tuple[float | None, float | None]
    conditional_lower_bound: float | None
    lower_bound: float | None
    num_canaries: int
    num_rounds: int
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Sizes:
    """How large an audit is. sampling_rate: in (0, 1], of cohorts among canaries and others."""

    num_rounds: int = 20
    sampling_rate: float = 0.5
    num_canaries: int = 2000

    def __post_init__(self) -> None:
        if self.num_canaries < 100:
            raise ConfigError(f"num_canaries: {self.num_canaries} is too few to see anything; use at least 100")
        if self.num_rounds < 1:
            raise ConfigError(f"rounds: {self.num_rounds} is impossible; it must be at least 1")
        if not 0 < self.sampling_rate <= 1:
            raise ConfigError(f"sampling_rate: {self.sampling_rate} is impossible; it must be in (0, 1]")


def audit_central(
    options: PrivacyOptions,
    sizes: Sizes,
    seed: int,
    *,
    sampling: AskedSampling = "poisson",
    cohort: CohortOptions | None = None,
    tamper: Callable[[PrivacyPath], PrivacyPath] = lambda path: path,
) -> AuditResult:
    """Audits the path that ``options`` lead to. ``tamper`` puts faults into it, to see whether they are found.

    cohort: options of training that say what happens between a client that is drawn and the sum; where given, the sizes
        of ``options`` are those of a training with its ``cohort_size``, and are taken in proportion.
    Raises ConfigError and PrivacyError, naming the option, as ``make_path`` does, and where nothing is promised.
    """
    heads = _coins(sizes, seed)
    clients = population(sizes.num_canaries, signed=sampling == "fixed")
    # Rounded down, so that groups of clients are large enough for their cohorts wherever the rate allows it.
    cohort_size = max(1, int(sizes.sampling_rate * len(clients)))
    if cohort is not None:
        options = _in_proportion(options, cohort.cohort_size, cohort_size)
    if options.clipping_groups != "none":
        options = replace(options, groups=canary_groups(_NUM_GROUPS, sizes.num_canaries))
    path = make_path(
        options,
        clients,
        sampling=sampling,
        cohort_size=cohort_size,
        num_rounds=sizes.num_rounds,
        seed=seed,
        noise_seed=seed,
    )
    path = tamper(path)
    seen = run_canaries(path, cohort or CohortOptions(), sizes.num_rounds, heads)
    return _result(game_of(path, seen, heads), sizes, direct_findings(path, options, seen))


def audit_local(
    options: LocalPrivacyOptions,
    sizes: Sizes,
    seed: int,
    *,
    tamper: Callable[[LocalMechanism], LocalMechanism] = lambda mechanism: mechanism,
) -> AuditResult:
    """As ``audit_central``, of what clients do to their own updates; its epsilon is that of a client always asked."""
    heads, event = _coins(sizes, seed), local_event(options, sizes.num_rounds)
    everybody = SamplerDescription("fixed", sizes.num_canaries, sizes.num_canaries)
    mechanism = tamper(make_local_mechanism(options, everybody, sizes.num_rounds, seed))
    got = run_local(mechanism, options.clipping_bound, sizes.num_rounds, heads)
    game = local_game(got, event, options.delta, heads)
    return _result(game, sizes, local_findings(mechanism, got, event, heads))


def _in_proportion(options: PrivacyOptions, trained: int, audited: int) -> PrivacyOptions:
    """Sizes of a simulated deployment for cohorts of another size: the same noise on a mean, the same rate."""
    noise_cohort = trained if options.noise_cohort_size is None else options.noise_cohort_size
    scaled = audited * noise_cohort / trained
    return replace(
        options,
        noise_cohort_size=None if options.noise_cohort_size is None else int(scaled),
        population=None if options.population is None else math.ceil(scaled * options.population / noise_cohort),
    )


def _coins(sizes: Sizes, seed: int) -> npt.NDArray[np.bool_]:
    return stream(seed, "canary coins").random(sizes.num_canaries) < 0.5


def _result(game: Game, sizes: Sizes, findings: list[str]) -> AuditResult:
    accounted = epsilon(game.event, game.delta, game.accountant)
    found = measured(game, accounted)
    return AuditResult(
        accounted=finite(accounted),
        delta=game.delta,
        estimate=finite(found.estimate),
        estimate_range=(finite(found.estimate_range[0]), finite(found.estimate_range[1])),
        conditional_lower_bound=finite(found.conditional_lower_bound),
        lower_bound=finite(found.lower_bound),
        num_canaries=sizes.num_canaries,
        num_rounds=sizes.num_rounds,
        findings=(*findings, *found.findings),
    )
