"""Computes the features that a head is trained on, once for a store and a network, by the workers of the run."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from fedflair.backends.choice import choose_backend
from fedflair.backends.contract import Backend
from fedflair.data.store.features import FeatureFiles, Features, FeatureWriter, open_features, writing_features
from fedflair.errors import DataError
from fedflair.evaluation.partition import Scoring, batch_size, score_batch
from fedflair.federated.frozen_features import OnFeatures, partitions_of
from fedflair.federated.setup import TrainingSetup, with_tables

_SECONDS_BETWEEN_WORDS = 10.0


def with_features(
    setup: TrainingSetup, stop: threading.Event | None = None, tell: Callable[[str], object] = lambda words: None
) -> TrainingSetup:
    """The set-up on features of every partition; those that are not beside the store yet are computed and kept there.

    tell: is told how far it is, a line now and then. Raises Interrupted where it is stopped: what there is stays, and
    is gone on with the next time; DataError where features on the disk are damaged.
    """
    plan = setup.worker.on_features
    if plan is None:
        return setup
    tables = {name: _opened(setup, plan, name) for name in partitions_of(setup.worker.store)}
    missing = [name for name, found in tables.items() if found is None]
    if missing:
        with choose_backend(setup, stop) as backend:
            for name in missing:
                _compute(setup, plan, name, backend, tell)
                tables[name] = _opened(setup, plan, name)
    there = {name: found for name, found in tables.items() if found is not None}
    return replace(setup, worker=with_tables(setup.worker, there))


def _opened(setup: TrainingSetup, plan: OnFeatures, partition: str) -> Features | None:
    num_images = setup.worker.store.partitions[partition].num_images
    found = open_features(FeatureFiles(plan.folder, partition), num_images)
    if found is not None and (found.dimension, found.kind) != (plan.cut.dimension, plan.kind):
        raise DataError(f"{plan.folder}: damaged (of another size); remove it, and it is made again")
    return found


def _compute(
    setup: TrainingSetup, plan: OnFeatures, partition: str, backend: Backend, tell: Callable[[str], object]
) -> None:
    num_images, started = setup.worker.store.partitions[partition].num_images, time.monotonic()
    files = FeatureFiles(plan.folder, partition)
    with writing_features(files, num_images, plan.cut.dimension, plan.kind) as writer:
        before = num_images - sum(map(len, writer.missing))
        kept = f", {before:,} of them are there" if before else ""
        tell(f"features of {num_images:,} images of {partition}{kept}: computed once, kept in {plan.folder}")
        done, told = before, started
        for piece, values in _pieces(setup, partition, writer, backend):
            writer.put(piece, values)
            done += len(piece)
            if time.monotonic() - told > _SECONDS_BETWEEN_WORDS:
                told = time.monotonic()
                rate = (done - before) / (told - started)
                left = math.ceil((num_images - done) / rate / 60)
                tell(f"  {done:,} of {num_images:,} images, {rate:,.0f} a second, {left} min to go")
        writer.finish()


def _pieces(
    setup: TrainingSetup, partition: str, writer: FeatureWriter, backend: Backend
) -> Iterator[tuple[range, npt.NDArray[np.float32]]]:
    """Pieces as they are whole. A batch is the same whoever computes it, so that its bits are."""
    size = batch_size(setup.worker)
    cut = {piece: [range(k, min(k + size, piece.stop)) for k in piece[::size]] for piece in writer.missing}
    batches = [batch for parts in cut.values() for batch in parts]
    piece_of = {batch.start: piece for piece, parts in cut.items() for batch in parts}
    waiting = {piece: len(parts) for piece, parts in cut.items()}
    begun: dict[range, npt.NDArray[np.float32]] = {}
    nothing = torch.empty(0, device=setup.worker.device)
    for position, values in backend.map_unordered(score_batch, Scoring(nothing, partition), batches):
        batch = batches[position]
        piece = piece_of[batch.start]
        rows = begun.setdefault(piece, np.empty((len(piece), writer.dimension), dtype=np.float32))
        rows[batch.start - piece.start : batch.stop - piece.start] = values
        waiting[piece] -= 1
        if waiting[piece] == 0:
            yield piece, begun.pop(piece)
