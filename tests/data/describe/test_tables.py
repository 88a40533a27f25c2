"""The tables of a dataset as a person reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.data.describe.comparison import as_plain
from fedflair.data.describe.statistics import store_statistics
from fedflair.data.describe.tables import tables
from fedflair.data.store.packed import open_store
from fedflair.system.console import Console
from tests.data.describe.test_statistics import FLAIR_LABELS, LABELS, SMALL, write_store


def show(store: Path) -> None:
    for table in tables(as_plain(store_statistics(open_store(store)))):
        Console().print(table)


def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(write_store(tmp_path / "s.hdf5", SMALL, FLAIR_LABELS))
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= 80
    lines = [line.split() for line in printed.splitlines()]
    assert ["train", "2", "41,131", "4", "345,879", "0.0"] in lines
    assert ["images", "per", "user", "1.667", "0.943", "1", "1", "1", "2", "3"] in lines
    assert ["in", "FLAIR", "8.35", "51.28", "1", "1", "2", "5", "4,151"] in lines
    # animal: 3 of train, 0 of val, 3 of 5 images; in FLAIR 68,858 of 429,078.
    assert ["animal", "3", "0", "3", "60.0", "68,858", "16.0"] in lines
    assert ["soup", "1", "1", "2", "40.0"] in lines


@pytest.mark.parametrize("labels", [LABELS, (*FLAIR_LABELS, "holiday")], ids=["few of FLAIR's", "others too"])
def test_nothing_of_flair_stands_beside_what_is_not_like_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: tuple[str, ...]
) -> None:
    show(write_store(tmp_path / "s.hdf5", SMALL, labels))
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert "FLAIR" not in printed
    assert ["train", "2", "4", "0.0"] in lines
    assert ["animal", "3", "0", "3", "60.0"] in lines


def test_a_label_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ("[red]a[/red]", "b\x1b[2Jb", "[/x]plant")
    show(write_store(tmp_path / "s.hdf5", SMALL, labels))
    printed = capsys.readouterr().out
    assert "[red]a[/red]" in printed
    assert "[/x]plant" in printed
    assert r"b\x1b[2Jb" in printed
    assert "\x1b" not in printed
