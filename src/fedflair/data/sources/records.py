"""One image as read from any source: the only type that passes from a source to preparation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedflair.errors import DataError

# What sources call the partitions; Apple's own documents say "dev" in places where its files say "val".
PARTITION_NAMES = {
    "train": "train",
    "val": "val",
    "test": "test",
    "dev": "val",
    "valid": "val",
    "validation": "val",
}


_MOST_DIGITS = 50


@dataclass(frozen=True)
class Record:
    """One photograph of one user.

    user_id: any non-empty text (Flickr NSIDs such as ``59769174@N00``).
    image_id: up to 42.4e9 in FLAIR.
    partition: ``train``, ``val`` or ``test``, or another name of PARTITION_NAMES for one of them.
    labels, fine_grained_labels: names, each at least one but of people's own photographs, no repeats promised.
    image: the encoded bytes as stored by the source, untouched; of a source of bare pixels, a binary PPM file.
    where: the file and the row or member that this came from, for messages.
    """

    user_id: str
    image_id: int
    partition: str
    labels: tuple[str, ...]
    fine_grained_labels: tuple[str, ...]
    image: bytes
    where: str


@dataclass(frozen=True)
class Source:
    """A dataset on disk in somebody's format.

    name: ``huggingface``, ``apple``, ``pfl``, ...
    path: the folder or file it was found at.
    records: starts a fresh pass over all records, one at a time, in the source's own order.
    fine_to_coarse: the label relation, fine name -> coarse name, or empty where the source has none.
    num_records: how many records a pass yields where that is known beforehand (for progress), else None.
    labels, fine_grained_labels: the label lists where the source declares them (their order is kept), else None.
    ignored: what the files held that was left out on the last pass, by why; filled by ``records``.
    prepared: this project wrote it from a store, so its label relation has been checked, its PNG images are meant, and
    so are photographs without labels.
    photographs: people's own: in any format that Pillow reads, with and without labels.
    provenance: what else a store made of it should tell of where it came from, as plain data.
    """

    name: str
    path: Path
    records: Callable[[], Iterator[Record]]
    fine_to_coarse: dict[str, str]
    num_records: int | None = None
    labels: tuple[str, ...] | None = None
    fine_grained_labels: tuple[str, ...] | None = None
    prepared: bool = False
    photographs: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)


def parse_image_id(value: Any, where: str) -> int:
    """An image id given as an integer, or as its decimal digits in text.

    Raises DataError for anything else, naming ``where``.
    """
    number = value
    # A number of thousands of digits takes Python long, or is refused by it.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63:
        raise DataError(f"{where}: image_id is {shown(value)}, not a whole number from 0 to 2**63 - 1; correct the row")
    return number


def shown(value: Any) -> str:
    """A value as it is shown in a message: its beginning, where it is long."""
    if isinstance(value, int) and value.bit_length() > 4 * _MOST_DIGITS:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value[:100] if isinstance(value, (str, bytes, list)) else value)
    return text if len(text) <= 100 else f"{text[:100]}..."
