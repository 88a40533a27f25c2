"""What a store holds, as a short text: equal for equal content, whoever made the store and when.

A recorded one (``sha256:``) covers labels, relation, every column and every image byte; the images' digests were taken
while they were written. On opening, the columns are hashed again, since they are in memory anyway, and must be those
that were written; the images' bytes are hashed again by ``fedflair describe --verify`` only. Stores of older versions
of fedflair recorded none: theirs (``sample:``) covers the columns and a sample of the images' bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_SAMPLES = 64
_SAMPLE_BYTES = 4096
_READ_BYTES = 1 << 24


Column = Sequence[str] | npt.NDArray[Any]


def columns_digest(labels: Mapping[str, Any], partitions: Mapping[str, Mapping[str, Column]]) -> str:
    """SHA-256 in hex of the labels (what JSON can hold) and of the columns of each partition, in the names' order."""
    digest = hashlib.sha256(json.dumps(labels, sort_keys=True).encode())
    for partition, columns in sorted(partitions.items()):
        for name, column in sorted(columns.items()):
            if isinstance(column, np.ndarray):
                content = np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<"), copy=False).tobytes()
            else:
                content = json.dumps(list(column)).encode()
            digest.update(f"\n{partition} {name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def recorded(columns: str, images: Mapping[str, str]) -> str:
    """The fingerprint of a store: of the digest of its columns, and partition -> the digest of its images' bytes."""
    return "sha256:" + hashlib.sha256(json.dumps([columns, dict(images)], sort_keys=True).encode()).hexdigest()


def sampled(columns: str, images: Iterable[tuple[int, Callable[[int, int], bytes]]]) -> str:
    """As :func:`recorded` where no digest of the images is at hand: (bytes, how to read some) of each partition."""
    digest = hashlib.sha256(columns.encode())
    for size, read in images:
        for start in np.linspace(0, max(size - _SAMPLE_BYTES, 0), _SAMPLES).astype(np.int64).tolist():
            digest.update(read(start, min(start + _SAMPLE_BYTES, size)))
    return "sample:" + digest.hexdigest()


def images_digest(size: int, read: Callable[[int, int], bytes]) -> str:
    """SHA-256 in hex of ``size`` bytes, read in pieces."""
    digest = hashlib.sha256()
    for start in range(0, size, _READ_BYTES):
        digest.update(read(start, min(start + _READ_BYTES, size)))
    return digest.hexdigest()
