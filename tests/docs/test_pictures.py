"""The pictures are small, and drawn from run folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.generate import pictures
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from fedflair.data.store.packed import open_store
from fedflair.report.data import read_run
from tests.report.folders import write_run

ROOT = Path(__file__).parents[2]


def test_a_name_stands_above_the_one_before_around_where_it_was() -> None:
    assert pictures.spread([0.2, 0.5, 0.9], 0.1) == [0.2, 0.5, 0.9]
    assert pictures.spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])


def test_curves_have_a_line_a_run_with_its_name(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, score), name) for name, score in (("a_b", 0.5), ("c", 0.7))]
    (axes,) = pictures.curves(runs).axes
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [[0.25, 0.5], [0.35, 0.7]]
    names = [child.get_text() for child in axes.get_children() if isinstance(child, Annotation)]
    assert names == ["a b", "c", "a model that knows nothing"]


def test_photographs_show_as_many_labels_as_they_can(tiny_store: Path) -> None:
    partition = open_store(tiny_store).partitions["train"]
    chosen = pictures.chosen(partition)
    assert len(chosen) == len(set(chosen)) == pictures.NUM_PHOTOGRAPHS
    first, second = (pictures.labels_of(partition, position) for position in chosen[:2])
    assert not first & second
    assert first | second == {0, 1, 2, 3}


def test_a_picture_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURES", tmp_path)
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"a\.png: [\d,]+ bytes; a picture of the documentation has at most 100"):
        pictures.save(Figure(), "a.png")


def test_the_pictures_that_are_there_are_small_and_shown() -> None:
    shown = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    found = list((ROOT / "docs" / "pictures").iterdir())
    assert {path.name for path in found} == {"choice.png", "curves.png", "parity_curves.png", "photographs.png"}
    assert all(path.stat().st_size <= pictures.MOST_BYTES and f"pictures/{path.name})" in shown for path in found)
