"""Models of idle workers, lent to one that is busy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fedflair.engine.flat_model import FlatModel


@dataclass(frozen=True)
class Spare:
    """model: a scratch model for the borrower alone, until it calls ``give_back``.

    start: ``(function, *arguments)`` -> the future of ``function(model, *arguments)``, computed on a core of its own.
    give_back: waits for what was started.
    """

    model: FlatModel
    start: Callable[..., Future[Any]]
    give_back: Callable[[], None]


class Spares(Protocol):
    """Who lends."""

    def lend(self) -> Spare | None:
        """A spare model, or None at once where no worker is idle."""
