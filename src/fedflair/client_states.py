"""What an algorithm keeps of each client between rounds (SCAFFOLD's control variates)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedflair.server import Tensors


@dataclass(frozen=True)
class ClientStates:
    """get: client id -> its state, empty the first time. put: (round, states by client id) -> None."""

    get: Callable[[str], Tensors]
    put: Callable[[int, Mapping[str, Tensors]], None]


NO_STATES = ClientStates(get=lambda client_id: {}, put=lambda round_, states: None)
