"""What a run folder lacks is named, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, DataError
from fedflair.runs.configuration import config_to_resume
from fedflair.runs.folder import RunFolder, read_summary, write_config


def test_a_run_that_is_resumed_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match=r"^resume: name the run's folder with --run$"):
        config_to_resume({"resume": True})


def test_a_run_that_has_not_ended_has_no_summary(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"summary\.json: no such file; the run has not ended"):
        read_summary(RunFolder(tmp_path))


def test_a_configuration_says_nothing_of_its_folder_or_of_how_it_is_resumed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_config(folder, TrainConfig.of(run=folder.path, cohort_size=7))
    text = folder.config.read_text()
    assert "cohort_size: 7\n" in text
    assert not any(line.startswith(("run:", "resume:", "resume_from:")) for line in text.splitlines())
