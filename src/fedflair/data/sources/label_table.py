"""People's own labels: a CSV file with a line for each photograph, read as it was meant or refused with its line.

Its first line names the columns: ``path`` and ``labels``, and where wanted ``user``, ``fine_labels`` and
``partition``. Between columns stands a comma, a semicolon or a tab, between labels ``|`` or what ``--label_separator``
says. UTF-8, with or without a byte-order mark; lines end as any system ends them.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedflair.data.images.limits import Limits
from fedflair.data.sources.files import read_regular
from fedflair.data.sources.records import PARTITION_NAMES, shown
from fedflair.errors import DataError

REQUIRED = ("path", "labels")
COLUMNS = ("path", "user", "labels", "fine_labels", "partition")
SEPARATOR = "|"
# A store gives each id the room of the longest one.
MOST_ID_BYTES = 1000

_DELIMITERS = (",", ";", "\t")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Line:
    """A photograph as the file lists it.

    number: of its line, counted from 1. path: with ``/``, relative, without ``.`` and ``..``. user_id: never empty.
    partition: ``train``, ``val``, ``test``, or None where the file has no such column.
    """

    number: int
    path: str
    user_id: str
    labels: tuple[str, ...]
    fine_labels: tuple[str, ...]
    partition: str | None


def read_table(file: Path, separator: str | None, limits: Limits) -> list[Line]:
    """The photographs that a CSV file lists, in its order. separator: between labels; None is ``|``, unless labels look
    as if it were another one.

    Raises DataError, naming line, field and remedy, at the first line that is not what it should be, for a path that is
    listed twice, and for a user in two partitions.
    """
    rows = _rows(file, _text(file, limits))
    header = next(rows, None)
    if header is None:
        raise DataError(f"{file}: is empty; its first line names the columns: {','.join(COLUMNS)}")
    columns = _columns(file, *header)
    lines = []
    for number, row in rows:
        if not any(value.strip() for value in row):
            continue
        if len(row) != len(columns):
            raise DataError(
                f"{file}: line {number}: has {len(row)} fields where the first line names {len(columns)}; put values "
                "that hold the column separator into double quotes"
            )
        lines.append(_line(file, number, dict(zip(columns, row)), separator or SEPARATOR))
    if not lines:
        raise DataError(f"{file}: lists no photograph; add a line for each")
    _check_separator(file, lines, separator)
    _check_once(file, lines)
    return lines


def _text(file: Path, limits: Limits) -> str:
    content = read_regular(file, limits.label_bytes, "max_label_bytes")
    if content.startswith(_UTF_16):
        raise DataError(f"{file}: is UTF-16 text; save it as CSV in UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The error counts from behind a byte-order mark.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line}: is not UTF-8 text; save the file as CSV in UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _rows(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of each row."""
    first = text.lstrip("\n").split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=lambda one: sum(name in COLUMNS for name in _names(first.split(one))))
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True, skipinitialspace=True)
    number = 1
    try:
        for row in reader:
            if row:
                yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{file}: line {number}: is no CSV ({error}); put a value that holds double quotes into double quotes, and "
            "double those inside it"
        ) from error


def _names(fields: list[str]) -> list[str]:
    return [name.strip().strip('"').lower() for name in fields]


def _columns(file: Path, number: int, fields: list[str]) -> list[str]:
    columns = _names(fields)
    where = f"{file}: line {number}"
    missing = [name for name in REQUIRED if name not in columns]
    for name in columns:
        if name not in COLUMNS:
            close = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close and close[0] not in columns else "rename or remove it"
            raise DataError(
                f"{where}: column {shown(name)} is none of {', '.join(COLUMNS)}, which the first line names; {hint}"
            )
        if columns.count(name) > 1:
            raise DataError(f"{where}: column {name!r} comes twice; remove one of them")
    if missing:
        raise DataError(f"{where}: no column {missing[0]!r}; add it: the first line names the columns")
    return columns


def _line(file: Path, number: int, row: dict[str, str], separator: str) -> Line:
    where = f"{file}: line {number}"
    path = _path(where, row["path"])
    parents = path.parts[:-1]
    if "user" not in row and not parents:
        raise DataError(
            f"{where}: path {shown(str(path))} lies in no user's folder; put it into one, or add a column 'user'"
        )
    user_id = row["user"].strip() if "user" in row else parents[0]
    if not user_id or "\x00" in user_id:
        raise DataError(f"{where}: user {shown(user_id)} is empty or holds a NUL; name the photograph's user")
    if len(user_id.encode()) > MOST_ID_BYTES:
        raise DataError(f"{where}: user {shown(user_id)} has more than {MOST_ID_BYTES:,} bytes; shorten it")
    return Line(
        number=number,
        path=str(path),
        user_id=user_id,
        labels=_labels(where, "labels", row["labels"], separator),
        fine_labels=_labels(where, "fine_labels", row.get("fine_labels", ""), separator),
        partition=_partition(where, row["partition"]) if "partition" in row else None,
    )


def _path(where: str, text: str) -> PurePosixPath:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\x00" in text:
        raise DataError(
            f"{where}: path {shown(text)} leads out of the folder of --source; name the photograph relative to it"
        )
    if not path.parts:
        raise DataError(f"{where}: path is empty; name the photograph, relative to --source, or remove the line")
    return path


def _labels(where: str, column: str, text: str, separator: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(separator)) if text.strip() else ()
    if "" in names:
        raise DataError(
            f"{where}: {column} {shown(text)} hold an empty label; name one on each side of every {separator!r}"
        )
    return tuple(dict.fromkeys(names))


def _partition(where: str, text: str) -> str:
    name = text.strip().lower()
    if name not in PARTITION_NAMES:
        what = f"{shown(text)} is unknown" if name else "is empty"
        raise DataError(
            f"{where}: partition {what}; write train, val or test in every line, or remove the column and have users "
            "dealt out"
        )
    return PARTITION_NAMES[name]


def _check_separator(file: Path, lines: list[Line], separator: str | None) -> None:
    """Raises DataError where no photograph has two labels and the one it has looks like several."""
    if separator is not None or any(len(line.labels) > 1 or len(line.fine_labels) > 1 for line in lines):
        return
    for line in lines:
        for column, names in (("labels", line.labels), ("fine_labels", line.fine_labels)):
            for other in (";", ","):
                if any(other in name for name in names):
                    raise DataError(
                        f"{file}: line {line.number}: {column} {shown(names[0])} would be one label; separate labels "
                        f"by {SEPARATOR!r}, or pass --label_separator '{other}', or '{SEPARATOR}' if it is one"
                    )


def _check_once(file: Path, lines: list[Line]) -> None:
    by_path: dict[str, int] = {}
    by_user: dict[str, Line] = {}
    for line in lines:
        first = by_path.setdefault(line.path, line.number)
        where = f"{file}: line {line.number}"
        if first != line.number:
            raise DataError(f"{where}: path {shown(line.path)} is in line {first} already; remove one of the lines")
        earlier = by_user.setdefault(line.user_id, line)
        if earlier.partition != line.partition:
            raise DataError(
                f"{where}: user {shown(line.user_id)} is in partition {line.partition!r} here and in "
                f"{earlier.partition!r} in line {earlier.number}; a user belongs to one partition: correct one of them"
            )
