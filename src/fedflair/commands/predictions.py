"""What ``fedflair predict`` does once its words are understood: it opens, looks and shows."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedflair.commands.progress import track
from fedflair.data.images.jpeg import pillow_unlimited
from fedflair.data.images.limits import Limits
from fedflair.data.images.photographs import find_photographs
from fedflair.data.store.packed import open_store
from fedflair.errors import DataError
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


@dataclass(frozen=True)
class Asked:
    """What is to be looked at, and by what: the command's options of these names."""

    photographs: Sequence[Path]
    limits: Limits
    run: Path | None
    model: Path | None
    checkpoint: Literal["best", "last"]
    data_path: Path | None
    partition: str | None
    allow_code: bool


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


def show(asked: Asked, threshold: float, top: int, form: Literal["json", "csv", "table"], page: Path | None) -> None:
    """Predicts and prints, and writes the page where there is to be one.

    Raises DataError at the end where photographs could not be read, and is done with the others then.
    """
    opened = None if asked.run is None else open_run(asked.run, asked.checkpoint)
    found = _photographs(asked, opened)
    used = _model(asked, opened)
    shown = _Shown(used.setup.labels, threshold, top)
    with pillow_unlimited(), warnings.catch_warnings():
        # What its decoders think of a photograph is nobody's concern that can be read.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        keep = 0 if page is None else MOST_SHOWN
        for prediction in track(look(used, found, keep=keep), len(found)):
            shown.add(prediction)
    facts = dict(used.facts)
    if asked.partition is not None:
        facts["partition"] = asked.partition
    if page is not None:
        write_atomically(page, _page(facts, shown, len(found)))
    _print(facts, shown, form)
    if page is not None and form == "table":
        say(f"page: {page}")
    if shown.unread:
        raise DataError(
            f"predict: {len(shown.unread):,} of {len(found):,} photographs could not be read and are left out, each "
            "named above; the others are done"
        )


def _model(asked: Asked, opened: OpenedRun | None) -> Model:
    if opened is not None:
        return opened.model()
    assert asked.model is not None
    return model_of_export(asked.model, allow_code=asked.allow_code)


def _photographs(asked: Asked, opened: OpenedRun | None) -> Photographs:
    if asked.partition is None:
        return Files(tuple(find_photographs(asked.photographs)), asked.limits)
    if asked.data_path is not None:
        store = open_store(asked.data_path)
    else:
        assert opened is not None
        require_store(opened.config)
        store = open_store(opened.config.data.data_path)
        opened.check_store(store)
    if asked.partition not in store.partitions or store.partitions[asked.partition].num_images == 0:
        raise DataError(f"{store.path}: partition {asked.partition!r} is empty; choose another with --partition")
    return Stored(store.partitions[asked.partition])


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
    writer = csv.DictWriter(text, columns, lineterminator="\n")
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
