"""FLAIR's synthetic twin, which needs no download, in any of the forms FLAIR comes in.

Users, labels and their counts follow FLAIR's published statistics (``labels.py``); the photographs are drawn so
that each label can be seen and each user has a look of his own (``images.py``). Scale ``full`` has every
published count. ``mini`` is a hundred-and-thirtieth of it and deviates in three ways: no coarse label is on fewer than
2 % of a partition's images, so that each can be learned and scored; no user has more than 5 % of the images; and only
the 149 most frequent of the 1,628 fine-grained labels are used, since the others would have no image or one.

Everything depends on the seed alone, not on the number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from fedflair.data.preparation.packing import PrepareSummary, Track, pack, untracked
from fedflair.data.preparation.prepare import check_output
from fedflair.data.published import NUM_USERS
from fedflair.data.sources.records import Record, Source
from fedflair.data.sources.release_formats import RELEASES, new_folder
from fedflair.data.synthetic.forms import Format, ScaleName
from fedflair.data.synthetic.images import render
from fedflair.data.synthetic.labels import FINE_NAMES, PartitionLabels, make_labels
from fedflair.data.synthetic.vocabulary import COARSE_LABELS, FINE_TO_COARSE
from fedflair.errors import ConfigError, DataError
from fedflair.system.cores import num_cores
from fedflair.system.processes import end_with_parent

STORE_NAME = "flair.hdf5"
MIN_USERS = 10
_IMAGES_PER_TASK = 64
_TASKS_AHEAD = 4


@dataclass(frozen=True)
class Scale:
    """num_users: where none is asked for.  min_label_share: see :func:`labels.make_labels`."""

    num_users: int
    min_label_share: float


SCALES: dict[str, Scale] = {"mini": Scale(400, 0.02), "full": Scale(NUM_USERS, 0.0)}


@dataclass(frozen=True)
class Synthesized:
    """What was made. packed: the store's summary, None where the output is a folder of releases."""

    num_images: int
    packed: PrepareSummary | None


def synthesize(
    *,
    output: Path,
    scale: ScaleName = "mini",
    num_users: int | None = None,
    seed: int = 0,
    format: Format = "packed",
    processes: int | None = None,
    track: Track = untracked,
) -> Synthesized:
    """Writes the twin to ``output``; the options are those of ``fedflair synthesize``.

    Raises ConfigError for an impossible option, DataError where the output cannot be written.
    """
    if format not in ("packed", "huggingface", "apple", "all"):
        raise ConfigError(f"format {format!r} is unknown; choose packed, huggingface, apple or all")
    source = synthetic_source(scale, seed, num_users=num_users, processes=processes, mixed=format != "packed")
    num_images = source.num_records or 0
    if format == "packed":
        check_output(source.path, output)
        return Synthesized(num_images, pack(source, output, track=track))
    with ExitStack() as stack:
        folder = stack.enter_context(new_folder(output))
        sinks = []
        for name, write in RELEASES.items():
            if format in (name, "all"):
                place = folder / name if format == "all" else folder
                sinks.append(stack.enter_context(write(place, source.fine_to_coarse, num_images)))

        def records() -> Iterator[Record]:
            for record in source.records():
                for sink in sinks:
                    sink(record)
                yield record

        if format == "all":
            pack(replace(source, records=records), folder / STORE_NAME, track=track)
        else:
            deque(track(records(), num_images), maxlen=0)
    return Synthesized(num_images, None)


def synthetic_source(
    scale: str = "mini",
    seed: int = 0,
    *,
    num_users: int | None = None,
    processes: int | None = None,
    mixed: bool = False,
) -> Source:
    """The synthetic twin as a source like any other; its photographs are drawn as its records are read.

    Records come by partition, and there user by user, or in the order of the image ids if ``mixed``, as a release has
    them. The other arguments are those of :func:`synthesize`. Raises ConfigError for an impossible one.
    """
    if scale not in SCALES:
        raise ConfigError(f"scale {scale!r} is unknown; choose one of {', '.join(SCALES)}")
    users = SCALES[scale].num_users if num_users is None else num_users
    if not MIN_USERS <= users <= NUM_USERS:
        raise ConfigError(f"num_users {users} is out of range; it must be from {MIN_USERS} to {NUM_USERS}")
    workers = num_cores() if processes is None else processes
    if workers < 1:
        raise ConfigError(f"processes {workers} is out of range; it must be at least 1")
    labels = make_labels(users, seed, min_label_share=SCALES[scale].min_label_share)
    used = np.unique(np.concatenate([part.fine_indices for part in labels.values()]))
    return Source(
        name="synthetic",
        path=Path(f"synthetic-{scale}-{users}-users-seed-{seed}"),
        records=partial(_records, labels, seed, workers, mixed),
        fine_to_coarse=FINE_TO_COARSE,
        num_records=sum(part.num_images for part in labels.values()),
        labels=COARSE_LABELS,
        fine_grained_labels=tuple(FINE_NAMES[k] for k in used),
    )


def _records(labels: dict[str, PartitionLabels], seed: int, processes: int, mixed: bool) -> Iterator[Record]:
    photographs = _photographs(labels, mixed)
    if processes == 1:
        for batch in _batches(photographs):
            yield from _draw(seed, batch)
        return
    # A forked worker has the libraries in memory already, which a fresh one takes seconds to load. From Python 3.12 on
    # forking beside threads is deprecated.
    method = "fork" if sys.platform == "linux" and sys.version_info < (3, 12) else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(processes, context, initializer=_begin_worker, initargs=(os.getpid(),)) as pool:
        coming: deque[Future[list[Record]]] = deque()
        try:
            for batch in _batches(photographs):
                coming.append(pool.submit(_draw, seed, batch))
                if len(coming) > _TASKS_AHEAD * processes:
                    yield from coming.popleft().result()
            while coming:
                yield from coming.popleft().result()
        except BrokenProcessPool as error:
            raise DataError("a process that draws photographs died; try again with fewer --processes") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker(parent: int) -> None:
    """A worker ends with the process that started it, which alone handles Ctrl-C and a closed terminal."""
    end_with_parent(parent)
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    # The pool ends its workers by it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@dataclass(frozen=True)
class _Photograph:
    """One photograph to draw, the ``position``-th of its user."""

    user_id: str
    position: int
    image_id: int
    partition: str
    fine: tuple[int, ...]


def _photographs(labels: dict[str, PartitionLabels], mixed: bool) -> Iterator[_Photograph]:
    for name, part in labels.items():
        user_of_image = np.repeat(np.arange(len(part.user_ids)), np.diff(part.user_offsets))
        order = np.argsort(part.image_ids) if mixed else np.arange(part.num_images)
        for image in order.tolist():
            user = int(user_of_image[image])
            yield _Photograph(
                user_id=part.user_ids[user],
                position=image - int(part.user_offsets[user]),
                image_id=int(part.image_ids[image]),
                partition=name,
                fine=tuple(part.fine_indices[part.fine_offsets[image] : part.fine_offsets[image + 1]].tolist()),
            )


def _batches(photographs: Iterator[_Photograph]) -> Iterator[list[_Photograph]]:
    while batch := list(islice(photographs, _IMAGES_PER_TASK)):
        yield batch


def _draw(seed: int, batch: list[_Photograph]) -> list[Record]:
    return [_record(seed, photograph) for photograph in batch]


def _record(seed: int, photograph: _Photograph) -> Record:
    fine = tuple(FINE_NAMES[k] for k in photograph.fine)
    return Record(
        user_id=photograph.user_id,
        image_id=photograph.image_id,
        partition=photograph.partition,
        labels=tuple(sorted({FINE_TO_COARSE[name] for name in fine})),
        fine_grained_labels=fine,
        image=render(seed, photograph.user_id, photograph.position, fine),
        where=f"synthetic image {photograph.image_id}",
    )
