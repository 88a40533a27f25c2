"""What a mechanism is: the types that the engine, the mechanisms and the ledger share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fedflair.privacy.accounting.accountants import AskedAccountant, PrivacyEvent
from fedflair.sampling import SamplerDescription

MechanismState = Mapping[str, torch.Tensor]

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
    """

    norm: float
    clipped: bool
    rejected: bool


@dataclass(frozen=True)
class CohortStats:
    """What the mechanism may know of the cohort whose sum it makes private.

    num_clients: realised cohort size. num_clipped, num_rejected: how many updates were clipped or rejected.
    """

    num_clients: int
    num_clipped: int
    num_rejected: int


@dataclass(frozen=True)
class Clipping:
    """The part of a central mechanism that works on single updates, wherever clients are trained; it has no secret.

    mechanism: whose it is. clip: clips one update (float32 [P]) in place to a given bound; safe to call from several
        threads.
    """

    mechanism: str
    clip: Callable[[torch.Tensor, float], ClipResult]


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

    @property
    def clipping(self) -> Clipping:
        """What workers need of the mechanism."""
        return Clipping(self.name, self.clip)


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

    epsilon, delta: the budget; of the whole run for ``gaussian_moments_accountant`` and
        ``banded_matrix_factorization``, of one release for ``gaussian`` and ``laplace``.
    clipping_bound: bound on the norm of one update; where it starts with ``adaptive_clipping``.
    order: order of that norm, >= 1 or inf; None is the mechanism's own (gaussian 2, laplace 1, others 2).
    population: users that cohorts are drawn from in the deployment; None is the number of training clients.
    noise_cohort_size: cohort of the deployment; the noise is scaled down to the run's own. None is the run's own.
    min_separation: rounds between two participations of one user (``banded_matrix_factorization``); None chooses it.
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
    """

    mechanism: str = "none"
    epsilon: float = 2.0
    delta: float = 1e-5
    clipping_bound: float = 0.1
    order: float | None = None
    population: int | None = None
    noise_cohort_size: int | None = None
    min_separation: int | None = None
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
