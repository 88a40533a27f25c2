"""``fedflair predict``: table, JSON, CSV and page, of files, folders and a store; what is refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fedflair.cli import main
from fedflair.cli import run as run_command
from fedflair.data.store.packed import open_store
from fedflair.evaluation.opened import open_run
from fedflair.evaluation.predict import Prediction, Stored, predict
from fedflair.training.train import train
from tests.conftest import LABELS, jpeg, write_tiny_store
from tests.small_runs import small_config


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(small_config(tiny_store, run=folder, model="small_cnn", central_num_iterations=1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photographs = tmp_path / "photographs"
    (photographs / "trip").mkdir(parents=True)
    for number, name in enumerate(("b.jpg", "a.jpg", "trip/c.jpg")):
        (photographs / name).write_bytes(jpeg(number, side=256 + 50 * number))
    (photographs / "notes.txt").write_text("no photograph")
    return photographs


def shown(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    capsys.readouterr()
    run_command(["predict", *map(str, words)])
    return capsys.readouterr().out


def test_a_folder_as_a_table_json_and_csv(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(capsys, "--run", run, folder, "--json", "--top", "0", "--threshold", "0.45"))
    names = [str(folder / name) for name in ("a.jpg", "b.jpg", "trip/c.jpg")]
    assert [one["photograph"] for one in found["photographs"]] == names
    assert (found["run"], found["checkpoint"], found["threshold"], found["left_out"]) == (str(run), "best", 0.45, [])
    for one in found["photographs"]:
        assert sorted(label["label"] for label in one["labels"]) == sorted(LABELS)
        probabilities = [label["probability"] for label in one["labels"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert [label["predicted"] for label in one["labels"]] == [p > 0.45 for p in probabilities]
    rows = list(csv.DictReader(io.StringIO(shown(capsys, "--run", run, folder, "--csv", "--top", "2"))))
    assert [row["photograph"] for row in rows] == [name for name in names for _ in range(2)]
    first = found["photographs"][0]["labels"][0]
    assert (rows[0]["label"], float(rows[0]["probability"])) == (first["label"], first["probability"])
    assert rows[0].keys() == {"photograph", "label", "probability", "predicted"}
    table = "".join(shown(capsys, "--run", run, folder / "a.jpg", "--threshold", "0").split())
    assert f"{first['label']}{first['probability']:.3f}*" in table
    assert "bestmodel" in table


def test_of_a_partition_csv_has_the_very_probabilities(
    run: Path, tiny_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_run(run, "best").model()
    expected = list(predict(model, Stored(open_store(tiny_store).partitions["val"])))
    for place in ([], ["--data_path", tiny_store]):
        text = shown(capsys, "--run", run, "--partition", "val", *place, "--csv", "--top", "0")
        rows = list(csv.DictReader(io.StringIO(text)))
        for number, one in enumerate(expected):
            assert isinstance(one, Prediction)
            own = {row["label"]: row for row in rows[4 * number : 4 * number + 4]}
            assert {row["photograph"] for row in own.values()} == {one.name}
            read = np.array([np.float32(own[label]["probability"]) for label in model.setup.labels])
            assert np.array_equal(read, one.probabilities)
        assert len(rows) == 4 * 9


def test_neither_the_store_nor_an_order_of_words_is_needed(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(
        "\n".join("data_path: /nowhere" if line.startswith("data_path") else line for line in text.splitlines())
    )
    whole = json.loads(shown(capsys, folder / "a.jpg", "--run", run, "--json"))
    there = json.loads(shown(capsys, "--json", "--run", moved, folder / "a.jpg"))
    assert there["photographs"] == whole["photographs"]
    assert main(["predict", f"--run={moved}", "--partition=test"]) == 1
    assert "/nowhere: the run's store is not there" in capsys.readouterr().err


class Page(HTMLParser):
    """Texts, pictures, and whatever would be fetched or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.pictures: list[str] = []
        self.foreign: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "img":
            self.pictures.append(str(found["src"]))
        if tag in ("script", "link", "iframe", "object") or any(name.startswith("on") for name in found):
            self.foreign.append(tag)


def test_the_page_has_the_pictures_and_nothing_from_elsewhere(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = folder / "<img src=x onerror=alert(1)>\x1b[31m.jpg"
    hostile.write_bytes(jpeg(5))
    output = tmp_path / "out" / "page.html"
    said = shown(capsys, "--run", run, folder, "--page", output)
    assert f"page: {output}" in said
    text = output.read_text()
    page = Page(text)
    assert len(page.pictures) == 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.pictures)
    assert page.foreign == []
    assert {str(folder / "a.jpg"), *LABELS} <= set(page.texts)
    assert "\x1b" not in text + said
    assert "<img src=x" not in text
    assert "default-src 'none'" in text


def test_a_broken_file_among_many_is_named_and_the_status_is_1(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.jpg").write_bytes(b"\xff\xd8\xff")
    absent = folder / "\x1b[2Jabsent.jpg"
    assert main(["predict", f"--run={run}", str(folder), str(absent), "--json"]) == 1
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert lines[0].startswith(f"fedflair: {folder / 'b.jpg'}: truncated JPEG")
    assert lines[0].endswith("; left out")
    assert lines[1] == f"fedflair: {folder}/\\x1b[2Jabsent.jpg: no such file; left out"
    assert lines[2].startswith("fedflair: predict: 2 of 4 photographs could not be read")
    assert len(lines) == 3
    found = json.loads(output.out)
    assert [Path(one["photograph"]).name for one in found["photographs"]] == ["a.jpg", "c.jpg"]
    assert [one["photograph"] for one in found["left_out"]] == [str(folder / "b.jpg"), str(absent)]


def test_predictions_of_a_private_run_carry_its_mark(
    tiny_store: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"central_privacy_mechanism": "gaussian", "central_delta": 0.01, "central_num_iterations": 1}
    private = train(small_config(tiny_store, run=tmp_path / "private", model="small_cnn", **options))
    run_command(["export", f"--run={private}", f"--output={tmp_path / 'exported'}"])
    for source in (["--run", private], ["--model", tmp_path / "exported"]):
        words = [*source, folder / "a.jpg"]
        assert json.loads(shown(capsys, *words, "--json"))["not_covered_by_epsilon"] == "every number here"
        (row, *_) = csv.DictReader(io.StringIO(shown(capsys, *words, "--csv")))
        assert row["not_covered_by_epsilon"] == "every number here"
        table = " ".join(shown(capsys, *words, "--page", tmp_path / "page.html").split())
        assert "epsilon does not cover it" in table
        assert "epsilon does not cover it" in (tmp_path / "page.html").read_text()


def test_hostile_labels_and_users_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ("[/x]lab", "\x1b[2Jred", "=1+1|<b>\u202e", "a\nb")
    store = write_tiny_store(tmp_path / "s.hdf5", labels=labels, user_id="=cmd\x1b]0;{}{}{}")
    folder = train(small_config(store, run=tmp_path / "run", model="small_cnn", central_num_iterations=1))
    text = shown(capsys, "--run", folder, "--partition", "val", "--page", tmp_path / "p.html", "--top", "0")
    text += (tmp_path / "p.html").read_text()
    assert all(c.isprintable() or c in "\n\t" for c in text)
    assert r"=1+1|&lt;b&gt;\u202e" in text
    assert r"a\nb" in text
    rows = list(
        csv.DictReader(io.StringIO(shown(capsys, "--run", folder, "--partition", "val", "--csv", "--top", "0")))
    )
    assert len(rows) == 4 * 9
    assert {row["label"] for row in rows} == {"[/x]lab", r"\x1b[2Jred", r"'=1+1|<b>\u202e", r"a\nb"}
    assert all(row["photograph"].startswith("'=cmd") for row in rows)
    found = json.loads(shown(capsys, "--run", folder, "--partition", "val", "--json", "--top", "0"))
    assert {one["label"] for one in found["photographs"][0]["labels"]} == set(labels)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.jpg"], "name a run folder with --run, or an exported model with --model"),
        (["--run=R", "--model=M", "a.jpg"], "and not both"),
        (["--run=R"], "name photographs or folders of them"),
        (["--run=R", "a.jpg", "--partition=test"], "partition: given together with photographs"),
        (["--run=R", "--data_path=s.hdf5"], "name photographs or folders of them"),
        (["--run=R", "--data_path=s.hdf5", "a.jpg"], "data_path: say which partition"),
        (["--model=M", "--partition=test"], "partition: an exported model has no store"),
        (["--run=R", "a.jpg", "--threshold=1.5"], "threshold: 1.5 is impossible"),
        (["--run=R", "a.jpg", "--top=-1"], "top: -1 is impossible"),
        (["--run=R", "a.jpg", "--json", "--csv"], "csv: given together with --json"),
        (["--run=R", "a.jpg", "--page=photo.jpg"], "page: photo.jpg: name a file that ends in .html"),
        (["--run=absent", "a.jpg"], "not a run folder"),
        (["--model=absent", "a.jpg"], "absent: no such file; name a folder or a .safetensors file"),
    ],
)
def test_words_that_do_not_go_together_are_one_line(
    words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What is not there is no mistake of usage.
    assert main(["predict", *words]) == (1 if "absent" in words[0] else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert "internal error" not in line


def test_a_limit_can_be_raised_and_is_named(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", f"--run={run}", str(folder / "trip" / "c.jpg"), "--max_image_pixels=100000"]) == 1
    assert "356x356 pixels are more than an image may have; see --max_image_pixels" in capsys.readouterr().err
    assert main(["predict", f"--run={run}", str(folder / "trip" / "c.jpg"), "--max_image_pixels=126736"]) == 0
