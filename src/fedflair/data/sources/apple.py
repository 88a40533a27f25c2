"""FLAIR as Apple releases it: a labels JSON, a label relation, and images in a folder or in tar archives."""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.sources.archives import members
from fedflair.data.sources.files import (
    FOREIGN,
    HIDDEN,
    UNLISTED,
    check_size,
    count_others,
    entries,
    is_hidden,
    read_regular,
)
from fedflair.data.sources.records import Record, Source, parse_image_id, shown
from fedflair.errors import DataError

LABELS_FILE = "labels_and_metadata.json"
RELATION_FILE = "label_relationship.txt"
FIELDS = ("user_id", "image_id", "labels", "fine_grained_labels", "partition")

_MEMBER = re.compile(r"(?:.*/)?0*([0-9]{1,19})\.jpg")
_BESIDE = frozenset({LABELS_FILE, RELATION_FILE, "ATTRIBUTION.txt", "LICENSE.txt", "README.md"})
_READ_CHARACTERS = 1 << 20
_LONGEST_RELATION = 1 << 24
# An entry takes some 300 characters; one that has not ended after this many is damaged, not long.
_LONGEST_ENTRY = 1 << 24


@dataclass(frozen=True)
class ImagePlaces:
    """Where a release has its images of one size.

    folders: of unpacked images, in the order they are looked for. pattern: of the archives' names. archive_folders:
    where those may lie, "" for the release's own folder.
    """

    raw: bool
    folders: tuple[str, ...]
    pattern: str
    archive_folders: tuple[str, ...]

    def folder(self, path: Path) -> Path | None:
        return next((path / name for name in self.folders if _holds_images(path / name)), None)

    def archives(self, path: Path) -> list[Path]:
        found = (sorted(filter(Path.is_file, (path / name).glob(self.pattern))) for name in self.archive_folders)
        return next(filter(None, found), [])


IMAGES = (
    ImagePlaces(
        raw=False,
        folders=("small_images", "images/small_images", "images/small/small_images"),
        pattern="small_images-*.tar.gz",
        archive_folders=("", "images/small", "images"),
    ),
    ImagePlaces(
        raw=True,
        folders=("images/raw/images", "raw/images", "images"),
        pattern="images-*.tar.gz",
        archive_folders=("", "images/raw", "raw", "images"),
    ),
)
"""The places, the smaller images first."""


def _holds_images(folder: Path) -> bool:
    """Whether a file in the folder is named as an image; of a folder of folders, False."""
    return folder.is_dir() and any(_MEMBER.fullmatch(entry.name) for entry in entries(folder))


def find_labels(path: Path) -> Path | None:
    """The labels JSON of a release at ``path``: directly in it, or under ``labels/`` as on the server; else None."""
    for candidate in (path / LABELS_FILE, path / "labels" / LABELS_FILE):
        if candidate.is_file():
            return candidate
    return None


def open_apple(path: Path, limits: Limits = DEFAULT, *, raw: bool | None = None) -> Source:
    """The release in the folder ``path``: its images of 256x256, or the full-size ones where ``raw``.

    With ``raw`` None, the full-size images are taken where there are no others. Images are looked for unpacked, then
    in archives, at each place that IMAGES names. Archives are read once, front to back; nothing is unpacked. Images
    that the JSON does not list are left out and counted. Full-size images become 256x256 as any others do, see
    ``jpeg.reencode``.

    Raises DataError where the labels or the images are missing.
    """
    labels = find_labels(path)
    if labels is None:
        raise DataError(f"{path}: no {LABELS_FILE} in it or in its folder 'labels'; download Apple's release again")
    relation = labels.with_name(RELATION_FILE)
    check_size(labels, labels.stat().st_size, limits.label_bytes, "max_label_bytes")
    fine_to_coarse = read_relation(relation) if relation.is_file() else {}
    ignored: Counter[str] = Counter()
    for images in IMAGES if raw is None else [places for places in IMAGES if places.raw == raw]:
        folder, archives = images.folder(path), images.archives(path)
        if folder is not None or archives:
            break
    else:
        raise DataError(
            f"{path}: {LABELS_FILE} is there but no {'full-size ' if raw else ''}images; put "
            + " or ".join(
                f"the folder {i.folders[0]!r} or the archives {i.pattern!r}" for i in IMAGES if raw in (None, i.raw)
            )
            + " beside it"
        )

    def records() -> Iterator[Record]:
        listing = _read_listing(labels)
        ignored.clear()
        if folder is not None:
            yield from _from_folder(folder, listing, limits, ignored)
        else:
            ignored.update(count_others(archives[0].parent, (archive.name for archive in archives), _BESIDE))
            yield from _from_archives(archives, images, listing, limits, ignored)

    return Source("apple-raw" if images.raw else "apple", path, records, fine_to_coarse, ignored=ignored)


def read_relation(path: Path) -> dict[str, str]:
    """The file's lines ``fine -> coarse``: fine name -> coarse name. A byte-order mark and empty lines are passed over.

    Raises DataError where a line has another form, or a fine name has two coarse names.
    """
    relation: dict[str, str] = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        fine, arrow, coarse = (part.strip() for part in line.partition("->"))
        if not (fine and arrow and coarse):
            raise DataError(f"{path}: line {number}: {line[:80]!r} is not 'fine -> coarse'; correct the line")
        if relation.setdefault(fine, coarse) != coarse:
            raise DataError(
                f"{path}: line {number}: {fine!r} belongs to {coarse!r} here and to {relation[fine]!r} above; "
                "remove one of the lines"
            )
    return relation


def _read_text(path: Path) -> str:
    try:
        return read_regular(path, _LONGEST_RELATION, "ignore_label_relation").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); download it again") from error


@dataclass(frozen=True)
class _Listing:
    """What the JSON says of each image, some 60 bytes an image: parallel arrays in the order of the entries.

    order, sorted_ids: the entries by ascending image id, to look an image up.
    """

    path: Path
    names: list[str]
    users: npt.NDArray[np.uint32]
    partitions: npt.NDArray[np.uint32]
    ids: npt.NDArray[np.int64]
    label_ends: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint32]
    fine_ends: npt.NDArray[np.int64]
    fine: npt.NDArray[np.uint32]
    order: npt.NDArray[np.int64] = field(init=False)
    sorted_ids: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        order = np.argsort(self.ids, kind="stable")
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "sorted_ids", self.ids[order])

    def entry(self, image_id: int) -> int | None:
        """The position of the entry of an image, None where it has none."""
        place = int(np.searchsorted(self.sorted_ids, image_id))
        if place == len(self.sorted_ids) or self.sorted_ids[place] != image_id:
            return None
        return int(self.order[place])

    def record(self, entry: int, image: bytes, where: str) -> Record:
        first, first_fine = (int(ends[entry - 1]) if entry else 0 for ends in (self.label_ends, self.fine_ends))
        return Record(
            user_id=self.names[self.users[entry]],
            image_id=int(self.ids[entry]),
            partition=self.names[self.partitions[entry]],
            labels=tuple(self.names[k] for k in self.labels[first : self.label_ends[entry]].tolist()),
            fine_grained_labels=tuple(self.names[k] for k in self.fine[first_fine : self.fine_ends[entry]].tolist()),
            image=image,
            where=f"{where} (entry {entry + 1} of {self.path.name})",
        )


def _read_listing(path: Path) -> _Listing:
    numbers: dict[str, int] = {}
    users, partitions, ids = array("I"), array("I"), array("q")
    label_ends, labels, fine_ends, fine = array("q"), array("I"), array("q"), array("I")

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers))

    for position, entry in enumerate(read_entries(path), start=1):
        where = f"{path}: entry {position}"
        _check_entry(entry, where)
        users.append(number(entry["user_id"]))
        partitions.append(number(entry["partition"]))
        ids.append(parse_image_id(entry["image_id"], where))
        labels.extend(number(name) for name in entry["labels"])
        label_ends.append(len(labels))
        fine.extend(number(name) for name in entry["fine_grained_labels"])
        fine_ends.append(len(fine))
    listing = _Listing(
        path=path,
        names=list(numbers),
        users=np.frombuffer(users, dtype=np.uint32),
        partitions=np.frombuffer(partitions, dtype=np.uint32),
        ids=np.frombuffer(ids, dtype=np.int64),
        label_ends=np.frombuffer(label_ends, dtype=np.int64),
        labels=np.frombuffer(labels, dtype=np.uint32),
        fine_ends=np.frombuffer(fine_ends, dtype=np.int64),
        fine=np.frombuffer(fine, dtype=np.uint32),
    )
    twice = np.flatnonzero(listing.sorted_ids[1:] == listing.sorted_ids[:-1])
    if len(twice):
        one, other = int(listing.order[twice[0]]) + 1, int(listing.order[twice[0] + 1]) + 1
        image_id = int(listing.sorted_ids[twice[0]])
        raise DataError(f"{path}: duplicate image id {image_id} in entries {one} and {other}; remove one of them")
    return listing


def _check_entry(entry: Any, where: str) -> None:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: not an object with the fields {', '.join(FIELDS)}")
    for name in FIELDS:
        if name not in entry:
            raise DataError(
                f"{where}: no field {name!r}; it has {shown(list(entry)) if entry else 'none'}; download it again"
            )
    for name in ("user_id", "partition"):
        if not isinstance(entry[name], str):
            raise DataError(f"{where}: {name} is {shown(entry[name])}, not text; correct the entry")
    for name in ("labels", "fine_grained_labels"):
        if not isinstance(entry[name], list) or not all(isinstance(label, str) for label in entry[name]):
            raise DataError(f"{where}: {name} is {shown(entry[name])}, not a list of names; correct the entry")


def read_entries(path: Path) -> Iterator[Any]:
    """The elements of the JSON list in ``path``, one at a time, without holding the file in memory."""
    decoder = json.JSONDecoder()
    separators = re.compile(r"\s*,?\s*")
    try:
        with path.open(encoding="utf-8-sig") as file:
            buffer = file.read(_READ_CHARACTERS).lstrip()
            if not buffer.startswith("["):
                raise DataError(f"{path}: not a JSON list of images; download it again")
            position, ended, first = 1, False, True
            while True:
                separator = separators.match(buffer, position)
                start = separator.end() if separator else position
                if buffer[start : start + 1] == "]":
                    if (buffer[start + 1 :] + file.read()).strip():
                        raise DataError(f"{path}: text after the end of the JSON list; download it again")
                    return
                try:
                    value, stop = decoder.raw_decode(buffer, start)
                    # An entry must be followed by something, else a number could go on in the next piece.
                    complete = stop < len(buffer)
                except json.JSONDecodeError as error:
                    if ended or len(buffer) - start > _LONGEST_ENTRY:
                        raise DataError(f"{path}: cut short or not JSON ({error.msg}); download it again") from error
                    complete = False
                except ValueError as error:  # a number of more digits than Python reads
                    raise DataError(f"{path}: not JSON of images ({error}); download it again") from error
                if not complete:
                    if ended:
                        raise DataError(f"{path}: cut short; the JSON list has no end; download it again")
                    piece = file.read(_READ_CHARACTERS)
                    ended = not piece
                    buffer, position = buffer[position:] + piece, 0
                    continue
                if not first and "," not in buffer[position:start]:
                    raise DataError(f"{path}: not JSON (no comma between two entries); download it again")
                first = False
                yield value
                position = stop
    except RecursionError as error:
        raise DataError(f"{path}: not JSON of images (lists within lists); download it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _from_folder(folder: Path, listing: _Listing, limits: Limits, ignored: Counter[str]) -> Iterator[Record]:
    present = np.zeros(len(listing.ids), dtype=bool)
    # Names with leading zeros are kept; all others follow from the image id.
    padded: dict[int, str] = {}
    for name in (entry.name for entry in entries(folder)):
        match = _MEMBER.fullmatch(name)
        position = listing.entry(int(match[1])) if match else None
        if match is None:
            ignored[HIDDEN if is_hidden(name) else FOREIGN] += 1
        elif position is None:
            ignored[UNLISTED] += 1
        else:
            image_id = int(match[1])
            if present[position]:
                raise DataError(f"{folder}: has image {image_id} twice, once as {name!r}; remove one of the files")
            present[position] = True
            if name != f"{image_id}.jpg":
                padded[image_id] = name
    _check_all_present(present, listing, str(folder))
    for position, image_id in enumerate(listing.ids.tolist()):
        file = folder / padded.get(image_id, f"{image_id}.jpg")
        yield listing.record(position, read_regular(file, limits.image_bytes, "max_image_bytes"), str(file))


def _from_archives(
    archives: list[Path], images: ImagePlaces, listing: _Listing, limits: Limits, ignored: Counter[str]
) -> Iterator[Record]:
    # Archive and member, counted from 1, in which an image was found; 0 where it was not yet.
    found = np.zeros((len(listing.ids), 2), dtype=np.int32)
    for number, archive in enumerate(archives):
        for count, (member, content) in enumerate(members(archive, limits), start=1):
            match = _MEMBER.fullmatch(member.name)
            entry = listing.entry(int(match[1])) if match else None
            if match is None or entry is None:
                if not member.isdir():
                    ignored[HIDDEN if is_hidden(member.name) else FOREIGN if match is None else UNLISTED] += 1
                continue
            where = f"{archive}: {member.name}"
            if content is None:
                kind = f"a link to {member.linkname!r}" if member.issym() or member.islnk() else "no plain file"
                raise DataError(f"{where}: is {kind}, which is not followed; put the image itself into the archive")
            if found[entry, 1]:
                first, at = archives[found[entry, 0]], found[entry, 1]
                raise DataError(
                    f"{where}: image {match[1]} is member {count} here and member {at} of {first}; remove one of them"
                )
            check_size(Path(where), member.size, limits.image_bytes, "max_image_bytes")
            found[entry] = number, count
            yield listing.record(entry, b"".join(content), where)
    _check_all_present(found[:, 1] > 0, listing, f"{archives[0].parent}/{images.pattern}")


def _check_all_present(present: npt.NDArray[np.bool_], listing: _Listing, place: str) -> None:
    missing = np.flatnonzero(~present)
    if len(missing):
        first = int(listing.ids[missing[0]])
        raise DataError(
            f"{place}: {len(missing)} of the {len(present)} images that {listing.path} lists are missing, "
            f"the first is {first}.jpg; download the missing images"
        )
