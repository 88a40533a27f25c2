"""Records into a packed store, by one streaming pass.

Each record is checked as it comes, its image appended to an unnamed spool file beside the output, and a row of some 50
bytes kept in memory (429,078 images: about 21 MB, and some 150 bytes for each user). At the end the rows are sorted by
partition, user and image id, and the images copied in that order into the store. So the store depends on what the
dataset holds, not on its form, its order or how many cores there were; only the provenance differs.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import h5py
import numpy as np

from fedflair.data.images.jpeg import ImageEncoding, inspect, is_stored_png, pillow_unlimited, reencode
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.images.photographs import stored
from fedflair.data.preparation.rows import Rows, append_labels, columns_of, label_order
from fedflair.data.sources.records import PARTITION_NAMES, Record, Source
from fedflair.data.store.new_file import check_space, write_all
from fedflair.data.store.packed import PARTITIONS, IntArray, StoreMetadata
from fedflair.data.store.writing import StoreWriter, create
from fedflair.errors import DataError
from fedflair.system.cores import num_cores
from fedflair.system.threads import pool

T = TypeVar("T")
# (an image as read, the pool) -> why it is re-encoded, and the image to store or its promise.
_Make = Callable[[bytes, ThreadPoolExecutor], tuple["str | None", "bytes | Future[bytes]"]]

# Images on their way through the pool, together at most this many bytes and this many images.
_IN_FLIGHT_BYTES = 1 << 26
_IN_FLIGHT_IMAGES = 512
# Images are read, spooled and copied in pieces of this many bytes.
_PIECE_BYTES = 1 << 22
_PIECE_IMAGES = 256
_PIECES_AHEAD = 8


class Track(Protocol):
    """Passes items on, one by one, and shows a person how many of ``total`` (None where unknown) have passed."""

    def __call__(self, items: Iterator[T], total: int | None) -> Iterator[T]: ...


def untracked(items: Iterator[T], total: int | None) -> Iterator[T]:
    """The items, with nobody watching."""
    return items


@dataclass(frozen=True)
class PrepareSummary:
    """What preparation did.

    users, images: partition -> how many. labels, fine_grained_labels: how many there are of each.
    reencoded: reason -> how many images were not stored as the source has them.
    ignored: why -> how many files or members were not read.
    skipped: one line for each image left out. seconds: wall time. num_bytes: size of the output file.
    """

    source: str
    output: Path
    users: dict[str, int]
    images: dict[str, int]
    labels: int
    fine_grained_labels: int
    reencoded: dict[str, int]
    skipped: tuple[str, ...]
    ignored: dict[str, int]
    seconds: float
    num_bytes: int


def pack(
    source: Source,
    output: Path,
    *,
    encoding: ImageEncoding = "png",
    skip_bad_images: bool = False,
    check_relation: bool = True,
    limits: Limits = DEFAULT,
    track: Track = untracked,
) -> PrepareSummary:
    """Writes the store ``output`` from all records of ``source``; the options are those of :func:`prepare.prepare`.

    Raises DataError, naming file and row, at the first record that is not what it should be, and where the output
    cannot be written; no file is then left behind.
    """
    started = time.monotonic()
    with create(output) as writer, tempfile.TemporaryFile(dir=output.parent) as spool, pillow_unlimited():
        relation = source.fine_to_coarse if check_relation and not source.prepared else {}
        make = partial(_begin_image, source, encoding=encoding, limits=limits)
        rows = _collect(source, spool, make, relation, skip_bad_images=skip_bad_images, track=track)
        _check_unique(source, rows)
        names, numbers = label_order(source, rows.label_numbers, source.labels)
        fine_names, fine_numbers = label_order(source, rows.fine_numbers, source.fine_grained_labels)
        check_space(output, os.fstat(spool.fileno()).st_size)
        users, images = {}, {}
        for name in PARTITIONS:
            columns, order = columns_of(rows, name, numbers, fine_numbers)
            _copy(spool, rows, order, writer, writer.partition(name, columns))
            users[name], images[name] = columns.num_users, columns.num_images
        counts = {"users": users, "images": images, "reencoded": dict(sorted(rows.reencoded.items()))}
        relation = dict(source.fine_to_coarse)
        writer.metadata(StoreMetadata(names, fine_names, relation, _provenance(source, counts)))
    return PrepareSummary(
        source=source.name,
        output=output,
        users=users,
        images=images,
        labels=len(names),
        fine_grained_labels=len(fine_names),
        reencoded=counts["reencoded"],
        skipped=tuple(rows.skipped),
        ignored=dict(sorted(source.ignored.items())),
        seconds=time.monotonic() - started,
        num_bytes=output.stat().st_size,
    )


def _collect(
    source: Source,
    spool: IO[bytes],
    make: _Make,
    relation: dict[str, str],
    *,
    skip_bad_images: bool,
    track: Track,
) -> Rows:
    """Every record's row, its image in the spool; ``relation`` is what its labels are checked against, if anything."""
    rows = Rows()
    position = 0
    # FLAIR's all are; people's own need not be, nor what was made of a store of them.
    labelled = not (source.photographs or source.prepared)
    with pool(num_cores(), "image") as threads, _writing(spool) as write:
        for record, reason, result in track(_images(source, make, threads), source.num_records):
            _check_record(record, relation, labelled=labelled)
            user = _user_number(source, record, rows)
            try:
                image = result.result() if isinstance(result, Future) else result
            except DataError as error:
                line = f"{record.where}: image {record.image_id} is bad: {error}"
                if not skip_bad_images:
                    raise DataError(
                        f"{line}; correct it, or pass --skip_bad_images to leave such images out"
                    ) from error
                rows.skipped.append(line)
                continue
            if reason is not None:
                rows.reencoded[reason] += 1
            write(image)
            rows.users.append(user)
            rows.image_ids.append(record.image_id)
            rows.starts.append(position)
            rows.lengths.append(len(image))
            position += len(image)
            append_labels(record, record.labels, rows.label_numbers, rows.labels, rows.label_counts)
            append_labels(record, record.fine_grained_labels, rows.fine_numbers, rows.fine, rows.fine_counts)
    if not rows.image_ids:
        raise DataError(f"{source.path}: holds no image that can be stored; nothing to write")
    return rows


@contextmanager
def _writing(spool: IO[bytes]) -> Iterator[Callable[[bytes], None]]:
    """A function that appends to the spool, in large pieces and from another thread; the block's end waits for it."""
    waiting: list[bytes] = []
    num_waiting = 0

    def put(images: list[bytes]) -> None:
        write_all(spool.fileno(), images)

    with pool(1, "spool") as thread:
        last = thread.submit(put, [])

        def write(image: bytes) -> None:
            nonlocal waiting, num_waiting, last
            waiting.append(image)
            num_waiting += len(image)
            if num_waiting >= _PIECE_BYTES or len(waiting) >= _PIECE_IMAGES:
                last.result()
                last = thread.submit(put, waiting)
                waiting, num_waiting = [], 0

        yield write
        last.result()
        put(waiting)


def _images(
    source: Source, make: _Make, threads: ThreadPoolExecutor
) -> Iterator[tuple[Record, str | None, bytes | Future[bytes]]]:
    """Each record in the source's order with the reason to re-encode its image, and the image or its promise."""
    in_flight: deque[tuple[Record, str | None, bytes | Future[bytes]]] = deque()
    num_bytes = 0
    for record in _read_ahead(source.records()):
        in_flight.append((record, *make(record.image, threads)))
        num_bytes += len(record.image)
        while in_flight and (
            num_bytes > _IN_FLIGHT_BYTES or len(in_flight) > _IN_FLIGHT_IMAGES or isinstance(in_flight[0][2], bytes)
        ):
            num_bytes -= len(in_flight[0][0].image)
            yield in_flight.popleft()
    yield from in_flight


def _read_ahead(records: Iterator[Record]) -> Iterator[Record]:
    """The same records, a few megabytes of them read by another thread while the last few are worked on."""

    def take() -> list[Record]:
        taken: list[Record] = []
        num_bytes = 0
        for record in islice(records, _PIECE_IMAGES):
            taken.append(record)
            num_bytes += len(record.image)
            if num_bytes >= _PIECE_BYTES:
                break
        return taken

    with pool(1, "read") as reader:
        coming = reader.submit(take)
        while taken := coming.result():
            coming = reader.submit(take)
            yield from taken


def _begin_image(
    source: Source, image: bytes, threads: ThreadPoolExecutor, *, encoding: ImageEncoding, limits: Limits
) -> tuple[str | None, bytes | Future[bytes]]:
    try:
        reason = inspect(image, limits, any_format=source.photographs)
    except DataError as error:
        failed: Future[bytes] = Future()
        failed.set_exception(error)
        return None, failed
    if reason is None or (source.prepared and encoding == "png" and is_stored_png(image)):
        return None, image
    make = stored if source.photographs else reencode
    return reason, threads.submit(make, image, encoding if reason == "pixels" else "jpeg", limits)


def _check_record(record: Record, relation: dict[str, str], *, labelled: bool) -> None:
    """labelled: every photograph has to have labels of both kinds."""
    where = record.where
    if not record.user_id or "\x00" in record.user_id:
        raise DataError(f"{where}: user_id {record.user_id!r} is empty or holds a NUL; correct the row or remove it")
    if record.partition not in PARTITION_NAMES:
        raise DataError(
            f"{where}: partition {record.partition!r} is unknown; it must be one of {', '.join(PARTITION_NAMES)}"
        )
    if labelled and not (record.labels and record.fine_grained_labels):
        kind = "labels" if not record.labels else "fine_grained_labels"
        raise DataError(f"{where}: image {record.image_id} has no {kind}; label it or remove the row")
    if not relation:
        return
    for name in record.fine_grained_labels:
        if name not in relation:
            raise DataError(
                f"{where}: unknown fine-grained label {name!r}: label_relationship.txt has no such line; add one, "
                "correct the label, or pass --ignore_label_relation"
            )
    expected = {relation[name] for name in record.fine_grained_labels}
    if expected != set(record.labels):
        raise DataError(
            f"{where}: labels {sorted(record.labels)} disagree with label_relationship.txt, which makes "
            f"{sorted(expected)} of the fine-grained ones; correct either, or pass --ignore_label_relation"
        )


def _user_number(source: Source, record: Record, rows: Rows) -> int:
    partition = PARTITIONS.index(PARTITION_NAMES[record.partition])
    number = rows.user_numbers.get(record.user_id)
    if number is None:
        try:
            record.user_id.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{record.where}: user_id {record.user_id!r} is not valid Unicode; correct it") from error
        number = rows.user_numbers[record.user_id] = len(rows.user_numbers)
        rows.user_partition.append(partition)
    elif rows.user_partition[number] != partition:
        other = PARTITIONS[rows.user_partition[number]]
        # Only now, since remembering every user's first row would cost memory for nothing.
        first = next(earlier.where for earlier in source.records() if earlier.user_id == record.user_id)
        raise DataError(
            f"{record.where}: user {record.user_id!r} is in partition {PARTITIONS[partition]!r} here and in {other!r} "
            f"in {first}; a user belongs to one partition: correct one of the rows or remove it"
        )
    return number


def _check_unique(source: Source, rows: Rows) -> None:
    ids = np.sort(np.frombuffer(rows.image_ids, dtype=np.int64))
    twice = ids[1:][ids[1:] == ids[:-1]]
    if not len(twice):
        return
    # Only now, since remembering every row's name for this would cost more memory than all else.
    image_id = int(twice[0])
    places = (record.where for record in source.records() if record.image_id == image_id)
    first, second = next(places), next(places)
    raise DataError(f"{second}: duplicate image id {image_id}, first seen in {first}; remove one of the rows")


def _copy(spool: IO[bytes], rows: Rows, order: IntArray, writer: StoreWriter, images: h5py.Dataset) -> None:
    starts = np.frombuffer(rows.starts, dtype=np.int64)[order]
    lengths = np.frombuffer(rows.lengths, dtype=np.uint32)[order]
    pieces = np.maximum(np.cumsum(lengths, dtype=np.int64) // _PIECE_BYTES, np.arange(len(order)) // _PIECE_IMAGES)
    cuts = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), len(order)]

    def read(first: int, last: int) -> list[bytes]:
        places = zip(lengths[first:last].tolist(), starts[first:last].tolist())
        return [os.pread(spool.fileno(), length, start) for length, start in places]

    position = 0
    with pool(num_cores(), "copy") as threads:
        coming: deque[Future[list[bytes]]] = deque()
        for piece in pairwise(cuts):
            coming.append(threads.submit(read, *piece))
            if len(coming) > _PIECES_AHEAD:
                position = writer.write_images(images, position, coming.popleft().result())
        while coming:
            position = writer.write_images(images, position, coming.popleft().result())


def _provenance(source: Source, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    try:
        tool = version("fedflair")
    except PackageNotFoundError:
        tool = "unknown"
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {
        "source": source.name,
        "path": str(source.path),
        "date": date,
        "tool_version": tool,
        **source.provenance,
        **counts,
    }
