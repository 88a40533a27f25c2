"""What a run writes into its folder, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.client_states import NO_STATES, ClientStates
from fedflair.federated.participation import Participation
from fedflair.federated.server import ServerState
from fedflair.federated.setup import initial_state, make_setup
from fedflair.privacy.mechanisms import CohortStats
from fedflair.runs.folder import RunFolder
from fedflair.runs.tensors import load_tensors
from fedflair.training.checkpoint import load_state, save_checkpoint
from fedflair.training.record import round_row, save_best
from tests.small_runs import small_config

FACTS = {"best": 0.5, "best_round": 2, "seconds": 1.5, "noise_seed": 1234}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    found.last.parent.mkdir(parents=True)
    return found


@pytest.fixture
def state() -> ServerState:
    return ServerState(3, torch.arange(4.0), {"momentum": torch.ones(4)}, {}, {})


def saved_round(folder: RunFolder) -> int:
    """Of the checkpoint that is in place."""
    return int(load_tensors(folder.last)[1]["round"])


def test_client_states_are_saved_before_a_checkpoint_and_pruned_after_it(folder: RunFolder, state: ServerState) -> None:
    save_checkpoint(folder, replace(state, round=2), FACTS, NO_STATES)
    seen = []
    states = ClientStates(
        get=NO_STATES.get,
        put=NO_STATES.put,
        save=lambda round_: seen.append(("save", round_, saved_round(folder))),
        prune=lambda round_: seen.append(("prune", round_, saved_round(folder))),
        digest=NO_STATES.digest,
    )
    save_checkpoint(folder, state, FACTS, states)
    assert seen == [("save", 3, 2), ("prune", 3, 3)]
    back, facts = load_state(folder.last, torch.device("cpu"))
    assert (back.round, facts["noise_seed"], facts["best_round"]) == (3, 1234, 2)
    assert torch.equal(back.parameters, state.parameters)
    assert torch.equal(back.optimizer_state["momentum"], torch.ones(4))


def test_the_row_of_a_private_round(tiny_store: Path) -> None:
    config = small_config(
        tiny_store, model="small_cnn", central_privacy_mechanism="gaussian_moments_accountant", central_epsilon=50,
        central_delta=0.001, central_privacy_clipping_bound=0.25,
    )  # fmt: skip
    setup = make_setup(config, noise_seed=0)
    cohort_sum = UpdateSum(cohort=CohortStats(num_clients=3, num_clipped=2, num_rejected=1))
    row = round_row(setup, initial_state(setup), cohort_sum, Participation(["a", "b", "c"], bytes_up=12), seconds=2.0)
    multiplier = setup.mechanism.description["noise_multiplier"]
    assert row == {
        "round": 0,
        "train/loss": None,
        "train/seconds": 2.0,
        "privacy/clipping_bound": 0.25,
        "privacy/noise_std": pytest.approx(0.25 * multiplier),
    }


def test_the_best_model_carries_no_secret(folder: RunFolder, state: ServerState) -> None:
    save_best(folder, state, FACTS)
    tensors, facts = load_tensors(folder.best)
    assert set(tensors) == {"parameters"}
    assert "noise_seed" not in facts
    assert (facts["best"], facts["best_round"]) == (0.5, 2)
    assert b"1234" not in folder.best.read_bytes()
