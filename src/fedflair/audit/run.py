"""The audit's run: canary clients through ``training/round.py``, the very rounds that training is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedflair.audit.accounted import Accounted, accounted
from fedflair.backends.threads import thread_backend
from fedflair.config.groups.cohort import CohortOptions
from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.data.store.labels import LabelSpace
from fedflair.data.store.packed import Store, StoreMetadata
from fedflair.engine.cpu.kernels import chosen
from fedflair.engine.flat_model import FlatModel
from fedflair.errors import ConfigError
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.algorithms import Algorithm
from fedflair.federated.client import ClientUpdate
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.federated.server import Broadcast, ServerState
from fedflair.federated.setup import TrainingSetup, WorkerSetup
from fedflair.privacy.contract import (
    Clipping,
    CohortStats,
    LocalMechanism,
    LocalPrivacyOptions,
    Mechanism,
    MechanismState,
    ParameterGroups,
)
from fedflair.privacy.mechanisms import make_local_mechanism
from fedflair.privacy.path import PrivacyPath
from fedflair.training.round import run_round, who_answers

# Coordinates that no client ever moves: what is seen there is noise alone.
NUM_SILENT = 4096

Vector = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """What a run looked like from outside and from inside, rounds by coordinates; the canaries' coordinates come first.

    asked: client ids a round, as sampled. joined: those of them whose updates count.
    released: what an observer has, in units of the scale of the fresh noise that is accounted, made independent.
    noise: the same less what the clients should have contributed.
    sent: what the mechanism was given to make private, over the clipping bound.
    signs: of what each canary sends; 0 sends nothing.
    bounds, stated: clipping bound of each round and one more, and the noise's standard deviation as stated.
    """

    accounted: Accounted
    asked: list[list[str]]
    joined: list[list[str]]
    released: Vector
    noise: Vector
    sent: Vector
    signs: Vector
    bounds: Vector
    stated: Vector


@dataclass(frozen=True)
class CanaryClients:
    """Clients of one example a client, of which nothing is used but whose it is."""

    client_ids: list[str]

    def num_images(self, client_id: str) -> int:
        return 1

    def load(self, client_id: str, max_num_images: int | None, generator: np.random.Generator) -> ClientData:
        return ClientData(client_id, [np.zeros(1, dtype=np.uint8)], np.zeros((1, 1), dtype=np.uint8))


def canary_number(client_id: str) -> int | None:
    """The coordinate of a canary; None for the other clients, whose updates are zero."""
    kind, _, number = client_id.partition("-")
    return int(number) if kind == "canary" else None


def population(num_canaries: int, *, signed: bool) -> list[str]:
    """The clients that cohorts are drawn from, whatever the coins say.

    Where canaries are in or out there are half as many others, who always send zeros: adaptive clipping then finds as
    many updates whole as clipped.
    """
    others = 0 if signed else num_canaries // 2
    return [f"canary-{i}" for i in range(num_canaries)] + [f"client-{i}" for i in range(others)]


def run_canaries(path: PrivacyPath, cohort: CohortOptions, num_rounds: int, included: Bools) -> Seen:
    """Trains for ``num_rounds`` rounds on ``path``; a canary sends 1,000 times the clipping bound in its coordinate.

    A canary whose coin says so, and only such a one, counts when it is drawn; where clients are replaced, not left out,
    the others send the opposite. The server's optimizer takes the mean as it is, so that what it was given can be read
    off its parameters. Raises ConfigError where adaptive clipping has moved the bound beyond what numbers hold.
    """
    mechanism, size = path.mechanism, (len(included) + NUM_SILENT) * num_groups(path.mechanism)
    state = ServerState(0, torch.zeros(size), {}, {}, mechanism.init(size))
    facts = accounted(path, num_rounds, state.mechanism_state)
    signs = np.where(included, 1.0, -1.0 if facts.signed else 0.0)
    given: list[torch.Tensor] = []
    setup = _setup(path, cohort, signs, size, given)
    asked, joined, totals, promised, bounds, stated = [], [], [], [], [], []
    with thread_backend(setup.worker) as backend:
        for round_ in range(num_rounds):
            asked.append(path.sampler.sample(round_))
            joined.append(who_answers(setup, state).cohort)
            bound = mechanism.clipping_bound(state.mechanism_state)
            if not 1e-30 < bound < 1e30:
                raise ConfigError(
                    f"rounds: adaptive clipping has moved the bound to {bound:.3g} by {round_}; use fewer"
                )
            seen = _in_one(mechanism, state.mechanism_state, round_)
            stated.append(seen.std)
            bounds.append(bound)
            state, _ = run_round(state, joined[-1], setup=setup, backend=backend)
            promised.append(_contributions(joined[-1], signs, size // num_groups(mechanism)))
            totals.append(seen.of(state.parameters.double().numpy() * path.sampler.description.cohort_size))
            given[-1] = torch.from_numpy(seen.of(given[-1].double().numpy()))
    bounds.append(mechanism.clipping_bound(state.mechanism_state))

    def independent(rows: Vector) -> Vector:
        """Made independent over rounds, which an observer can do as well."""
        return np.asarray(facts.strategy @ (rows / facts.multiplier))

    released = np.stack(totals)
    return Seen(
        accounted=facts,
        asked=asked,
        joined=joined,
        released=independent(released),
        noise=independent(released - np.stack(promised)),
        sent=np.stack([total.numpy() for total in given]),
        signs=signs,
        bounds=np.array(bounds),
        stated=np.array(stated),
    )


def num_groups(mechanism: Mechanism) -> int:
    """Groups of coordinates that are clipped apart: a canary has one in each."""
    return 1 if mechanism.grouped is None else len(mechanism.grouped.groups.names)


def canary_groups(count: int, num_canaries: int) -> ParameterGroups:
    """So many groups of an audit's update, all alike."""
    names = tuple(f"group-{number}" for number in range(count))
    return ParameterGroups(names, tuple((number, num_canaries + NUM_SILENT) for number in range(count)))


@dataclass(frozen=True)
class _InOne:
    """How somebody reads the coordinates that one canary has in every group together, in the way that tells most.

    of: a vector of sums -> of each canary, with what it contributes as 1. std: of the noise as stated, over that.
    """

    of: Callable[[Vector], Vector]
    std: float


def _in_one(mechanism: Mechanism, state: MechanismState, round_: int) -> _InOne:
    """Of one group, sums over the clipping bound.

    Of more, each with its bound C and its noise sigma, the sums weighted by C / sigma^2: what canaries contribute is
    then their squared distance in units of the noise, and the noise's variance is the same.
    """
    bound = mechanism.clipping_bound(state)
    if mechanism.grouped is None:
        return _InOne(lambda sums: sums / bound, mechanism.noise_std(state, round_))
    bounds, stds = np.array(mechanism.grouped.bounds(state)), np.array(mechanism.grouped.noise_stds(state, round_))
    weights, distance = bounds / stds**2, float(((bounds / stds) ** 2).sum())
    return _InOne(
        lambda sums: np.asarray(weights @ sums.reshape(len(weights), -1) / distance), bound / math.sqrt(distance)
    )


def _contributions(joined: list[str], signs: Vector, size: int) -> Vector:
    """What the clients of a round should have added to its sum, over the clipping bound."""
    found = np.zeros(size)
    canaries = [number for number in map(canary_number, set(joined)) if number is not None]
    found[canaries] = signs[canaries]
    return found


def _setup(
    path: PrivacyPath, cohort: CohortOptions, signs: Vector, size: int, given: list[torch.Tensor]
) -> TrainingSetup:
    """A run's set-up with canaries for data; what its mechanism is given is kept in ``given``."""

    def drawn(round_: int) -> list[str]:
        numbers = ((client_id, canary_number(client_id)) for client_id in path.sampler.sample(round_))
        return [client_id for client_id, number in numbers if number is None or signs[number] != 0]

    def add_noise(
        total: torch.Tensor, stats: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        given.append(total.clone())
        return path.mechanism.add_noise(total, stats, round_, state)

    mechanism: Mechanism = replace(path.mechanism, add_noise=add_noise)
    silent = make_local_mechanism(LocalPrivacyOptions(), path.sampler.description, 1, 0)
    worker = canary_worker(cohort, signs, size, silent, mechanism.clipping)
    return TrainingSetup(worker, replace(path.sampler, sample=drawn), mechanism, noise_seed=0)


def canary_worker(
    cohort: CohortOptions, signs: Vector, size: int, local_mechanism: LocalMechanism, clipping: Clipping
) -> WorkerSetup:
    """What trains canaries: no more of a model than there has to be, and nothing to score.

    Whose turn it is, the path says: how cohorts are drawn is no worker's business.
    """
    return WorkerSetup(
        config=replace(TrainConfig.of(device="cpu", num_threads=1), cohort=replace(cohort, cohort_sampling="auto")),
        # No photographs, no labels.
        store=Store(Path("canaries"), StoreMetadata((), (), {}, {}), {}),
        labels=LabelSpace((), fine=False),
        module=nn.Linear(1, 1),
        device=torch.device("cpu"),
        kernels=chosen().kind,
        clients=CanaryClients([]),
        algorithm=Algorithm(lambda parameters: {}, _canary_update(signs, size), _server_update),
        local_mechanism=local_mechanism,
        clipping=clipping,
    )


def _canary_update(
    signs: Vector, size: int
) -> Callable[[FlatModel, Broadcast, ClientData, np.random.Generator], ClientUpdate]:
    def client_update(
        model: FlatModel, server: Broadcast, client: ClientData, generator: np.random.Generator
    ) -> ClientUpdate:
        delta = torch.zeros(size)
        canary = canary_number(client.client_id)
        if canary is not None:
            delta[canary :: size // max(len(server.group_bounds), 1)] = 1000 * signs[canary] * server.clipping_bound
        return ClientUpdate(delta, 1.0, 1, LocalMetrics())

    return client_update


def _server_update(state: ServerState, mean_delta: torch.Tensor, cohort_sum: UpdateSum) -> ServerState:
    return replace(state, round=state.round + 1, parameters=mean_delta)
