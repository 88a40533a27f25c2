"""Labels, users, partitions, runs and points named to steer the terminal or to break what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedflair.cli import main
from tests.conftest import write_tiny_store

LABELS = ("[/x]lab", "\x1b[2Jred\x1b[0m", "[bold]x", "=1+1|<b>\u202e")
USER = "[/u]{}\x1b]0;owned\x07{}-{}"
# As a path that is a folder "[" and in it "n]..."; as the name of a file it is the second.
NAME = "[/n]\x1b[31m"
FILE = "n]\x1b[31m"
SIZE = ["--pretrained=false", "--image_size=32", "--cohort_size=3", "--device=cpu"]
SIZE += ["--central_num_iterations=1", "--num_threads=1", "--model=small_cnn"]


def is_clean(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / f"{NAME}.hdf5"
    return write_tiny_store(path, labels=LABELS, user_id=USER)


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / NAME
    assert main(["train", f"--data_path={store}", f"--run={folder}", *SIZE]) == 0
    return folder


def test_train_says_it_as_it_is(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"--data_path={store}", f"--run={tmp_path / NAME}", *SIZE]) == 0
    said = capsys.readouterr()
    assert is_clean(said.out + said.err)
    assert r"[/n]\x1b[31m" in said.err


@pytest.mark.parametrize("more", [[], ["--per_user", "--personalise_steps=1"]], ids=["labels", "users"])
def test_evaluate_shows_them_as_they_are(run: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", f"--run={run}", *more]) == 0
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err)
    assert r"[/n]\x1b[31m" in "".join(shown.out.split())
    if not more:
        assert all(name in shown.out for name in ("[/x]lab", r"\x1b[2Jred\x1b[0m", "[bold]x", r"=1+1|<b>\u202e"))


def test_report_shows_them_as_they_are(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users = [json.dumps({"micro_ap": 0.5, "num_images": 2}) for _ in range(3)]
    # The name of this file is a partition's, and is shown.
    (run / f"per_user_{FILE}.jsonl").write_text("\n".join(users) + "\n")
    page = tmp_path / f"{NAME}.html"
    assert main(["report", str(run), f"--output={page}"]) == 0
    (run / f"per_user_{FILE}.jsonl").unlink()
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err)
    assert r"[/n]\x1b[31m.html" in shown.out
    text = page.read_text()
    assert is_clean(text)
    assert r"=1+1|&lt;b&gt;\u202e" in text
    assert r"users of n]\x1b[31m" in text
    assert "<b>" not in text


def test_describe_shows_them_as_they_are(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / NAME
    assert main(["describe", str(store), f"--output={page}"]) == 0
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err)
    assert "[/x]lab" in shown.out
    assert is_clean((page / "index.html").read_text())
    assert r"n]\x1b[31m.hdf5</title>" in (page / "index.html").read_text()


def test_a_sweep_shows_them_as_they_are_to_its_end(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"[/x]|<i>\x1b[2J": {"model": "small_cnn"}, "=cmd|x\\|": {"model": "small_cnn"}}
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": points}))
    output = tmp_path / NAME
    # Every run's process ends at once: what is shown of them is the same.
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "absent"))
    arguments = [f"--sweep_config={tmp_path / 'sweep.json'}", f"--output={output}", f"--data_path={store}", *SIZE[:-1]]
    assert main(["sweep", *arguments]) == 1
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err)
    assert r"[/x]|<i>\x1b[2J" in shown.out
    assert "2 of 2 runs failed" in shown.err
    table = [line for line in (output / "sweep.md").read_text().splitlines() if line.startswith("|")]
    assert {line.replace(r"\\", "").replace(r"\|", "").count("|") for line in table} == {10}
    assert not [line for line in table if "<" in line]
    rows = (output / "sweep.csv").read_text()
    assert "\n'=cmd|x\\|,'=cmd|x\\|,0," in rows
    assert main(["report", str(output), f"--output={tmp_path / 'report.html'}"]) in (0, 1)
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err)


def test_a_worker_s_error_names_its_client_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write_tiny_store(tmp_path / "s.hdf5", encode=lambda i: b"\xff\xd8no image", user_id=USER)
    assert main(["train", f"--data_path={broken}", f"--run={tmp_path / 'run'}", *SIZE]) == 1
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err)
    error = shown.err.splitlines()[-1]
    assert error.startswith("fedflair: ")
    assert r"\x1b]0;owned\x07" in error


@pytest.mark.parametrize(
    "words",
    [
        ["\x1b[2J"],
        ["train", "--cohort_size=\x1b[2J"],
        ["train", "--\x1b[2J=1"],
        ["describe", "\x1b[2J.hdf5"],
        ["report", "\x1b[2J"],
        ["train", "--args_config=\x1b[2J"],
    ],
)
def test_an_error_quotes_what_it_was_given_as_it_is(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) in (1, 2)
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert r"\x1b[2J" in shown
    assert is_clean(shown)


def test_a_configuration_s_values_are_quoted_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    for name, value in (("model_type", "\x1b[2J"), ("cohort_size", "\x1b[2J"), ("\x1b[2J", 1)):
        path.write_text(json.dumps({name: value}))
        # A network of that name might be a plugin's: it is looked for when the store has been found.
        assert main(["train", f"--args_config={path}"]) == (1 if name == "model_type" else 2)
        shown = capsys.readouterr().err
        assert len(shown.splitlines()) == 1
        assert is_clean(shown)
