"""What workers do in a round: train a group of clients and sum their updates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from fedflair.backends.contract import Worker, naming
from fedflair.errors import FedflairError, PrivacyError
from fedflair.evaluation.users import with_local_evaluation
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.client import ClientUpdate
from fedflair.federated.compression import COMPRESSIONS
from fedflair.federated.server import Broadcast
from fedflair.federated.setup import WorkerSetup
from fedflair.privacy.contract import Clipping
from fedflair.privacy.mechanisms import ClipResult
from fedflair.sampling import stream


@dataclass(frozen=True)
class ClientWork:
    """One client of a group. state: what the algorithm keeps of it between rounds."""

    client_id: str
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)


def train_group(worker: Worker[WorkerSetup], server: Broadcast, group: list[ClientWork]) -> UpdateSum:
    """Trains the clients of a group one by one and sums what they send.

    Each update goes through the client's own mechanism, then through the central clipping. Raises WorkerError, naming
    the client, for whatever is not an error of the package's own.
    """
    partial = UpdateSum()
    for work in group:
        worker.check_stop()
        with _of_client(server, work):
            partial = _add_client(worker, server, work, partial)
    return partial


@contextmanager
def _of_client(server: Broadcast, work: ClientWork) -> Iterator[None]:
    """Marks whatever goes wrong as the client's: a private run tells its owner only (``secrecy.py``)."""
    try:
        # Rounds are counted from 1 wherever a person reads of them.
        with naming(f"round {server.round + 1}: client {work.client_id}"):
            yield
    except FedflairError as error:
        error.of_client = True
        raise


def _add_client(worker: Worker[WorkerSetup], server: Broadcast, work: ClientWork, partial: UpdateSum) -> UpdateSum:
    setup = worker.setup
    generator = stream(setup.config.run.seed, "client", server.round, work.client_id)
    client = setup.clients.load(work.client_id, setup.config.data.max_num_user_images, generator)
    client = replace(client, state=work.state)
    update = setup.algorithm.client_update(worker.model, server, client, generator)
    if setup.config.evaluation.local_evaluation:
        update = with_local_evaluation(worker, server, client, update)
    clip = bound_update(setup, update, server, work.client_id)
    return partial.add_client(work.client_id, update, clip, measured(setup, update, server, clip))


def measured(setup: WorkerSetup, update: ClientUpdate, server: Broadcast, clip: ClipResult) -> tuple[float, ...]:
    """What of the client's metrics goes with its update through the central mechanism; nothing where none do."""
    measure = setup.clipping.measure
    if measure is None:
        return ()
    return measure(server.clipping_bound, update.metrics.loss, update.num_examples, clip)


def bound_update(setup: WorkerSetup, update: ClientUpdate, server: Broadcast, client_id: str) -> ClipResult:
    """What mechanisms and compression do to an update before it is summed, in place; central clipping comes last.

    One that was not finite counts as rejected, and not as clipped too, whatever the client's own noise made of it.
    Raises PrivacyError where an algorithm gives an update more than one say, or sends what no mechanism bounds.
    """
    local, central = setup.local_mechanism, setup.clipping
    if (local.name, central.mechanism) == ("none", "none"):
        _compress(setup, update, server, client_id)
        return _clip(central, update.delta, server)
    if update.weight != 1 or update.extra:
        name = setup.config.algorithm.algorithm_name
        raise PrivacyError(
            f"algorithm_name: {name} weighs updates or sends more than them, which no privacy "
            "mechanism covers; use fedavg"
        )
    own = None if local.name == "none" else local.privatise(update.delta, server.round, client_id)
    _compress(setup, update, server, client_id)
    clip = _clip(central, update.delta, server)
    if own is None or not own.rejected:
        return clip
    return replace(clip, clipped=False, rejected=True, groups=(False,) * len(clip.groups))


def _clip(central: Clipping, update: torch.Tensor, server: Broadcast) -> ClipResult:
    if central.clip_groups is None:
        return central.clip(update, server.clipping_bound)
    return central.clip_groups(update, server.group_bounds)


def _compress(setup: WorkerSetup, update: ClientUpdate, server: Broadcast, client_id: str) -> None:
    """What is lost of an update on its way to the server, in place."""
    generator = stream(setup.config.run.seed, "compression", server.round, client_id)
    COMPRESSIONS[setup.config.cohort.compression].apply(update.delta, setup.config.cohort, generator)
