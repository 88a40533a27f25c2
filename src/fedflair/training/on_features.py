"""Before the rounds of a head that trains on frozen features: the features, and that they are the run's own."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

from fedflair.errors import DataError, Interrupted, WorkerError
from fedflair.evaluation.features import with_features
from fedflair.system.terminal import say
from fedflair.training.beginning import Beginning
from fedflair.training.words import to_be_continued


def on_features(beginning: Beginning, stop: threading.Event, *, quiet: bool) -> Beginning:
    """The beginning with its features, which are computed where they are missing; all others as they are.

    Raises DataError where a run that goes on was trained on other features, Interrupted where it is stopped meanwhile.
    """
    if beginning.setup.worker.on_features is None:
        return beginning
    try:
        tell = _say_nothing if quiet else partial(say, stderr=True)
        setup = with_features(beginning.setup, stop, tell)
    except (Interrupted, WorkerError) as error:
        raise to_be_continued(error, beginning.folder, beginning.state.round) from error
    found = setup.worker.on_features
    if found is not None and beginning.facts.setdefault("features", found.digests()) != found.digests():
        raise DataError(
            f"{found.folder}: not the features that the run was trained on (computed on another machine?); put those "
            "back, or start a new run"
        )
    return replace(beginning, setup=setup)


def _say_nothing(text: str) -> None:
    """Where nobody listens."""
