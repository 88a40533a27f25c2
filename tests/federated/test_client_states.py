"""States of clients: what a checkpoint sees, what is forgotten, and what is left on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedflair.errors import DataError
from fedflair.federated.client_states import STORAGES, ClientStates, open_states

CLIENTS = ["a", "b", "c", "d"]


def opened(folder: Path, kind: str, round_: int = 0, max_clients: int | None = None) -> ClientStates:
    return open_states(STORAGES[kind](folder), CLIENTS, round_, max_clients)


def put(states: ClientStates, round_: int, **values: float) -> None:
    states.put(round_, {name: {"control": torch.tensor([value, -value])} for name, value in values.items()})


def seen(states: ClientStates, round_: int) -> dict[str, float]:
    found = {name: states.get(round_, name) for name in CLIENTS}
    return {name: float(state["control"][0]) for name, state in found.items() if state}


def checkpoint(states: ClientStates, round_: int) -> None:
    states.save(round_)
    states.prune(round_)


@pytest.mark.parametrize("kind", STORAGES)
def test_a_round_sees_the_rounds_before_it(tmp_path: Path, kind: str) -> None:
    states = opened(tmp_path, kind)
    put(states, 0, a=1.0, b=2.0)
    assert seen(states, 1) == {"a": 1.0, "b": 2.0}
    put(states, 1, b=3.0, c=4.0)
    assert seen(states, 2) == {"a": 1.0, "b": 3.0, "c": 4.0}


@pytest.mark.parametrize("kind", STORAGES)
def test_a_checkpoint_brings_back_its_round(tmp_path: Path, kind: str) -> None:
    states = opened(tmp_path, kind)
    put(states, 0, a=1.0, b=2.0)
    checkpoint(states, 1)
    put(states, 1, a=5.0)
    put(states, 2, b=6.0, c=7.0)
    # Killed here: what came after the checkpoint is gone, and the rounds are done again.
    again = opened(tmp_path, kind, 1)
    assert seen(again, 1) == {"a": 1.0, "b": 2.0}
    put(again, 1, a=5.0)
    put(again, 2, b=6.0, c=7.0)
    checkpoint(again, 3)
    assert seen(opened(tmp_path, kind, 3), 3) == {"a": 5.0, "b": 6.0, "c": 7.0}
    # The checkpoint before, of round 1, still has its own, until there is another one.
    num_files = len(list(tmp_path.rglob("*.safetensors")))
    assert num_files == {"disk": 5, "memory": 2}[kind]
    put(again, 3, c=8.0)
    checkpoint(again, 4)
    num_files = len(list(tmp_path.rglob("*.safetensors")))
    assert num_files == {"disk": 4, "memory": 2}[kind]


@pytest.mark.parametrize("kind", STORAGES)
def test_the_checkpoint_before_the_last_keeps_its_states(tmp_path: Path, kind: str) -> None:
    states = opened(tmp_path, kind, max_clients=2)
    put(states, 0, a=1.0, b=2.0)
    checkpoint(states, 1)
    put(states, 1, a=3.0)
    put(states, 2, c=4.0)
    checkpoint(states, 3)
    digest = states.digest(3)
    put(states, 3, a=5.0, c=6.0)
    checkpoint(states, 4)
    assert seen(states, 4) == {"a": 5.0, "c": 6.0}
    put(states, 4, a=7.0)
    # Killed here, and continued from the checkpoint before the last.
    back = opened(tmp_path, kind, 3, max_clients=2)
    assert seen(back, 3) == {"a": 3.0, "c": 4.0}
    assert back.digest(3) == digest
    put(back, 3, a=5.0, c=6.0)
    checkpoint(back, 4)
    assert seen(opened(tmp_path, kind, 4, max_clients=2), 4) == {"a": 5.0, "c": 6.0}


@pytest.mark.parametrize("kind", STORAGES)
def test_the_digest_tells_whose_states_of_which_rounds_there_are(tmp_path: Path, kind: str) -> None:
    digests = []
    for folder, rounds in (("one", (0, 1)), ("two", (1, 0)), ("three", (0, 1))):
        states = opened(tmp_path / folder, kind)
        for name, round_ in sorted(zip("ab", rounds), key=lambda pair: pair[1]):
            put(states, round_, **{name: 1.0})
        checkpoint(states, 2)
        digests.append(opened(tmp_path / folder, kind, 2).digest(2))
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("kind", STORAGES)
def test_a_damaged_state_is_refused(tmp_path: Path, kind: str) -> None:
    states = opened(tmp_path, kind)
    put(states, 0, a=1.5)
    checkpoint(states, 1)
    (path,) = tmp_path.rglob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        opened(tmp_path, kind, 1).get(1, "a")


@pytest.mark.parametrize("kind", STORAGES)
def test_killed_between_the_checkpoint_and_the_clearing_up(tmp_path: Path, kind: str) -> None:
    states = opened(tmp_path, kind)
    put(states, 0, a=1.0)
    checkpoint(states, 1)
    put(states, 1, a=2.0)
    states.save(2)
    assert seen(opened(tmp_path, kind, 2), 2) == {"a": 2.0}
    assert seen(opened(tmp_path, kind, 1), 1) == {"a": 1.0}


@pytest.mark.parametrize("kind", STORAGES)
def test_a_round_that_was_stopped_half_way_is_not_saved(tmp_path: Path, kind: str) -> None:
    states = opened(tmp_path, kind)
    put(states, 0, a=1.0)
    put(states, 1, a=2.0)
    checkpoint(states, 1)
    assert seen(opened(tmp_path, kind, 1), 1) == {"a": 1.0}


@pytest.mark.parametrize("kind", STORAGES)
def test_the_oldest_are_forgotten_first_whatever_the_order_they_came_in(tmp_path: Path, kind: str) -> None:
    views = []
    for folder, first in (("one", {"a": 1.0, "b": 2.0, "c": 3.0}), ("two", {"c": 3.0, "b": 2.0, "a": 1.0})):
        states = opened(tmp_path / folder, kind, max_clients=2)
        put(states, 0, **first)
        view = [seen(states, 1)]
        put(states, 1, a=9.0)
        view.append(seen(states, 2))
        checkpoint(states, 2)
        view.append(seen(opened(tmp_path / folder, kind, 2, max_clients=2), 2))
        views.append(view)
    assert views[0] == views[1] == [{"b": 2.0, "c": 3.0}, {"a": 9.0, "c": 3.0}, {"a": 9.0, "c": 3.0}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", STORAGES)
def test_numbers_come_back_as_they_were(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    control = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    states = opened(tmp_path, kind)
    states.put(0, {"a": {"control": control}})
    checkpoint(states, 1)
    back = opened(tmp_path, kind, 1).get(1, "a")["control"]
    assert back.dtype == dtype
    assert torch.equal(back, control)


def test_a_file_that_a_kill_cut_short_is_swept_away(tmp_path: Path) -> None:
    states = opened(tmp_path, "disk")
    put(states, 0, a=1.0)
    (tmp_path / "000" / "1.000000.partial").write_bytes(b"half")
    assert seen(opened(tmp_path, "disk", 1), 1) == {"a": 1.0}
    assert [path.name for path in (tmp_path / "000").iterdir()] == ["0.000000.safetensors"]
