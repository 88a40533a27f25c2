"""The audit's run: canary clients through ``training/round.py``, the very rounds that training is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import lfilter
from torch import nn

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.data.store.labels import LabelSpace
from fedflair.data.store.packed import Store, StoreMetadata
from fedflair.engine.cpu.kernels import chosen
from fedflair.engine.flat_model import FlatModel
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.algorithms import Algorithm
from fedflair.federated.client import ClientUpdate
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.federated.server import Broadcast, ServerState
from fedflair.federated.setup import TrainingSetup, WorkerSetup
from fedflair.privacy.mechanisms import LocalPrivacyOptions, make_local_mechanism
from fedflair.privacy.path import PrivacyPath
from fedflair.training.round import run_round

# Coordinates that no client ever moves: what is seen there is noise alone.
NUM_SILENT = 4096

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a run looked like from outside and from inside.

    cohorts: client ids a round.
    released: what an observer has, [rounds, num_canaries + NUM_SILENT], in units of the stated noise.
    noise: the same less what the clients should have contributed.
    coefficients: of the filter that made both independent over rounds, [1] where they are; of norm 1 at most.
    """

    cohorts: list[list[str]]
    released: Vector
    noise: Vector
    coefficients: Vector


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


def run_canaries(path: PrivacyPath, client_ids: list[str], num_rounds: int, num_canaries: int) -> Seen:
    """Trains for ``num_rounds`` rounds on ``path``; each canary sends 1,000 times the clipping bound in its coordinate.

    The server's optimizer takes the mean as it is, so that what it was given can be read off its parameters.
    """
    mechanism, size = path.mechanism, num_canaries + NUM_SILENT
    cohort_size = path.sampler.description.cohort_size
    state = ServerState(0, torch.zeros(size), {}, {}, mechanism.init(size))
    setup = _setup(path, client_ids, size)
    cohorts, released, noise = [], [], []
    with thread_backend(setup.worker) as backend:
        for round_ in range(num_rounds):
            cohort = path.sampler.sample(round_)
            bound, std = mechanism.clipping_bound(state.mechanism_state), mechanism.noise_std(state.mechanism_state)
            state, _ = run_round(state, cohort, setup=setup, backend=backend)
            promised = np.zeros(size)
            promised[[number for number in map(canary_number, cohort) if number is not None]] = bound
            total = state.parameters.double().numpy() * cohort_size
            cohorts.append(cohort)
            released.append(total / std)
            noise.append((total - promised) / std)
    # Noise that is correlated over rounds is made independent again, which an observer can do as well.
    coefficients = np.ones(1)
    if "coefficients" in state.mechanism_state:
        coefficients = state.mechanism_state["coefficients"].numpy()
        released = list(lfilter(coefficients, [1.0], np.stack(released), axis=0))
        noise = list(lfilter(coefficients, [1.0], np.stack(noise), axis=0))
    return Seen(cohorts, np.stack(released), np.stack(noise), coefficients)


def _setup(path: PrivacyPath, client_ids: list[str], size: int) -> TrainingSetup:
    """A run's set-up with canaries for data, and no more of a model than there has to be."""

    def client_update(
        model: FlatModel, server: Broadcast, client: ClientData, generator: np.random.Generator
    ) -> ClientUpdate:
        delta = torch.zeros(size)
        canary = canary_number(client.client_id)
        if canary is not None:
            delta[canary] = 1000 * server.clipping_bound
        return ClientUpdate(delta, 1.0, 1, LocalMetrics())

    def server_update(state: ServerState, mean_delta: torch.Tensor, cohort_sum: UpdateSum) -> ServerState:
        return replace(state, round=state.round + 1, parameters=mean_delta)

    worker = WorkerSetup(
        config=TrainConfig.of(device="cpu", num_threads=1),
        # There is nothing to score: no photographs, no labels.
        store=Store(Path("canaries"), StoreMetadata((), (), {}, {}), {}),
        labels=LabelSpace((), fine=False),
        module=nn.Linear(1, 1),
        device=torch.device("cpu"),
        kernels=chosen().kind,
        clients=CanaryClients(client_ids),
        algorithm=Algorithm(lambda parameters: {}, client_update, server_update),
        local_mechanism=make_local_mechanism(LocalPrivacyOptions(), path.sampler.description, 1, 0),
        clipping=path.mechanism.clipping,
    )
    return TrainingSetup(worker, path.sampler, path.mechanism, noise_seed=0)
