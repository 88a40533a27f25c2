"""What people's own code is told of each round, and how it may end a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedflair.errors import ConfigError


@dataclass(frozen=True)
class RoundDone:
    """A round that is done, logged and, where it was scored, saved.

    round: the first is 1. num_rounds: of the whole run. metrics: its row; ``val/...`` are in it where it was scored.
    is_best: its model is the best on val so far. run: the run's folder.
    """

    round: int
    num_rounds: int
    metrics: Mapping[str, float | int | None]
    is_best: bool
    run: Path


# Returning True ends the run with the next round that is scored, this one if it was.
Callback = Callable[[RoundDone], bool | None]


def asks_to_end(callback: Callback | None, done: RoundDone, leave: Callable[[], None]) -> bool:
    """Tells the callback of a round; whether it wants the run to end. leave: what is done before its error passes on.

    Raises what the callback raises, and ConfigError where it returns neither a truth value nor None.
    """
    if callback is None:
        return False
    try:
        answer = callback(done)
        if answer is not None and not isinstance(answer, bool):
            raise ConfigError(f"callback: returned {answer!r}; return True to end the run, or nothing to go on")
    except BaseException:
        leave()
        raise
    return answer is True
