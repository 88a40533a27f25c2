"""An image that cannot be worked on: one line names it and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.backends.threads import thread_backend
from fedflair.cli import main
from fedflair.errors import DataError, WorkerError
from fedflair.evaluation.partition import score_partition
from fedflair.evaluation.users import federated_evaluation
from fedflair.federated.setup import initial_state, make_setup
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training import record
from tests.conftest import USER_SIZES, jpeg, write_tiny_store
from tests.small_runs import command, small_config

# The first image of the third of train's users.
BROKEN_IMAGE = sum(USER_SIZES["train"][:2])
BROKEN_CLIENT = "train-2@N02"


def write_broken_store(path: Path, broken_image: int = BROKEN_IMAGE) -> Path:
    """The tiny store with one image's bytes cut short."""
    return write_tiny_store(path, encode=lambda number: jpeg(number)[: 30 if number == broken_image else None])


def test_a_broken_image_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = write_broken_store(tmp_path / "store.hdf5")
    config = small_config(store, run=tmp_path / "run", cohort_size=1, central_num_iterations=12)
    assert main(command(config)[3:]) == 1
    lines = capsys.readouterr().err.splitlines()
    num_rounds = len(read_rows(RunFolder(tmp_path / "run")))
    assert 0 < num_rounds < 12
    # Going on with the same store would fail again, so that is not what is told.
    assert lines[-1] == (
        f"fedflair: {store}: image {BROKEN_IMAGE} of user '{BROKEN_CLIENT}' in partition 'train' cannot be decoded "
        "(Truncated File Read); make the store again with 'fedflair prepare --skip_bad_images', which leaves such "
        "images out, and begin its runs again"
    )
    assert not any("Traceback" in line for line in lines)


def test_a_run_that_fails_when_it_is_scored_says_how_to_go_on(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    score = record.score_partition

    def lost(parameters: torch.Tensor, partition: str, **rest: Any) -> Any:
        if partition == "test":
            raise WorkerError("worker 1 was lost")
        return score(parameters, partition, **rest)

    monkeypatch.setattr(record, "score_partition", lost)
    assert main(command(small_config(tiny_store, run=tmp_path / "run", model="small_cnn"))[3:]) == 1
    folder = RunFolder(tmp_path / "run")
    assert len(read_rows(folder)) == 4
    assert not folder.summary.exists()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("fedflair: worker 1 was lost; stopped after round 4; continue with: ")
    assert last.endswith(f"fedflair train --resume --run {folder.path}")


def test_an_image_that_cannot_be_scored_is_named(tmp_path: Path) -> None:
    first_of_val = sum(USER_SIZES["train"])
    setup = make_setup(small_config(write_broken_store(tmp_path / "store.hdf5", first_of_val), val_cohort_size=2), 0)
    parameters = initial_state(setup).parameters
    with thread_backend(setup.worker) as backend:
        named = rf"image {first_of_val} of user 'val-0@N00' in partition 'val' cannot be decoded"
        with pytest.raises(DataError, match=named):
            score_partition(parameters, "val", setup=setup.worker, backend=backend)
        with pytest.raises(DataError, match=named):
            federated_evaluation(parameters, "val", 0, setup=setup.worker, backend=backend)
