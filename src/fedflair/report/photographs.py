"""The photographs of test in which each model is surest, from the runs' stores; a report does without one."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from fedflair.data.images.decode import decode_rgb
from fedflair.data.published import licence_of
from fedflair.data.store.packed import Partition, Store, open_store
from fedflair.errors import DataError
from fedflair.report import markup
from fedflair.report.data import Group, Run
from fedflair.system.html_page import text

TITLES = {
    "right": "Right: the label it is surest of is there",
    "wrong": "Wrong: a label that is not there",
    "missed": "Missed: a label that is there",
}
_READING = (
    "In colour the label that counts and its probability; below it the labels that are there, the user and the image. "
    "At most two photographs of a list are for one label."
)
_SIDE, _QUALITY = 144, 75


@dataclass
class Stores:
    """Stores by path, opened once; why one cannot be."""

    opened: dict[str, Store | str] = field(default_factory=dict)
    pictures: dict[tuple[str, int], str] = field(default_factory=dict)

    def of(self, run: Run) -> Store | str:
        """The store that the run was scored on, or in a few words why it is not to be had."""
        path = str(run.options.get("data_path", ""))
        if path not in self.opened:
            try:
                self.opened[path] = open_store(Path(path))
            except (DataError, OSError):
                self.opened[path] = f"{path} is not there, or is no store"
        store = self.opened[path]
        if isinstance(store, Store) and run.store is not None and store.fingerprint != run.store:
            return f"{path} is another store than the run's"
        return store

    def picture(self, path: str, partition: Partition, image: int) -> str:
        """A small JPEG as base64; empty where the photograph cannot be read."""
        if (path, image) not in self.pictures:
            self.pictures[path, image] = _thumbnail(partition, image)
        return self.pictures[path, image]


def photographs(groups: Sequence[Group]) -> str:
    """A part for each group, of its first finished run; markup. Empty where no run knows of any."""
    stores, parts, why, licences = Stores(), "", [], []
    runs = [group.finished[0] for group in groups if group.finished and any(group.finished[0].examples.values())]
    for run in runs:
        store = stores.of(run)
        if isinstance(store, str):
            why.append(f"No photographs of {run.name}: {store}.")
            continue
        licences.append(licence_of(store.metadata.provenance))
        partition = store.partitions.get("test")
        shown = "".join(_kind(kind, run.examples.get(kind, ()), stores, partition, str(store.path)) for kind in TITLES)
        parts += markup.details(run.name, shown, is_open=not parts) if len(runs) > 1 else shown
    told = [_READING, *dict.fromkeys(licences)] if parts else []
    return markup.paragraphs([*told, *why], "faint") + parts if runs else ""


def _kind(kind: str, examples: Sequence[Any], stores: Stores, partition: Partition | None, path: str) -> str:
    if not examples or partition is None:
        return ""
    tiles = ""
    for one in examples:
        picture = stores.picture(path, partition, int(one["image"]))
        drawn = (
            f'<img alt="" src="data:image/jpeg;base64,{picture}">'
            if picture
            else '<div class="gone">cannot be read</div>'
        )
        there = ", ".join(one["labels"]) or "no label"
        tiles += (
            f'<div class="photo">{drawn}<b class="{kind}">{markup.name(one["label"])} {one["probability"]:.3f}</b>'
            f"<span>{markup.name(there)}</span><span>{markup.name(one['name'])}</span></div>"
        )
    return f'<h3>{text(TITLES[kind])}</h3><div class="photos">{tiles}</div>'


def _thumbnail(partition: Partition, image: int) -> str:
    if not 0 <= image < partition.num_images:
        return ""
    try:
        pixels = decode_rgb(partition.encoded(image))
    except DataError:
        return ""
    small = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
