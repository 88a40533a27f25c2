"""Who was in a secret cohort is told nobody but the run's owner, whatever went wrong with a client's work."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from fedflair.cli import main
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, DataError, FedflairError, WorkerError
from fedflair.federated.setup import TrainingSetup, make_setup
from fedflair.runs.folder import RunFolder
from fedflair.system.memory import shortage
from fedflair.training.secrecy import closed_to_others
from tests.conftest import jpeg, write_tiny_store
from tests.small_runs import command, small_config

PRIVATE = {"central_privacy_mechanism": "gaussian_moments_accountant", "central_delta": 0.01, "cohort_size": 6}


@pytest.fixture(scope="module")
def broken_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second training user's second image is none."""
    path = tmp_path_factory.mktemp("store") / "broken.hdf5"
    return write_tiny_store(path, encode=lambda number: b"no image" if number == 2 else jpeg(number))


def config(store: Path, run: Path, **options: Any) -> TrainConfig:
    small = {"model": "small_cnn", "num_threads": 1, "central_num_iterations": 2}
    return small_config(store, run=run, **{**small, **options})


@pytest.mark.parametrize("private", [False, True])
def test_a_broken_image_of_a_secret_cohort_is_named_in_a_closed_file(
    broken_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], private: bool
) -> None:
    run = tmp_path / "run"
    options = PRIVATE if private else {"cohort_size": 6}
    words = command(config(broken_store, run, **options))[4:]
    assert main(["train", *words]) == 1
    said = capsys.readouterr().err
    line = said.splitlines()[-1]
    if not private:
        assert "image 2 of user 'train-1@N01' in partition 'train'" in line
        assert not RunFolder(run).failures.exists()
        return
    assert line.startswith(
        f"fedflair: round 1: the work on a client failed; which client, why, and what to do is in {run}/failures.txt, "
        "closed to others since the cohort is secret"
    )
    assert "train-" not in said
    assert "image 2 of user 'train-1@N01' in partition 'train'" in RunFolder(run).failures.read_text()
    assert stat.S_IMODE(RunFolder(run).failures.stat().st_mode) == 0o600
    open_files = [path for path in run.rglob("*") if path.is_file() and path != RunFolder(run).failures]
    assert not any(b"train-1@" in path.read_bytes() for path in open_files)


@pytest.fixture(scope="module")
def setups(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, TrainingSetup]:
    run = tmp_path_factory.mktemp("runs") / "run"
    return {
        private: make_setup(config(tiny_store, run, **(PRIVATE if private else {})), 1 << 100)
        for private in (False, True)
    }


def of_client(error: FedflairError) -> FedflairError:
    error.of_client = True
    return error


def test_only_what_names_a_client_of_a_private_run_is_closed(setups: dict[bool, TrainingSetup], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    plain: list[tuple[bool, FedflairError]] = [
        (False, of_client(WorkerError("client a"))),
        (True, WorkerError("workers: none could start")),
        (True, of_client(ConfigError("learning_rate: too high"))),
    ]
    for private, error in plain:
        with pytest.raises(type(error)) as caught, closed_to_others(setups[private], folder, 4):
            raise error
        assert caught.value is error
    assert not folder.failures.exists()
    folder.failures.write_text("before\n")
    for kind in (WorkerError, DataError):
        closed = closed_to_others(setups[True], folder, 4)
        with pytest.raises(kind, match=r"round 5: the work on a client failed; .*failures.txt") as caught, closed:
            raise of_client(kind("client \ud800a"))
        assert "client \ud800a" not in str(caught.value)
    assert folder.failures.read_text() == "before\nclient \\ud800a\nclient \\ud800a\n"
    assert stat.S_IMODE(folder.failures.stat().st_mode) == 0o600


def test_a_want_of_memory_is_told_as_such_without_the_client(setups: dict[bool, TrainingSetup], tmp_path: Path) -> None:
    with pytest.raises(WorkerError) as caught, closed_to_others(setups[True], RunFolder(tmp_path), 0):
        raise of_client(WorkerError("client a failed with RuntimeError: unable to allocate 5 bytes")) from MemoryError(
            "a"
        )
    short = shortage(caught.value)
    assert isinstance(short, MemoryError)
    assert str(short) == ""


def test_a_planted_link_is_not_followed(setups: dict[bool, TrainingSetup], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.failures.symlink_to(tmp_path / "public.txt")
    with pytest.raises(DataError, match=r"failures.txt: .*a link"), closed_to_others(setups[True], folder, 0):
        raise of_client(WorkerError("client a"))
    assert not (tmp_path / "public.txt").exists()
    shutil.rmtree(folder.path)
