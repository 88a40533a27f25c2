"""One round of federated learning, from a cohort's clients to the server's next state.

cohort from (seed, round) -> each client trains -> clip -> streaming sum -> noise once -> divide -> server optimizer.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fedflair.backends.contract import Backend
from fedflair.engine.vector import quotient
from fedflair.federated.aggregate import Release, TreeSum, UpdateSum, cohort_groups
from fedflair.federated.client_states import NO_STATES, ClientStates
from fedflair.federated.participation import Participation, participate
from fedflair.federated.server import Broadcast, ServerState
from fedflair.federated.setup import TrainingSetup
from fedflair.privacy.contract import Mechanism, MechanismState
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.mechanisms.clipping import vector_norm
from fedflair.training.client_group import ClientWork, train_group


def run_round(
    state: ServerState,
    cohort: list[str],
    *,
    setup: TrainingSetup,
    backend: Backend,
    states: ClientStates = NO_STATES,
) -> tuple[ServerState, UpdateSum]:
    """One round from ``state`` with the clients of ``cohort``: (next state, sum over the cohort before noise).

    Without a central mechanism the sum is divided by the sum of weights; with one, by the expected cohort size, since
    the realised one is not public. Raises Interrupted between two clients when the backend is stopped.
    """
    mechanism = setup.mechanism
    server = Broadcast(
        state.round,
        state.parameters,
        state.algorithm_state,
        mechanism.clipping_bound(state.mechanism_state),
        mechanism.group_bounds(state.mechanism_state),
    )
    most = setup.config.data.max_num_user_images
    groups = cohort_groups(
        cohort,
        lambda client_id: min(setup.worker.clients.num_images(client_id), most),
        quick=setup.worker.on_features is not None,
    )
    work = ([ClientWork(client_id, states.get(state.round, client_id)) for client_id in group] for group in groups)
    tree = TreeSum(len(groups))
    for index, partial in backend.map_unordered(train_group, server, work, summed=True):
        states.put(state.round, partial.client_states)
        tree.add(index, replace(partial, client_states={}))
    cohort_sum = seen = tree.total
    total = torch.zeros_like(state.parameters) if cohort_sum.delta is None else cohort_sum.delta
    if mechanism.name == "none":
        divisor = cohort_sum.weight or 1.0
    else:
        divisor = float(setup.sampler.description.cohort_size)
        before = state.mechanism_state
        total, mechanism_state = mechanism.add_noise(total, cohort_sum.cohort, state.round, before)
        release = released(mechanism, total, divisor, before, state.round)
        state, cohort_sum = replace(state, mechanism_state=mechanism_state), replace(cohort_sum, release=release)
        seen = cohort_sum
    if is_private(setup):
        # Nothing of the clients reaches the next model but the noisy sum.
        seen = UpdateSum(release=cohort_sum.release)
    return setup.worker.algorithm.server_update(state, quotient(total, divisor), seen), cohort_sum


def released(
    mechanism: Mechanism, noisy: torch.Tensor, divisor: float, before: MechanismState, round_: int
) -> Release | None:
    """What the noisy sum (float32 [P]) says of itself, from ``before``, the mechanism's state before the round."""
    std = mechanism.noise_std(before, round_)
    if not std > 0:
        return None
    expected = noisy.numel() * std**2
    ratio = vector_norm(noisy, 2.0) ** 2 / expected - 1
    if mechanism.grouped is None:
        return Release(torch.tensor((std / divisor) ** 2, dtype=torch.float64), ratio)
    variances = [(each / divisor) ** 2 for each in mechanism.grouped.noise_stds(before, round_)]
    return Release(mechanism.grouped.groups.spread(variances, noisy.device), ratio)


def who_answers(setup: TrainingSetup, state: ServerState) -> Participation:
    """The clients that a round is made of, out of those that are sampled for it."""
    asked = setup.sampler.sample(state.round)
    if not setup.worker.algorithm.federated:
        return Participation(asked)
    return participate(
        asked,
        state.round,
        config=setup.config,
        clients=setup.worker.clients,
        num_parameters=state.parameters.numel(),
        vectors_up=setup.worker.algorithm.vectors_up,
        vectors_down=1 + sum(tensor.ndim > 0 for tensor in state.algorithm_state.values()),
    )


def is_private(setup: TrainingSetup) -> bool:
    """Whether the run's rounds have an epsilon, and so a ledger."""
    return ledger.is_due(setup.mechanism)
