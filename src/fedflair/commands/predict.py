"""``fedflair predict``: what a trained model says of photographs: a table, JSON, CSV, and a page with the pictures."""

from __future__ import annotations

import csv as csv_format
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedflair.commands.progress import track
from fedflair.config.parsing import as_usage_errors
from fedflair.data.images.jpeg import pillow_unlimited
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.images.photographs import find_photographs
from fedflair.data.store.packed import open_store
from fedflair.errors import ConfigError, DataError, UsageError
from fedflair.evaluation.exported import model_of_export
from fedflair.evaluation.gallery import MOST_SHOWN, Labelled
from fedflair.evaluation.gallery import page as page_of
from fedflair.evaluation.opened import Model, OpenedRun, open_run
from fedflair.evaluation.predict import Files, Photographs, Prediction, Stored, Unread
from fedflair.evaluation.predict import predict as look
from fedflair.privacy.ledger import coverage
from fedflair.runs.configuration import require_store
from fedflair.runs.json_text import dumps
from fedflair.system.console import Console, table
from fedflair.system.csv_text import csv_cell
from fedflair.system.files import write_atomically
from fedflair.system.terminal import cell, one_line, say

UNCOVERED = "computed without noise: the run's epsilon does not cover it"
_PAGES = (".html", ".htm")


@dataclass
class _Shown:
    """What is made of predictions. threshold, top: the options of these names."""

    labels: Sequence[str]
    threshold: float
    top: int
    rows: list[tuple[str, list[tuple[str, float, bool]]]] = field(default_factory=list)
    pictures: list[Labelled] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    def add(self, found: Prediction | Unread) -> None:
        if isinstance(found, Unread):
            # At once, so that whoever waits for many knows.
            say(f"fedflair: {one_line(found.why)}; left out", stderr=True)
            self.unread.append(found)
            return
        order = np.argsort(-found.probabilities, kind="stable")[: self.top or None]
        labels = [(self.labels[k], float(found.probabilities[k])) for k in order.tolist()]
        marked = [(label, probability, probability > self.threshold) for label, probability in labels]
        self.rows.append((found.name, marked))
        if found.photograph is not None:
            self.pictures.append(Labelled(found.name, found.photograph, marked))


def predict(
    *photographs: Path,
    run: Path | None = None,
    model: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    data_path: Path | None = None,
    partition: Literal["train", "val", "test"] | None = None,
    threshold: float = 0.5,
    top: int = 5,
    json: bool = False,
    csv: bool = False,
    page: Path | None = None,
    allow_code: bool = False,
    max_image_pixels: int = DEFAULT.image_pixels,
    max_image_bytes: int = DEFAULT.image_bytes,
    max_image_scans: int = DEFAULT.image_scans,
) -> None:
    """Predict the labels of photographs with a trained model: the most probable ones, and which are above a threshold.

    Args:
        photographs: Files, and folders, which are searched however deep; of any size and format that Pillow reads.
        run: The run folder whose model predicts.
        model: What fedflair export wrote, instead of a run.
        checkpoint: The run's model that was best on val, or the one of the last round that was saved.

    A store's photographs:
        data_path: A store to predict a partition of, instead of photographs; the run's own if not given.
        partition: The partition of that store.

    What is shown:
        threshold: A label is predicted where its probability is above this.
        top: How many labels of each photograph to show, the most probable first; 0 is all.
        json: Print JSON instead of a table.
        csv: Print CSV, a line for each label shown, instead of a table.
        page: Also write an HTML page with the pictures to this file.

    What is trusted:
        allow_code: Import and call the code of somebody's own that an exported network is made by.
        max_image_pixels: Pixels that one photograph may have; more are refused before they are decoded.
        max_image_bytes: Bytes that one encoded photograph may have.
        max_image_scans: Scans that one progressive JPEG may have.
    """
    with as_usage_errors():
        _check(photographs, run, model, data_path, partition, threshold, top, page)
    if json and csv:
        raise UsageError("csv: given together with --json; drop one of the two")
    limits = Limits(image_pixels=max_image_pixels, image_bytes=max_image_bytes, image_scans=max_image_scans)
    opened = None if run is None else open_run(run, checkpoint)
    found = _photographs(photographs, limits, opened, data_path, partition)
    used = _model(opened, model, allow_code=allow_code)
    shown = _Shown(used.setup.labels, threshold, top)
    with pillow_unlimited(), warnings.catch_warnings():
        # What its decoders think of a photograph is nobody's concern that can be read.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        keep = 0 if page is None else MOST_SHOWN
        for prediction in track(look(used, found, keep=keep), len(found)):
            shown.add(prediction)
    facts = dict(used.facts)
    if partition is not None:
        facts["partition"] = partition
    if page is not None:
        write_atomically(page, _page(facts, shown, len(found)))
    _print(facts, shown, "json" if json else "csv" if csv else "table")
    if page is not None and not json and not csv:
        say(f"page: {page}")
    if shown.unread:
        raise DataError(
            f"predict: {len(shown.unread):,} of {len(found):,} photographs could not be read and are left out, each "
            "named above; the others are done"
        )


def _check(
    photographs: Sequence[Path],
    run: Path | None,
    model: Path | None,
    data_path: Path | None,
    partition: str | None,
    threshold: float,
    top: int,
    page: Path | None,
) -> None:
    """Raises ConfigError for options that do not go together, before anything is loaded."""
    if (run is None) == (model is None):
        raise ConfigError("predict: name a run folder with --run, or an exported model with --model, and not both")
    if not photographs and partition is None:
        raise ConfigError("predict: name photographs or folders of them, or a store's partition with --partition")
    if photographs and partition is not None:
        raise ConfigError("partition: given together with photographs; drop one of the two")
    if data_path is not None and partition is None:
        raise ConfigError("data_path: say which partition of it with --partition test")
    if model is not None and partition is not None and data_path is None:
        raise ConfigError("partition: an exported model has no store; name one with --data_path")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: {threshold} is impossible; it must be from 0 to 1")
    if top < 0:
        raise ConfigError(f"top: {top} is impossible; it must be at least 0, which is all labels")
    if page is not None and (page.suffix.lower() not in _PAGES or page.is_dir()):
        raise ConfigError(f"page: {page}: name a file that ends in .html")


def _model(opened: OpenedRun | None, exported: Path | None, *, allow_code: bool) -> Model:
    if opened is not None:
        return opened.model()
    assert exported is not None
    return model_of_export(exported, allow_code=allow_code)


def _photographs(
    places: Sequence[Path], limits: Limits, opened: OpenedRun | None, data_path: Path | None, partition: str | None
) -> Photographs:
    if partition is None:
        return Files(tuple(find_photographs(places)), limits)
    if data_path is not None:
        store = open_store(data_path)
    else:
        assert opened is not None
        require_store(opened.config)
        store = open_store(opened.config.data.data_path)
        opened.check_store(store)
    if partition not in store.partitions or store.partitions[partition].num_images == 0:
        raise DataError(f"{store.path}: partition {partition!r} is empty; choose another with --partition")
    return Stored(store.partitions[partition])


def _print(facts: Mapping[str, str], shown: _Shown, form: Literal["json", "csv", "table"]) -> None:
    if form == "json":
        say(dumps(_as_json(facts, shown)))
    elif form == "csv":
        say(_as_csv(facts, shown).rstrip("\n"))
    else:
        rows = [(name, ", ".join(map(_word, labels)) or "-") for name, labels in shown.rows]
        headings = ("photograph", f"labels (* above {shown.threshold:g})")
        Console().print(table(_title(facts), headings, rows, wrapped=[1], words=[1]))


def _word(label: tuple[str, float, bool]) -> str:
    name, probability, is_predicted = label
    return f"{name} {probability:.3f}{'*' if is_predicted else ''}"


def _as_json(facts: Mapping[str, str], shown: _Shown) -> dict[str, Any]:
    return {
        **facts,
        "threshold": shown.threshold,
        "photographs": [
            {
                "photograph": name,
                "labels": [{"label": n, "probability": p, "predicted": above} for n, p, above in labels],
            }
            for name, labels in shown.rows
        ],
        "left_out": [{"photograph": one.name, "why": one.why} for one in shown.unread],
    }


def _as_csv(facts: Mapping[str, str], shown: _Shown) -> str:
    """A line for each label shown; the mark of a private run is a column, as other programs pass over all else."""
    mark = {coverage.FIELD: facts[coverage.FIELD]} if coverage.FIELD in facts else {}
    text = io.StringIO(newline="")
    columns = ["photograph", "label", "probability", "predicted", *mark]
    writer = csv_format.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for name, labels in shown.rows:
        for label, probability, is_predicted in labels:
            texts = {"photograph": csv_cell(cell(name)), "label": csv_cell(cell(label))}
            writer.writerow({**texts, "probability": probability, "predicted": int(is_predicted), **mark})
    return text.getvalue()


def _title(facts: Mapping[str, str]) -> str:
    what = facts.get("model") or f"{facts['run']}: {facts['checkpoint']} model"
    if "partition" in facts:
        what += f", {facts['partition']}"
    if coverage.FIELD in facts:
        what += f" ({UNCOVERED})"
    return what + (f" (computed with {facts['kernels']})" if "kernels" in facts else "")


def _page(facts: Mapping[str, str], shown: _Shown, num_photographs: int) -> str:
    num_done = len(shown.rows)
    notes = [f"Labels with a probability above {shown.threshold:g} are set off."]
    if num_done > len(shown.pictures):
        notes.append(f"The first {len(shown.pictures):,} of {num_done:,} photographs are shown.")
    if shown.unread:
        notes.append(f"{len(shown.unread):,} of {num_photographs:,} photographs could not be read and are left out.")
    if "partition" in facts:
        notes.append("Each photograph of a dataset has its owner's licence.")
    if coverage.FIELD in facts:
        notes.append(f"Every number here is {UNCOVERED}.")
    known = {name: value for name, value in facts.items() if name != coverage.FIELD}
    return page_of("What the model says of photographs", known, shown.pictures, notes)
