"""What made a run: the commit of a folder, entries that are added, and their lines for people."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fedflair.errors import DataError
from fedflair.runs.environment import append_entry, git_state, lines_of, read_environment
from fedflair.runs.folder import RunFolder

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one commit, which is the current folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "code.py").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    monkeypatch.chdir(folder)
    return folder


def test_the_commit_of_the_current_folder_and_whether_it_was_changed(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert git_state() == {"commit": commit, "changed": False}
    # Runs, data and the like are no change of the code.
    (repository / "runs").mkdir()
    (repository / "runs" / "log").write_text("")
    assert git_state() == {"commit": commit, "changed": False}
    (repository / "code.py").write_text("two\n")
    assert git_state() == {"commit": commit, "changed": True}


def test_where_there_is_no_commit_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path / "plain")
    assert git_state() is None
    git(tmp_path / "plain", "init", "--quiet")
    assert git_state() is None
    (tmp_path / "plain" / ".git" / "HEAD").write_text("no such thing")
    assert git_state() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None


def test_a_variable_does_not_lead_to_another_folder(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    state = git_state()
    assert state is not None
    assert state["commit"] == commit


def test_no_program_that_a_folder_names_is_started(repository: Path, tmp_path: Path) -> None:
    hook, trace = tmp_path / "hook", tmp_path / "trace"
    hook.write_text(f"#!/bin/sh\ntouch {trace}\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    git(repository, "status")
    assert trace.exists()
    trace.unlink()
    assert git_state() is not None
    assert not trace.exists()


def test_entries_are_added_and_a_damaged_file_is_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_environment(folder) == []
    append_entry(folder, {"round": 0})
    assert append_entry(folder, {"round": 4}) == read_environment(folder) == [{"round": 0}, {"round": 4}]
    for damaged in ("{}", "[1]", "null", "["):
        folder.environment.write_text(damaged)
        with pytest.raises(DataError, match=r"environment\.json: not .*the run folder is damaged"):
            append_entry(folder, {"round": 5})
        assert folder.environment.read_text() == damaged


def test_an_entry_for_people() -> None:
    entry = {
        "began": "2026-01-02T03:04:05+00:00",
        "round": 0,
        "command": ["fedflair", "train", "--run=a b", "it's"],
        "git": None,
        "versions": {"torch": "2.9"},
        "store": {"provenance": {"train": {"users": 3}}, "empty": {}},
    }
    assert list(lines_of(json.loads(json.dumps(entry)))) == [
        "began: 2026-01-02T03:04:05+00:00",
        "round: 0",
        """command: fedflair train '--run=a b' 'it'"'"'s'""",
        "versions.torch: 2.9",
        "store.provenance.train.users: 3",
        "store.empty: {}",
    ]
