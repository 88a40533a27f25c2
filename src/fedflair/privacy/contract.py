"""What a mechanism is: the types that the engine, the mechanisms and the ledger share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.events import AskedAccountant, PrivacyEvent
from fedflair.sampling import SamplerDescription

MechanismState = Mapping[str, torch.Tensor]
Number = TypeVar("Number", int, float)

# Where a mechanism's state keeps what the last round's noise was bound to (``mechanisms/noise.py``).
BINDING = "noise_binding"


def encoded(hexadecimal: str) -> torch.Tensor:
    """Hexadecimal digits as a state can hold them: uint8 [digits / 2]."""
    return torch.tensor(list(bytes.fromhex(hexadecimal)), dtype=torch.uint8)


def binding_of(state: MechanismState) -> str:
    """The digits in a state under ``BINDING``."""
    return bytes(state[BINDING].tolist()).hex()


@dataclass(frozen=True)
class ClipResult:
    """What clipping saw of one update.

    norm: the update's norm before clipping (inf or nan where it was not finite).
    clipped: the update was longer than the bound.
    rejected: the update was not finite and counts as zero.
    groups: of each group of parameters that is clipped by itself, whether it was clipped; empty where none are.
    """

    norm: float
    clipped: bool
    rejected: bool
    groups: tuple[bool, ...] = ()


@dataclass(frozen=True)
class CohortStats:
    """What the mechanism may know of the cohort whose sum it makes private.

    num_clients: realised cohort size. num_clipped, num_rejected: how many updates were clipped or rejected.
    metrics: sums of what ``Clipping.measure`` gives of each client; empty where nothing is measured.
    clipped_groups: how many clients had each group of parameters clipped; empty where groups are not clipped apart.
    """

    num_clients: int
    num_clipped: int
    num_rejected: int
    metrics: tuple[float, ...] = ()
    clipped_groups: tuple[int, ...] = ()

    def __add__(self, other: CohortStats) -> CohortStats:
        return CohortStats(
            self.num_clients + other.num_clients,
            self.num_clipped + other.num_clipped,
            self.num_rejected + other.num_rejected,
            added(self.metrics, other.metrics),
            added(self.clipped_groups, other.clipped_groups),
        )


def added(one: tuple[Number, ...], other: tuple[Number, ...]) -> tuple[Number, ...]:
    """Entry by entry; an empty one is as if it were zeros."""
    return tuple(a + b for a, b in zip(one, other, strict=True)) if one and other else one or other


# The clipping bound, a client's mean loss, the number of its images and what clipping made of its update -> entries.
Measure = Callable[[float, float, int, ClipResult], tuple[float, ...]]


@dataclass(frozen=True)
class ParameterGroups:
    """Which entries of an update are clipped together.

    names: of the groups. runs: (number of a group, how many entries), from an update's first entry to its last.
    """

    names: tuple[str, ...]
    runs: tuple[tuple[int, int], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each group."""
        return tuple(sum(size for number, size in self.runs if number == group) for group in range(len(self.names)))

    def parts(self, num_parameters: int) -> Iterator[tuple[int, slice]]:
        """(number of a group, where in an update of that length). Raises PrivacyError for one of another length."""
        if num_parameters != sum(size for _, size in self.runs):
            raise PrivacyError(f"clipping_groups: made for another network than one of {num_parameters:,} parameters")
        start = 0
        for group, size in self.runs:
            yield group, slice(start, start + size)
            start += size

    def spread(self, values: Sequence[float], device: torch.device) -> torch.Tensor:
        """Each group's value at each of its entries: float32 [P]."""
        return torch.cat([torch.full((size,), values[group], device=device) for group, size in self.runs])


@dataclass(frozen=True)
class Grouped:
    """What a mechanism that clips groups of parameters apart has for each of them.

    bounds: from the state. noise_stds: (state before a round, round) -> of the noise on an entry of each group.
    clip: clips one update in place to the bounds given; safe to call from several threads.
    """

    groups: ParameterGroups
    bounds: Callable[[MechanismState], tuple[float, ...]]
    noise_stds: Callable[[MechanismState, int], tuple[float, ...]]
    clip: Callable[[torch.Tensor, Sequence[float]], ClipResult]


@dataclass(frozen=True)
class Clipping:
    """The part of a central mechanism that works on single updates, wherever clients are trained; it has no secret.

    mechanism: whose it is. clip: clips one update (float32 [P]) in place to a given bound; safe to call from several
        threads.
    measure: what is to be summed of a client's metrics beside its update; None where metrics get no noise.
    clip_groups: in place of ``clip``, where the bound that is given is one of each group; else None.
    """

    mechanism: str
    clip: Callable[[torch.Tensor, float], ClipResult]
    measure: Measure | None = None
    clip_groups: Callable[[torch.Tensor, Sequence[float]], ClipResult] | None = None


@dataclass(frozen=True)
class Mechanism:
    """How one round's sum of client updates is made private; pure functions, state passed in and out.

    name: the published option name.
    init: the state before round 0, for updates of length P. Tensors only, so that a checkpoint can hold it.
    clipping_bound: the bound in force, from the state (adaptive clipping moves it); inf where nothing is clipped.
    clip: clips one update (float32 [P]) in place to a given bound; safe to call from several threads.
    add_noise: (sum float32 [P], cohort, round, state) -> (noisy sum, next state). Works in place.
    event: what all rounds up to and including a number of rounds release, in the deployment that the noise was scaled
        for; None where no epsilon holds.
    noise_std: (state before a round, round) -> standard deviation of the noise that the round adds to each entry of its
        sum; 0 where none is added.
    description: what a summary says of the mechanism: epsilon, delta, noise_multiplier, sampler, ... ; empty for none.
    run_event: as ``event``, of this run itself: other than ``event`` only where a larger deployment is simulated.
    measure: as of ``Clipping``. noisy_metrics: what a round released of them, by name, from the state after it.
    grouped: where groups of parameters are clipped apart; ``clipping_bound`` is then that of all of them together, and
        ``noise_std`` the root mean square over entries.
    strategy: (state, number of rounds n) -> the matrix, float64 [n, n], that makes the noises of the first n rounds
        independent, for whoever checks them; None where they are.
    """

    name: str
    init: Callable[[int], MechanismState]
    clipping_bound: Callable[[MechanismState], float]
    clip: Callable[[torch.Tensor, float], ClipResult]
    add_noise: Callable[[torch.Tensor, CohortStats, int, MechanismState], tuple[torch.Tensor, MechanismState]]
    event: Callable[[int], PrivacyEvent | None]
    noise_std: Callable[[MechanismState, int], float]
    description: Mapping[str, Any]
    run_event: Callable[[int], PrivacyEvent | None]
    measure: Measure | None = None
    noisy_metrics: Callable[[MechanismState], Mapping[str, float]] = lambda state: {}
    grouped: Grouped | None = None
    strategy: Callable[[MechanismState, int], npt.NDArray[np.float64]] | None = None

    @property
    def clipping(self) -> Clipping:
        """What workers need of the mechanism."""
        return Clipping(self.name, self.clip, self.measure, None if self.grouped is None else self.grouped.clip)

    def group_bounds(self, state: MechanismState) -> tuple[float, ...]:
        """The bounds in force of groups that are clipped apart; empty where none are."""
        return () if self.grouped is None else self.grouped.bounds(state)


@dataclass(frozen=True)
class PersonImages:
    """How many training images a person has: the mean over all of them, and the most that one has."""

    mean: float
    most: int


@dataclass(frozen=True)
class Origin:
    """The model that a run starts from, as far as privacy goes.

    name: what people call it. same_users: whether it was trained on the users of this run; None where nobody knows.
    private: whether it was trained with an epsilon of its own.
    epsilon, delta, neighbouring: what its users were promised, of that run itself and all that it started from; None
        where that is nothing, or no number that another run's could be added to.
    """

    name: str
    same_users: bool | None
    private: bool
    epsilon: float | None = None
    delta: float | None = None
    neighbouring: str | None = None


@dataclass(frozen=True)
class PrivacyOptions:
    """Options of a central mechanism; ``config.py`` has them as ``central_*`` or under the same name.

    epsilon, delta: the budget; of one release for ``gaussian`` and ``laplace``, of the whole run for all others.
    clipping_bound: bound on the norm of one update; where it starts with ``adaptive_clipping``.
    order: order of that norm, >= 1 or inf; None is the mechanism's own (gaussian 2, laplace 1, others 2).
    population: users that cohorts are drawn from in the deployment; None is the number of training clients.
    noise_cohort_size: cohort of the deployment; the noise is scaled down to the run's own. None is the run's own.
    min_separation: rounds between two participations of one user (``banded_matrix_factorization``, and all with
        rotating cohorts); None chooses it.
    num_buffers: vectors as long as the model that correlated noise keeps between rounds; None chooses it.
    allow_large_delta: accept delta >= 1/population, as published settings with a population of 1e7 have it.
    noise_from_seed: the noise seed is not secret; the description then says that nothing is private.
    artificial_users: clients are random groups of images (IID), not people; the description then says so.
    person_images: of the people whose images artificial users are made of; None where clients are people, or where
        nobody counted.
    origin: the model that the run starts from; None where it starts from a network's own weights.
    adaptive_clipping: move the bound towards a quantile of the updates' norms (gaussian_moments_accountant only).
    adaptive_clipping_quantile: share of updates that the bound should leave whole, in [0, 1].
    adaptive_clipping_learning_rate: step of the bound's logarithm in a round, > 0.
    adaptive_clipping_noise_std: noise on the count of whole updates, in clients; None is 1/20 of noise_cohort_size.
    clipping_groups: which parameters have a bound, and a quantile, of their own; none, blocks or kinds.
    groups: what they are in the network that is trained; None where nobody has looked.
    private_metrics: share of the budget for loss and counts, in [0, 1); 0 releases none of them with noise.
    private_metrics_loss_bound, private_metrics_images_bound: a client's mean loss, and its images, count up to these.
    """

    mechanism: str = "none"
    epsilon: float = 2.0
    delta: float = 1e-5
    clipping_bound: float = 0.1
    order: float | None = None
    population: int | None = None
    noise_cohort_size: int | None = None
    min_separation: int | None = None
    num_buffers: int | None = None
    accountant: AskedAccountant = "auto"
    allow_large_delta: bool = False
    noise_from_seed: bool = False
    artificial_users: bool = False
    person_images: PersonImages | None = None
    origin: Origin | None = None
    adaptive_clipping: bool = False
    adaptive_clipping_quantile: float = 0.5
    adaptive_clipping_learning_rate: float = 0.2
    adaptive_clipping_noise_std: float | None = None
    clipping_groups: str = "none"
    groups: ParameterGroups | None = None
    private_metrics: float = 0.0
    private_metrics_loss_bound: float = 1.0
    private_metrics_images_bound: int = 50


@dataclass(frozen=True)
class LocalMechanism:
    """What a client does to its own update before anybody else sees it.

    privatise: (update float32 [P], round, client id) -> what clipping saw; clips and adds noise in place. Safe to call
        from several threads.
    description: what a summary says of it; empty for none.
    """

    name: str
    privatise: Callable[[torch.Tensor, int, str], ClipResult]
    description: Mapping[str, Any]


@dataclass(frozen=True)
class LocalPrivacyOptions:
    """Options of a local mechanism; ``config.py`` has them as ``local_*``.

    epsilon, delta: budget of one update. clipping_bound, order, allow_large_delta, noise_from_seed, origin: as of a
        central mechanism.
    """

    mechanism: str = "none"
    epsilon: float = 2.0
    delta: float = 1e-5
    clipping_bound: float = 0.1
    order: float | None = None
    allow_large_delta: bool = False
    noise_from_seed: bool = False
    origin: Origin | None = None


MakeLocalMechanism = Callable[[LocalPrivacyOptions, SamplerDescription, int, int], LocalMechanism]
MakeMechanism = Callable[[PrivacyOptions, SamplerDescription, int, int], Mechanism]
