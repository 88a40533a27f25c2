"""What ``fedflair sweep`` shows, and how it ends where runs failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedflair.cli import run as run_command
from fedflair.commands.sweep import show
from fedflair.errors import ConfigError, FedflairError
from fedflair.sweep.results import CAVEAT, summarise
from tests.small_runs import small_config
from tests.sweep.test_results import OUTCOMES, TRIALS


def test_the_terminal_shows_what_the_files_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(summarise(TRIALS, OUTCOMES), tmp_path)
    shown = capsys.readouterr().out
    assert "0.600 ± 0.141" in shown
    assert CAVEAT in shown
    assert f"sweep: {tmp_path}" in shown


def test_failed_runs_are_named_at_the_end(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every run's process ends at once: its interpreter finds no library where it is told to look.
    output = tmp_path / "sweep"
    options: dict[str, Any] = {
        name: value
        for name, value in small_config(tiny_store, model="small_cnn", central_num_iterations=1).as_dict().items()
        if name in ("data_path", "pretrained", "model", "image_size", "cohort_size", "central_num_iterations", "device")
    }
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "absent"))
    words = [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options.items()]
    message = r"1 of 1 runs failed: learning_rate=0\.5-seed0; see .*logs, and give the same command"
    with pytest.raises(FedflairError, match=message):
        run_command(["sweep", "--output", str(output), "--grid", "learning_rate=0.5", "--json", *words])
    assert capsys.readouterr().out == (output / "sweep.json").read_text()


def test_what_is_no_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="grid: learning_rate: must be an option and its values"):
        run_command(["sweep", "--output", str(tmp_path), "--grid", "learning_rate"])
