"""Whatever happened to a file of a run or a sweep, every command that reads it works or ends in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedflair.cli import main
from tests.small_runs import small_config

RUN = Path("runs") / "run-seed0"
OPTIONS: dict[str, Any] = {
    "model": "small_cnn",
    "central_num_iterations": 2,
    "central_privacy_mechanism": "gaussian_moments_accountant",
    "central_delta": 0.01,
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def whole(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A sweep's folder of one finished private run, which was evaluated by user."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    config = small_config(tiny_store, **OPTIONS).as_dict()
    options = {name: value for name, value in config.items() if name not in ("run", "resume", "seed")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared_cache))
        (folder.parent / "options.yaml").write_text(json.dumps(options, default=str))
        words = [f"--args_config={folder.parent / 'options.yaml'}", f"--run={folder / RUN}"]
        assert main(["train", *words]) == 0
        assert main(["evaluate", f"--run={folder / RUN}", "--per_user"]) == 0
        (folder.parent / "sweep.yaml").write_text(json.dumps({"options": options}, default=str))
        assert main(["sweep", f"--sweep_config={folder.parent / 'sweep.yaml'}", f"--output={folder}"]) == 0
    return folder


@pytest.fixture
def sweep(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "sweep"))


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "report": lambda sweep, whole: ["report", str(sweep / RUN), f"--output={sweep / 'report.html'}"],
    "report of a sweep": lambda sweep, whole: ["report", str(sweep), f"--output={sweep / 'report.html'}", "--json"],
    "evaluate": lambda sweep, whole: ["evaluate", f"--run={sweep / RUN}"],
    "sweep": lambda sweep, whole: [
        "sweep", f"--sweep_config={whole.parent / 'sweep.yaml'}", f"--output={sweep}", "--json",
    ],
    "resume": lambda sweep, whole: ["train", f"--run={sweep / RUN}", "--resume"],
    "export": lambda sweep, whole: ["export", f"--run={sweep / RUN}", f"--output={sweep / 'model'}"],
    "verify": lambda sweep, whole: ["ledger", "verify", str(sweep / RUN)],
}  # fmt: skip
READERS = {
    RUN / "config.yaml": ("report", "evaluate", "sweep", "resume", "verify"),
    RUN / "provenance.json": ("report", "evaluate", "sweep", "resume", "verify"),
    RUN / "environment.json": ("report", "export", "resume"),
    RUN / "metrics.jsonl": ("report", "resume"),
    RUN / "summary.json": ("report", "sweep", "export", "verify"),
    RUN / "label_ap.json": ("report",),
    RUN / "per_user_test.jsonl": ("report of a sweep",),
    RUN / "privacy_ledger.jsonl": ("verify", "resume"),
    RUN / "checkpoints" / "last.safetensors": ("verify", "resume"),
    RUN / "checkpoints" / "best.safetensors": ("evaluate",),
    RUN / "checkpoints" / "fixed.safetensors": ("evaluate",),
    Path("sweep.json"): ("report of a sweep",),
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "cut after a byte": lambda content: content[:1],
    "binary": lambda content: bytes(range(256)) * 8,
    "not UTF-8": lambda content: content.replace(b"a", b"\xff", 3),
    "a list": lambda content: b"[1, 2]\n",
    "a number": lambda content: b"5\n",
    "null": lambda content: b"null\n",
    "a mapping of something else": lambda content: b'{"a": [{"b": 1}]}\n',
    "nested": lambda content: b"[" * 50_000 + b"\n",
    "nested mappings": lambda content: b'{"a":' * 900 + b"1" + b"}" * 900 + b"\n",
    "a huge number": lambda content: b'{"round": ' + b"9" * 5000 + b"}\n",
    "numbers are text": lambda content: content.replace(b": 0", b': "0').replace(b": 1", b': {}, "x": 1'),
    "no names": lambda content: content.replace(b'": ', b'_": '),
    "a line in the middle": lambda content: content.replace(b"\n", b"\n{\x00\n", 1),
}


def ends_in_one_line(command: str, sweep: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    status = main(COMMANDS[command](sweep, whole))
    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("fedflair: ")]
    assert len(said) == (0 if status == 0 else 1), error
    # What nobody foresaw is told in a line too, which is no excuse.
    assert "Traceback" not in error and "internal error" not in error, error
    if said and command != "sweep":
        assert error.splitlines()[-1] == said[0]
    return status, said[0] if said else ""


def test_a_whole_folder_is_read_by_every_command(sweep: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert ends_in_one_line(command, sweep, whole, capsys) == (0, ""), command


@pytest.mark.parametrize("file", READERS, ids=lambda file: file.name)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file(file: Path, damage: str, sweep: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in READERS[file]:
        damaged = DAMAGES[damage]((whole / file).read_bytes())
        (sweep / file).write_bytes(damaged)
        status, said = ends_in_one_line(command, sweep, whole, capsys)
        if damage not in ("numbers are text", "no names", "not UTF-8") and damaged != (whole / file).read_bytes():
            assert status == 1 or (file.suffix == ".jsonl" and damage in ("empty", "cut short", "cut after a byte"))
        if status:
            assert file.name in said
            assert len(said) < 700
        # What a command has written on the way is not what the next one is to read.
        if command == "resume":
            shutil.rmtree(sweep)
            shutil.copytree(whole, sweep)


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("summary.json", ["val"], None),
        ("summary.json", ["test", "macro_ap"], "high"),
        ("summary.json", ["seconds"], "long"),
        ("summary.json", ["setting"], 5),
        ("summary.json", ["privacy"], "none"),
        ("summary.json", ["privacy", "epsilon"], "two"),
        ("summary.json", ["local_privacy"], [1]),
        ("label_ap.json", ["animal"], "high"),
        ("label_ap.json", ["animal"], {"ap": 1}),
        ("config.yaml", ["central_num_iterations"], "many"),
        ("config.yaml", ["cohort_size"], {"a": 1}),
        ("config.yaml", ["data_path"], [[1]]),
    ],
)
def test_one_value_of_another_kind_is_named(
    file: str, path: list[str], value: object, sweep: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = sweep / RUN / file
    content = json.loads(place.read_text()) if file != "config.yaml" else {"cohort_size": 3}
    inside = content
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    place.write_text(json.dumps(content))
    status, said = ends_in_one_line("report", sweep, whole, capsys)
    assert status == 1
    assert file in said
    assert path[0] in said or file == "label_ap.json"
    assert "put the file back from a copy" in said


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("metrics.jsonl", {"train/loss": 1.0}, "line 2: no whole number called round"),
        ("metrics.jsonl", {"round": 2, "train/loss": "low"}, "line 2: train/loss is no number"),
        ("metrics.jsonl", {"round": "2"}, "line 2: no whole number called round"),
        ("metrics.jsonl", [2], "line 2: not a row of metrics"),
        ("per_user_test.jsonl", {"micro_ap": "high"}, "line 2: micro_ap is no number"),
        ("per_user_test.jsonl", {"micro_ap": None, "personalised": 1}, "line 2: personalised is not a model's scores"),
        ("per_user_test.jsonl", {"num_images": 1}, "line 2: no field micro_ap"),
        ("per_user_test.jsonl", "a", "line 2: not a user's row"),
    ],
)
def test_a_row_of_another_kind_is_named(
    name: str, row: object, message: str, sweep: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = sweep / RUN / name
    first = place.read_text().splitlines()[0]
    place.write_text(f"{first}\n{json.dumps(row)}\n")
    status, said = ends_in_one_line("report", sweep, whole, capsys)
    assert status == 1
    assert f"{name}: {message}" in said


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "no list called points"),
        ({"points": [1]}, "point 1 has no name"),
        ({"points": [{"point": "a", "runs": 1}]}, "point 1 has no list of runs"),
        ({"points": [{"point": "a", "runs": [{"run": 1, "seed": 0}]}]}, "point 1 has no list of runs"),
        ({"points": [{"point": "a", "runs": [{"run": "b", "seed": "0"}]}]}, "point 1 has no list of runs"),
    ],
)
def test_results_of_a_sweep_of_another_shape(
    results: object, message: str, sweep: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "sweep.json").write_text(json.dumps(results))
    status, said = ends_in_one_line("report of a sweep", sweep, whole, capsys)
    assert status == 1
    assert message in said
    assert "the same sweep command writes it again" in said
    # As it says.
    assert ends_in_one_line("sweep", sweep, whole, capsys) == (0, "")
    assert ends_in_one_line("report of a sweep", sweep, whole, capsys) == (0, "")
