"""People's own photographs as a source: a folder of them, and a CSV file with their labels (see ``label_table.py``)."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.images.photographs import is_named_like_one
from fedflair.data.sources.files import FOREIGN, HIDDEN, UNLISTED, is_hidden, read_regular
from fedflair.data.sources.label_table import Line, read_table
from fedflair.data.sources.records import Record, Source, shown
from fedflair.errors import DataError
from fedflair.system.files import disk_errors

_FEWEST_USERS = 3


def open_photographs(
    folder: Path, table: Path, *, separator: str | None = None, seed: int | None = None, limits: Limits = DEFAULT
) -> Source:
    """The photographs in ``folder`` that the CSV file ``table`` lists, of any size and format that Pillow reads.

    A photograph's id is the number of its line. Users without a partition are dealt out by ``seed``, 0 where it is
    None, see :func:`split_users`. All that is listed is looked for here; bytes are read later. Other files of the
    folder are left out and counted.

    Raises DataError, naming the line, where the file is not what it should be, or a photograph is not there, not a
    plain file, or reached through a link.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; --labels goes with a --source that is a folder of photographs")
    lines = read_table(table, separator, limits)
    if not any(line.labels for line in lines):
        raise DataError(f"{table}: no photograph has a label, so there is nothing to learn; label some")
    partitions = {line.user_id: line.partition for line in lines if line.partition is not None}
    if partitions and seed is not None:
        raise DataError(f"{table}: names every user's partition, so --seed has no effect; leave it out")
    dealt = not partitions
    if dealt:
        partitions = split_users({line.user_id for line in lines}, seed or 0)
    _check_files(folder, table, lines)
    ignored: Counter[str] = Counter()

    def records() -> Iterator[Record]:
        ignored.clear()
        ignored.update(_others(folder, table, {line.path for line in lines}))
        for line in lines:
            file = folder / line.path
            yield Record(
                user_id=line.user_id,
                image_id=line.number,
                partition=partitions[line.user_id],
                labels=line.labels,
                fine_grained_labels=line.fine_labels,
                image=read_regular(file, limits.image_bytes, "max_image_bytes"),
                where=f"{file} (line {line.number} of {table.name})",
            )

    with disk_errors(table):
        digest = hashlib.sha256(table.read_bytes()).hexdigest()
    provenance = {"labels": str(table), "labels_sha256": digest, "seed": (seed or 0) if dealt else None}
    return Source(
        "photographs",
        folder,
        records,
        {},
        len(lines),
        photographs=True,
        provenance=provenance,
        ignored=ignored,
    )


def split_users(user_ids: Iterable[str], seed: int) -> dict[str, str]:
    """Each user's partition: 8:1:1 as FLAIR's users are, at least one of each; the same for the same ids and seed.

    Raises DataError for fewer than three users.
    """
    # Here, because it loads torch, which reading a release does without.
    from fedflair.sampling import stream

    ordered = sorted(set(user_ids))
    if len(ordered) < _FEWEST_USERS:
        raise DataError(
            f"{len(ordered)} users are too few to be dealt out to train, val and test; add users, or a column "
            "'partition' to the labels"
        )
    dealt = [ordered[k] for k in stream(seed, "partitions of users").permutation(len(ordered)).tolist()]
    held_out = max(1, round(len(dealt) / 10))
    names = ["val"] * held_out + ["test"] * held_out + ["train"] * (len(dealt) - 2 * held_out)
    return dict(zip(dealt, names))


def _check_files(folder: Path, table: Path, lines: list[Line]) -> None:
    """Raises DataError at the first photograph that cannot be opened where it is listed; links are not followed."""
    root = Path(os.path.realpath(folder))
    missing = [line for line in lines if not os.path.lexists(root / line.path)]
    if missing:
        more = f", nor are those of {len(missing) - 1} more lines" if len(missing) > 1 else ""
        raise DataError(
            f"{table}: line {missing[0].number}: path {shown(missing[0].path)} is not in {folder}"
            f"{_spelled_otherwise(root / missing[0].path)}{more}; correct the path, whose parts are separated by '/', "
            "or remove the line"
        )
    for line in lines:
        file = root / line.path
        if os.path.realpath(file) != str(file):
            what = "leads through a link, which is not followed; put the photograph itself there"
        elif not stat.S_ISREG(file.stat().st_mode):
            what = "is no file; name the photograph itself"
        else:
            continue
        raise DataError(f"{table}: line {line.number}: path {shown(line.path)} {what}")


def _spelled_otherwise(file: Path) -> str:
    """A hint at a neighbour with the file's name in capitals, or in Unicode's other form, which looks the same."""

    def folded(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    with suppress(OSError):
        for there in sorted(file.parent.iterdir()):
            if folded(there.name) == folded(file.name):
                return f" ({there.name!a} is)"
    return ""


def _others(folder: Path, table: Path, listed: set[str]) -> Counter[str]:
    """The files of the folder, however deep, that are not read, by why; without the table, which may lie there."""
    ignored: Counter[str] = Counter()
    root, place = Path(os.path.realpath(folder)), Path(os.path.realpath(table))
    for where, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in names:
            file = Path(where, name)
            if file == place or file.relative_to(root).as_posix() in listed:
                continue
            ignored[HIDDEN if is_hidden(name) else UNLISTED if is_named_like_one(name) else FOREIGN] += 1
    return ignored
