"""``fedflair prepare``: one streaming pass over a source in any form, and the packed store it makes.

Each record is checked as it comes, its image appended to an unnamed spool file beside the output, and a row of some 50
bytes kept in memory (429,078 images: about 21 MB, and some 150 bytes for each user). At the end the rows are sorted by
partition, user and image id, and the images copied in that order into the store. So the store depends on what the
dataset holds, not on its form, its order or how many cores there were; only the provenance differs.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import numpy.typing as npt

from fedflair.data import open_source
from fedflair.data.jpeg import ImageEncoding, inspect, is_stored_png, reencode
from fedflair.data.records import PARTITION_NAMES, PARTITIONS, Record, Source
from fedflair.data.store import IntArray, PartitionColumns, StoreMetadata, create
from fedflair.errors import DataError

MAX_LABELS = 1 << 16
# Images on their way through the pool, together at most this many bytes and this many images.
_IN_FLIGHT_BYTES = 1 << 26
_IN_FLIGHT_IMAGES = 512
_COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class PrepareSummary:
    """What prepare did.

    users, images: partition -> how many. labels, fine_grained_labels: how many there are of each.
    reencoded: reason -> how many images were not stored as the source has them.
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
    seconds: float
    num_bytes: int


def prepare(
    *,
    source: Path,
    output: Path,
    source_format: str | None = None,
    skip_bad_images: bool = False,
    ignore_label_relation: bool = False,
    image_encoding: ImageEncoding = "png",
) -> PrepareSummary:
    """Turn a dataset in any of its forms into one packed store.

    JPEGs of 256x256 RGB are stored byte for byte; any other image is decoded and re-encoded as one, and counted.

    Args:
        source: Folder of the hub's parquet files or of Apple's release, or a parquet or HDF5 file.
        output: The store to write; appears under this name only once it is whole.
        source_format: huggingface, apple or hdf5, where it should not be recognised from the files.
        skip_bad_images: Leave out images that cannot be decoded, and list them, instead of stopping at the first.
        ignore_label_relation: Accept labels that contradict the source's label_relationship.txt.
        image_encoding: How the bare pixels of an HDF5 source are stored: png loses nothing, jpeg is far smaller.
    """
    started = time.monotonic()
    check_output(source, output)
    opened = open_source(source, source_format)
    with file_errors(output), create(output) as writer, tempfile.TemporaryFile(dir=output.parent) as spool:
        collected = _collect(
            opened, spool, image_encoding, skip_bad_images=skip_bad_images, check_relation=not ignore_label_relation
        )
        _check_unique(opened, collected)
        names, numbers = _label_order(collected.label_numbers, opened.labels)
        fine_names, fine_numbers = _label_order(collected.fine_numbers, opened.fine_grained_labels)
        check_space(output, spool.tell())
        users, images = {}, {}
        for name in PARTITIONS:
            columns, order = _columns(collected, name, numbers, fine_numbers)
            _copy(spool, collected, order, writer.partition(name, columns))
            users[name], images[name] = columns.num_users, columns.num_images
        counts = {"users": users, "images": images, "reencoded": dict(sorted(collected.reencoded.items()))}
        relation = dict(opened.fine_to_coarse)
        writer.metadata(StoreMetadata(names, fine_names, relation, _provenance(opened, counts)))
    summary = PrepareSummary(
        source=opened.name,
        output=output,
        users=users,
        images=images,
        labels=len(names),
        fine_grained_labels=len(fine_names),
        reencoded=counts["reencoded"],
        skipped=tuple(collected.skipped),
        seconds=time.monotonic() - started,
        num_bytes=output.stat().st_size,
    )
    print(describe_summary(summary))
    return summary


def check_output(source: Path, output: Path) -> None:
    """Raises DataError where ``output`` is a folder, or is the source itself, which would be lost."""
    if output.is_dir():
        raise DataError(f"{output}: is a folder; give the name of the file to write")
    if source.exists() and output.exists() and source.samefile(output):
        raise DataError(f"{output}: is the source itself; choose another name for the output")


def check_space(output: Path, needed: int) -> None:
    """Raises DataError where the disk of ``output`` has not ``needed`` bytes left."""
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise DataError(f"{output}: needs {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB; free some space")


@contextmanager
def file_errors(output: Path) -> Iterator[None]:
    """What the operating system says of writing the output, as a DataError of one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "the disk is full: free some space" if full else "check the folder's permissions and space"
        raise DataError(f"{output}: cannot be written ({reason}); {remedy}") from error


@dataclass(frozen=True)
class _Collected:
    """The rows of all images in source order, as growing columns, and what was noticed on the way.

    user_numbers: user id -> number in order of first sight; user_partition: position in PARTITIONS by user number.
    labels, fine: numbers in order of first sight, those of an image together; their counts are per image.
    """

    user_numbers: dict[str, int] = field(default_factory=dict)
    user_partition: array[int] = field(default_factory=lambda: array("b"))
    label_numbers: dict[str, int] = field(default_factory=dict)
    fine_numbers: dict[str, int] = field(default_factory=dict)
    users: array[int] = field(default_factory=lambda: array("I"))
    image_ids: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    label_counts: array[int] = field(default_factory=lambda: array("H"))
    labels: array[int] = field(default_factory=lambda: array("H"))
    fine_counts: array[int] = field(default_factory=lambda: array("H"))
    fine: array[int] = field(default_factory=lambda: array("H"))
    reencoded: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)


def _collect(
    source: Source, spool: IO[bytes], encoding: ImageEncoding, *, skip_bad_images: bool, check_relation: bool
) -> _Collected:
    collected = _Collected()
    relation = source.fine_to_coarse if check_relation else {}
    position = 0
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="image") as pool:
        for record, reason, result in _images(source, encoding, pool):
            _check_record(record, relation)
            user = _user_number(record, collected)
            try:
                image = result.result() if isinstance(result, Future) else result
            except DataError as error:
                line = f"{record.where}: image {record.image_id} is bad: {error}"
                if not skip_bad_images:
                    raise DataError(
                        f"{line}; correct it, or pass --skip_bad_images to leave such images out"
                    ) from error
                collected.skipped.append(line)
                continue
            if reason is not None:
                collected.reencoded[reason] += 1
            spool.write(image)
            collected.users.append(user)
            collected.image_ids.append(record.image_id)
            collected.starts.append(position)
            collected.lengths.append(len(image))
            position += len(image)
            _append_labels(record, record.labels, collected.label_numbers, collected.labels, collected.label_counts)
            _append_labels(
                record, record.fine_grained_labels, collected.fine_numbers, collected.fine, collected.fine_counts
            )
    spool.flush()
    if not collected.image_ids:
        raise DataError(f"{source.path}: holds no image that can be stored; nothing to write")
    return collected


def _images(
    source: Source, encoding: ImageEncoding, pool: ThreadPoolExecutor
) -> Iterator[tuple[Record, str | None, bytes | Future[bytes]]]:
    """Each record in the source's order with the reason to re-encode its image, and the image or its promise."""
    in_flight: deque[tuple[Record, str | None, bytes | Future[bytes]]] = deque()
    num_bytes = 0
    for record in source.records():
        in_flight.append((record, *_begin_image(source, record.image, encoding, pool)))
        num_bytes += len(record.image)
        while in_flight and (
            num_bytes > _IN_FLIGHT_BYTES or len(in_flight) > _IN_FLIGHT_IMAGES or isinstance(in_flight[0][2], bytes)
        ):
            num_bytes -= len(in_flight[0][0].image)
            yield in_flight.popleft()
    yield from in_flight


def _begin_image(
    source: Source, image: bytes, encoding: ImageEncoding, pool: ThreadPoolExecutor
) -> tuple[str | None, bytes | Future[bytes]]:
    try:
        reason = inspect(image)
    except DataError as error:
        failed: Future[bytes] = Future()
        failed.set_exception(error)
        return None, failed
    if reason is None or (source.keeps_png and is_stored_png(image)):
        return None, image
    return reason, pool.submit(reencode, image, encoding if reason == "pixels" else "jpeg")


def _check_record(record: Record, relation: dict[str, str]) -> None:
    where = record.where
    if not record.user_id or "\x00" in record.user_id:
        raise DataError(f"{where}: user_id {record.user_id!r} is empty or holds a NUL; correct the row or remove it")
    if record.partition not in PARTITION_NAMES:
        raise DataError(
            f"{where}: partition {record.partition!r} is unknown; it must be one of {', '.join(PARTITION_NAMES)}"
        )
    if not record.labels or not record.fine_grained_labels:
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


def _user_number(record: Record, collected: _Collected) -> int:
    partition = PARTITIONS.index(PARTITION_NAMES[record.partition])
    number = collected.user_numbers.get(record.user_id)
    if number is None:
        try:
            record.user_id.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{record.where}: user_id {record.user_id!r} is not valid Unicode; correct it") from error
        number = collected.user_numbers[record.user_id] = len(collected.user_numbers)
        collected.user_partition.append(partition)
    elif collected.user_partition[number] != partition:
        other = PARTITIONS[collected.user_partition[number]]
        raise DataError(
            f"{record.where}: user {record.user_id!r} is in partition {PARTITIONS[partition]!r} here and in {other!r} "
            "in an earlier row; a user belongs to one partition"
        )
    return number


def _append_labels(
    record: Record, names: tuple[str, ...], numbers: dict[str, int], column: array[int], counts: array[int]
) -> None:
    distinct = dict.fromkeys(names)
    for name in distinct:
        number = numbers.setdefault(name, len(numbers))
        if number >= MAX_LABELS or not name:
            raise DataError(f"{record.where}: label {name!r} is empty, or the {MAX_LABELS + 1}th; correct the labels")
        column.append(number)
    counts.append(len(distinct))


def _check_unique(source: Source, collected: _Collected) -> None:
    ids = np.sort(np.frombuffer(collected.image_ids, dtype=np.int64))
    twice = ids[1:][ids[1:] == ids[:-1]]
    if not len(twice):
        return
    # Only now, since remembering every row's name for this would cost more memory than all else.
    image_id = int(twice[0])
    places = (record.where for record in source.records() if record.image_id == image_id)
    first, second = next(places), next(places)
    raise DataError(f"{second}: duplicate image id {image_id}, first seen in {first}; remove one of the rows")


def _label_order(numbers: dict[str, int], declared: tuple[str, ...] | None) -> tuple[tuple[str, ...], IntArray]:
    """The label list of the store (as declared, else sorted), and number of first sight -> index in it."""
    names = declared if declared is not None else tuple(sorted(numbers))
    index = {name: k for k, name in enumerate(names)}
    unknown = [name for name in numbers if name not in index]
    if unknown:
        raise DataError(f"label {unknown[0]!r} is not in the source's own label list; correct the label or the list")
    return names, np.array([index[name] for name in numbers], dtype=np.int64)


def _columns(
    collected: _Collected, partition: str, numbers: IntArray, fine_numbers: IntArray
) -> tuple[PartitionColumns, IntArray]:
    """The columns of one partition, and the rows of its images in their order in the store."""
    by_user_id = sorted(collected.user_numbers)
    rank = np.empty(len(by_user_id), dtype=np.int64)
    rank[[collected.user_numbers[user_id] for user_id in by_user_id]] = np.arange(len(by_user_id))
    users = np.frombuffer(collected.users, dtype=np.uint32)
    image_ids = np.frombuffer(collected.image_ids, dtype=np.int64)
    lengths = np.frombuffer(collected.lengths, dtype=np.uint32)
    in_partition = np.frombuffer(collected.user_partition, dtype=np.int8)[users] == PARTITIONS.index(partition)
    rows = np.flatnonzero(in_partition)
    order = rows[np.lexsort((image_ids[rows], rank[users[rows]]))]
    present, first = np.unique(rank[users[order]], return_index=True)
    label_offsets, label_indices = _sorted_labels(collected.labels, collected.label_counts, numbers, order)
    fine_offsets, fine_indices = _sorted_labels(collected.fine, collected.fine_counts, fine_numbers, order)
    columns = PartitionColumns(
        user_ids=[by_user_id[k] for k in present.tolist()],
        user_offsets=np.append(first, len(order)).astype(np.int64),
        image_ids=image_ids[order],
        image_offsets=_offsets(lengths[order]),
        label_offsets=label_offsets,
        label_indices=label_indices,
        fine_label_offsets=fine_offsets,
        fine_label_indices=fine_indices,
    )
    return columns, order


def _offsets(lengths: npt.NDArray[np.integer[Any]]) -> IntArray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _sorted_labels(
    labels: array[int], counts: array[int], numbers: IntArray, order: IntArray
) -> tuple[IntArray, npt.NDArray[np.uint16]]:
    """CSR columns of the images ``order``: offsets, and label indices that ascend within each image."""
    all_counts = np.frombuffer(counts, dtype=np.uint16)
    starts = _offsets(all_counts)[:-1][order]
    offsets = _offsets(all_counts[order])
    image = np.repeat(np.arange(len(order)), np.diff(offsets))
    place = np.arange(offsets[-1]) - offsets[image] + starts[image]
    indices = numbers[np.frombuffer(labels, dtype=np.uint16)[place]]
    return offsets, np.sort(image * MAX_LABELS + indices).astype(np.uint64).astype(np.uint16)


def _copy(spool: IO[bytes], collected: _Collected, order: IntArray, images: h5py.Dataset) -> None:
    starts = np.frombuffer(collected.starts, dtype=np.int64)[order].tolist()
    lengths = np.frombuffer(collected.lengths, dtype=np.uint32)[order].tolist()
    pieces: list[bytes] = []
    held, written = 0, 0
    for start, length in zip(starts, lengths):
        pieces.append(os.pread(spool.fileno(), length, start))
        held += length
        if held >= _COPY_BYTES:
            images[written : written + held] = np.frombuffer(b"".join(pieces), dtype=np.uint8)
            written += held
            pieces, held = [], 0
    if held:
        images[written : written + held] = np.frombuffer(b"".join(pieces), dtype=np.uint8)


def _provenance(source: Source, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    try:
        tool = version("fedflair")
    except PackageNotFoundError:
        tool = "unknown"
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"source": source.name, "path": str(source.path), "date": date, "tool_version": tool, **counts}


def describe_summary(summary: PrepareSummary) -> str:
    """The summary as the lines that prepare prints, the next command last."""
    lines = [f"{summary.output}: {summary.num_bytes / 1e6:,.1f} MB in {summary.seconds:.1f} s from {summary.source}"]
    for name in summary.users:
        lines.append(f"  {name:5} {summary.users[name]:>8,} users {summary.images[name]:>9,} images")
    lines.append(f"  {summary.labels} labels, {summary.fine_grained_labels} fine-grained labels")
    for reason, count in summary.reencoded.items():
        lines.append(f"  re-encoded {count:,}: {reason}")
    for line in summary.skipped:
        lines.append(f"  skipped {line}")
    lines.append(f"Next: fedflair describe {summary.output}")
    return "\n".join(lines)
