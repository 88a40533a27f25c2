"""Photographs in a report: from the run's own store where it is, in one line without where it is not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedflair.commands.report import report
from fedflair.data.published import licence_of
from fedflair.errors import DataError
from fedflair.runs.folder import RunFolder, read_summary, read_test_details
from fedflair.training.train import train
from tests.conftest import write_tiny_store
from tests.small_runs import small_config

HOSTILE = ("<b>animal", "food\x1b[31m", "outdoor", "plant")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a private run beside the store that it was trained on."""
    folder = tmp_path_factory.mktemp("photographs")
    write_tiny_store(folder / "store.hdf5", labels=HOSTILE)
    options = {"central_privacy_mechanism": "gaussian", "central_delta": 0.01, "central_num_iterations": 1}
    train(small_config(folder / "store.hdf5", run=folder / "run", model="small_cnn", evaluation_frequency=1, **options))
    return folder


@pytest.fixture
def moved(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy whose store is its own."""
    shutil.copytree(trained, tmp_path / "copy")
    config = RunFolder(tmp_path / "copy" / "run").config
    config.write_text(config.read_text().replace(str(trained / "store.hdf5"), str(tmp_path / "copy" / "store.hdf5")))
    yield tmp_path / "copy"


def page(folder: Path, **options: bool) -> str:
    report(folder / "run", output=folder / "report.html", **options)
    return (folder / "report.html").read_text()


def test_the_surest_photographs_are_shown_with_their_labels_and_the_licence(trained: Path) -> None:
    text = page(trained)
    details = read_test_details(RunFolder(trained / "run"))
    shown = [one for many in details["examples"].values() for one in many]
    assert len(shown) > 6
    assert text.count('src="data:image/jpeg;base64,') == len(shown)
    for kind, title in (("right", "Right: "), ("wrong", "Wrong: "), ("missed", "Missed: ")):
        assert (title in text) == bool(details["examples"][kind])
    assert licence_of({}).replace("'", "&#x27;") in text
    assert licence_of({"source": "synthetic"}) not in text
    assert "FLAIR's" not in licence_of({"source": "photographs"}).replace("not FLAIR's", "")
    # Names from the store are text.
    assert "<b>animal" not in text and "\x1b" not in text
    assert re.search(r"&lt;b&gt;animal|food\\x1b\[31m", text)
    assert '<img alt="" src="data:' in text and "img-src data:" in text


def test_the_run_knows_them_and_marks_that_epsilon_does_not_cover_them(trained: Path) -> None:
    details = read_test_details(RunFolder(trained / "run"))
    assert details["not_covered_by_epsilon"] == ["left_out", "examples"]
    # Two users of test are two groups, and each is left out once.
    assert [len(values) for values in details["left_out"].values()] == [2, 2]
    assert read_summary(RunFolder(trained / "run"))["num_parameters"] > 1000


def test_no_photos(trained: Path) -> None:
    text = page(trained, no_photos=True)
    assert "data:image" not in text and "Photographs" not in text


@pytest.mark.parametrize("harm", ["gone", "no store", "another"])
def test_without_its_store_a_report_says_so_in_a_line(moved: Path, harm: str) -> None:
    store = moved / "store.hdf5"
    store.unlink()
    if harm == "no store":
        store.write_text("text")
    elif harm == "another":
        write_tiny_store(store, labels=("a", "b", "c", "d"))
    text = page(moved)
    assert "data:image" not in text
    why = "is another store than the run&#x27;s" if harm == "another" else "is not there, or is no store"
    assert f'<p class="faint">No photographs of run: {store} {why}.</p>' in text


def test_a_photograph_that_is_not_in_the_store_has_an_empty_place(moved: Path) -> None:
    details = RunFolder(moved / "run").test_details
    found = json.loads(details.read_text())
    found["examples"] = {"right": [{**found["examples"]["missed"][0], "image": 10_000}]}
    details.write_text(json.dumps(found))
    assert '<div class="gone">cannot be read</div>' in page(moved)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "not the details of a test"),
        ('{"left_out": {"macro_ap": ["x"]}, "examples": {}}', "left_out is not lists of numbers by metric"),
        ('{"left_out": {}, "examples": {"right": 1}}', "examples is not lists by kind"),
        ('{"left_out": {}, "examples": {"right": [{"name": "a"}]}}', "an example lacks its parts"),
    ],
)
def test_details_that_are_damaged_are_named(moved: Path, content: str, problem: str) -> None:
    RunFolder(moved / "run").test_details.write_text(content)
    with pytest.raises(DataError, match=rf"test_details\.json: {problem}; the run folder is damaged"):
        page(moved)
