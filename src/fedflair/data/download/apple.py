"""Apple's own release of FLAIR: two label files, and 43 archives of images of either size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedflair.data.download.connection import check_url
from fedflair.data.download.plan import Item, Plan, Request, Tools, choose_users
from fedflair.data.download.transfer import probe
from fedflair.data.sources.apple import LABELS_FILE, RELATION_FILE, read_entries, read_relation
from fedflair.data.sources.archives import unpack, verify
from fedflair.errors import DataError
from fedflair.system.files import replacing, sync_file_system

BASE_URL = "https://docs-assets.developer.apple.com/ml-research/datasets/flair"
NUM_ARCHIVES = 43
_IMAGE_NAME = re.compile(r"(?:.*/)?([0-9]{1,19})\.jpg")


def plan_apple(request: Request, tools: Tools) -> Plan:
    """Asks the server for the sizes of what the request needs. Raises DataError where a file is missing there."""
    base = check_url(request.base_url or BASE_URL, "base_url")
    # A subset's labels are cut down to its users; the full file stays aside, so that another run need not fetch it.
    labels_folder = "labels/all" if request.num_users else "labels"
    labels = [
        (f"{labels_folder}/{LABELS_FILE}", f"{base}/labels/{LABELS_FILE}"),
        (f"labels/{RELATION_FILE}", f"{base}/labels/{RELATION_FILE}"),
    ]
    folder, prefix = ("raw", "images") if request.raw else ("small", "small_images")
    archives = [f"images/{folder}/{prefix}-{number:02d}.tar.gz" for number in range(NUM_ARCHIVES)]
    wanted = [] if request.labels_only else [(name, f"{base}/{name}") for name in archives]
    with ThreadPoolExecutor(request.num_connections) as pool:
        sizes = list(pool.map(lambda file: probe(file[1], tools.patience, tools.stop).size, [*labels, *wanted]))
    bounds = tools.bounds
    most_packed, most_unpacked = (
        (bounds.raw_archive, bounds.raw_unpacked) if request.raw else (bounds.archive, bounds.unpacked)
    )
    checks = [(_check_labels, bounds.labels), (_check_relation, bounds.relation)]
    label_items = [Item(*file, size, check, most=most) for file, size, (check, most) in zip(labels, sizes, checks)]

    def check_archive(path: Path) -> None:
        verify(path, most_unpacked)

    archive_items = [
        Item(*file, size, check_archive, most=most_packed) for file, size in zip(wanted, sizes[len(labels) :])
    ]

    def run() -> None:
        tools.fetch(label_items)
        ids = _cut_labels(request) if request.num_users else None
        if request.labels_only:
            return
        if ids is None and not request.unpack:
            tools.fetch(archive_items)
            return
        tools.fetch([_unpacked(item, request.output, ids, most_unpacked) for item in archive_items])
        if ids is None:
            ids = {int(entry["image_id"]) for entry in _checked(request.output / "labels" / LABELS_FILE)}
        _check_complete(ids, request.output / f"images/{folder}")

    total = sum(size or 0 for size in sizes) if None not in sizes else None
    # A subset's archives are removed one by one; as many as come at once are there together.
    at_once = sum(sorted((size or 0 for size in sizes), reverse=True)[: request.num_connections + len(labels)])
    disk = total if not request.num_users or total is None else at_once
    return Plan({"address": base}, total, disk, "full-size" if request.raw else "256x256", run)


def _check_labels(path: Path) -> None:
    for _entry in read_entries(path):
        pass


def _check_relation(path: Path) -> None:
    read_relation(path)


def _unpacked(item: Item, output: Path, ids: set[int] | None, most: int) -> Item:
    """The item with its archive unpacked and removed; with ``ids``, only those images are kept."""
    folder = (output / item.name).parent

    def keep(name: str) -> bool:
        match = _IMAGE_NAME.fullmatch(name)
        return ids is None or (match is not None and int(match[1]) in ids)

    def finish(archive: Path) -> dict[str, Any]:
        number = unpack(archive, folder, keep, most)
        # The images must be on disk for good before the archive goes, from which alone they could be had again.
        sync_file_system(folder)
        archive.unlink()
        return {"unpacked": number}

    return replace(item, finish=finish)


def _cut_labels(request: Request) -> set[int]:
    """Writes the labels of the chosen users' images and returns the images' ids."""
    full = request.output / "labels/all" / LABELS_FILE
    partition_of: dict[str, str] = {}
    for entry in _checked(full):
        partition_of.setdefault(entry["user_id"], entry["partition"])
    users = choose_users(partition_of, request.num_users or 0, request.seed)
    ids: set[int] = set()
    target = request.output / "labels" / LABELS_FILE
    with replacing(target) as file:
        separator = "[\n"
        for entry in _checked(full):
            if entry["user_id"] in users:
                ids.add(int(entry["image_id"]))
                file.write((separator + json.dumps(entry)).encode())
                separator = ",\n"
        file.write(b"\n]\n")
    return ids


def _checked(path: Path) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(read_entries(path), start=1):
        try:
            sound = isinstance(entry["user_id"], str) and str.isprintable(entry["partition"])
            int(entry["image_id"])
        except (TypeError, ValueError, KeyError, OverflowError):
            sound = False
        if not sound:
            raise DataError(f"{path}: entry {number}: not an image with user, id and partition; download it again")
        yield entry


def _check_complete(ids: set[int], folder: Path) -> None:
    found = {int(match[1]) for path in folder.glob("*/*.jpg") if (match := _IMAGE_NAME.fullmatch(path.name))}
    missing = sorted(ids - found)
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(ids)} images are in no archive, the first is {missing[0]}.jpg; "
            "remove download.json and run again"
        )
