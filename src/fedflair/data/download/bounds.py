"""What a server may send: several times what FLAIR has, so that no answer fills a disk, a memory or a day."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from fedflair.errors import DataError

_MB, _GB = 10**6, 10**9


@dataclass(frozen=True)
class Bounds:
    """Bytes, where nothing else is said. FLAIR itself: 0.13 GB of labels, archives of 0.13 GB (full size: 28 GB).

    answer: the hub's, of one page. pages, files: of the hub's list. shard, text: its files, in FLAIR 0.46 and 0.05 GB.
    labels, relation, archive, raw_archive: Apple's files. unpacked, raw_unpacked: what an archive holds.
    rows: of all parquet files; FLAIR has 429,078. row_group: one of them, unpacked.
    """

    answer: int = 16 * _MB
    pages: int = 100
    files: int = 10_000
    shard: int = 10 * _GB
    text: int = 1 * _GB
    labels: int = 2 * _GB
    relation: int = 16 * _MB
    archive: int = 2 * _GB
    raw_archive: int = 200 * _GB
    unpacked: int = 4 * _GB
    raw_unpacked: int = 400 * _GB
    rows: int = 10_000_000
    row_group: int = 8 * _GB

    def raised(self, times: float) -> Bounds:
        """All of them that many times over."""
        return Bounds(**{field.name: math.ceil(getattr(self, field.name) * times) for field in fields(self)})


def check_bound(found: int | None, most: int, where: str, what: str) -> None:
    """Raises DataError, naming the option, where ``found`` is more than FLAIR can have. None is not known yet."""
    if found is not None and found > most:
        raise exceeded(where, f"{found:,} {what}", most)


def exceeded(where: str, found: str, most: int) -> DataError:
    """The error for more than FLAIR can have."""
    return DataError(
        f"{where}: {found}, more than the {most:,} that FLAIR can have; check the address, or raise all bounds with "
        "--raise_limits TIMES"
    )
