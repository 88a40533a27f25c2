"""Where a report, a page or a sweep cannot be written there is one line, and nothing is left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fedflair.cli import main
from tests import prepared
from tests.report.folders import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", 0.5)


@pytest.fixture
def commands(run: Path, tiny_store: Path, tmp_path: Path) -> dict[str, list[str]]:
    """The commands, without the place to write to."""
    options = {"data_path": str(tiny_store), "pretrained": False, "cohort_size": 3, "model": "small_cnn"}
    (tmp_path / "sweep.json").write_text(json.dumps({"options": options}))
    return {
        "report": ["report", str(run)],
        "describe": ["describe", str(tiny_store)],
        "sweep": ["sweep", f"--sweep_config={tmp_path / 'sweep.json'}"],
    }


def one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fedflair: ")
    return line


@pytest.mark.parametrize("command", ["report", "describe", "sweep"])
def test_a_file_where_a_folder_should_be(
    command: str, commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    said = one_line([*commands[command], f"--output={tmp_path / 'file' / 'in' / 'it'}"], capsys)
    assert f"{tmp_path / 'file' / 'in'}" in said
    assert "a file stands where a folder should be" in said
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("output", "message"), [("folder", "Is a directory"), (".", "name a file in it")])
def test_a_folder_where_a_report_should_be(
    output: str, message: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert message in one_line(["report", str(run), f"--output={output}"], capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
@pytest.mark.parametrize("command", ["report", "describe", "sweep"])
def test_a_folder_that_is_closed(
    command: str, commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "check the permissions" in one_line([*commands[command], f"--output={tmp_path / 'closed' / 'x'}"], capsys)


@pytest.mark.parametrize("command", ["report", "describe"])
def test_a_disk_that_takes_no_more(command: str, commands: dict[str, list[str]], tmp_path: Path) -> None:
    output = tmp_path / "out" / "page"
    # What libraries write for themselves would meet the limit first.
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path)}
    done = prepared.run([*commands[command], f"--output={output}"], environment=environment, file_size=1000)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("fedflair: ")]
    assert len(said) == 1
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert "cannot be written (File too large): free some space" in said[0]
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
