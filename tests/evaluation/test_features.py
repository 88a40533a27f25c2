"""A head on frozen features trains as it does on images, with the features computed once, by anybody."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.engine.flat_model import flatten, parameter_vector
from fedflair.errors import DataError
from fedflair.evaluation.run import score_run
from fedflair.federated.algorithms.base import local_training
from fedflair.federated.client import train_locally
from fedflair.federated.setup import make_setup
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.runs.tensors import load_tensors
from fedflair.sampling import stream
from fedflair.training.train import train
from fedflair.training.verification import verify
from tests.prepared import Prepared
from tests.small_runs import command, small_config, timeless_rows

HEAD: dict[str, Any] = {"model": "small_cnn", "trainable": "head", "local_augmentation": "none"}


@pytest.fixture(scope="module")
def store(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose features are this file's alone."""
    return Path(shutil.copy(tiny_store, tmp_path_factory.mktemp("features") / "tiny.hdf5"))


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small_config(store, run=tmp_path_factory.mktemp("runs") / "features", **HEAD))


def parameters(run: Path) -> torch.Tensor:
    return load_tensors(RunFolder(run).last)[0]["parameters"]


def test_it_is_the_training_on_images(store: Path, run: Path, tmp_path: Path) -> None:
    slow = train(small_config(store, run=tmp_path / "slow", frozen_features="off", **HEAD))
    torch.testing.assert_close(parameters(run), parameters(slow), rtol=0, atol=2e-6)
    for row, other in zip(read_rows(RunFolder(run)), read_rows(RunFolder(slow)), strict=True):
        assert row["train/loss"] == pytest.approx(other["train/loss"], abs=1e-6)
    test = read_summary(RunFolder(run))["test"]
    assert test["macro_ap"] == pytest.approx(read_summary(RunFolder(slow))["test"]["macro_ap"], abs=1e-4)
    # Scored later, by the whole network on images.
    assert score_run(run, "test", "best").metrics["loss"] == pytest.approx(test["loss"], abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"num_threads": 1},
        {"workers": 1},
    ],
)
def test_who_computes_does_not_matter(store: Path, run: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    fresh = Path(shutil.copy(store, tmp_path / "tiny.hdf5"))
    other = train(small_config(fresh, run=tmp_path / "other", **HEAD, **options))
    (found,) = (tmp_path / "tiny.features").iterdir()
    assert sorted(path.name for path in found.iterdir() if path.name != ".lock") == [
        f"{name}.{kind}" for name in ("test", "train", "val") for kind in ("features", "json")
    ]
    assert torch.equal(parameters(other), parameters(run))
    columns = {"train/loss", "val/loss", "val/macro_ap"}
    rows = [[{k: row.get(k) for k in columns} for row in timeless_rows(place)] for place in (run, other)]
    assert rows[0] == rows[1]


def test_a_run_killed_while_it_computes_goes_on(store: Path, run: Path, tmp_path: Path) -> None:
    fresh = Path(shutil.copy(store, tmp_path / "tiny.hdf5"))
    config = small_config(fresh, run=tmp_path / "killed", **HEAD)
    process = Prepared(command(config)[3:])
    assert process.error_line().startswith("features of ")
    process.kill()
    process.wait()
    resumed = train(config.changed(resume=True))
    assert torch.equal(parameters(resumed), parameters(run))


def test_a_stopped_run_keeps_what_it_computed(store: Path, tmp_path: Path) -> None:
    fresh = Path(shutil.copy(store, tmp_path / "tiny.hdf5"))
    resnet = {**HEAD, "model": "multi_label_cnn", "model_type": "resnet18"}
    config = small_config(fresh, run=tmp_path / "stopped", **resnet)
    process = Prepared(command(config)[3:])
    assert process.error_line().startswith("features of ")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        f"fedflair: stopped after round 0; continue with: fedflair train --resume --run {config.run.run}"
    )


def test_other_features_do_not_continue_a_run(store: Path, run: Path, tmp_path: Path) -> None:
    here = Path(shutil.copytree(run, tmp_path / "run"))
    fresh = Path(shutil.copy(store, tmp_path / "tiny.hdf5"))
    (features,) = store.parent.glob("*.features/*")
    there = Path(shutil.copytree(features, tmp_path / "tiny.features" / features.name))
    rows = bytearray((there / "val.features").read_bytes())
    rows[0] ^= 1
    (there / "val.features").write_bytes(rows)
    config = small_config(fresh, run=here, resume=True, resume_from="previous", **HEAD)
    with pytest.raises(DataError, match=r"val\.features: damaged \(not what was computed\); remove"):
        train(config)
    # Made again by something that computes otherwise: whole, and yet not the run's.
    facts = json.loads((there / "val.json").read_text())
    pieces = hashlib.sha256(bytes(rows)).hexdigest()
    facts["digest"] = hashlib.sha256(pieces.encode()).hexdigest()
    (there / "val.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="not the features that the run was trained on"):
        train(config)


@pytest.mark.parametrize(
    "options",
    [
        {"frozen_features": "float16"},
        {"dataset": "flair_iid", "local_evaluation": True, "val_cohort_size": 3},
        {
            "algorithm_name": "central",
            "central_batch_size": 8,
            "local_batch_size": 4,
            "cohort_size": 200,
            "central_optimizer": "sgd",
        },
        {
            "central_privacy_mechanism": "gaussian_moments_accountant",
            "central_epsilon": 50.0,
            "central_delta": 1e-3,
            "allow_large_delta": True,
            "noise_from_seed": True,
        },
        {"algorithm_name": "scaffold"},
    ],
    ids=["float16", "iid", "central", "private", "scaffold"],
)
def test_all_else_is_as_on_images(store: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    given = {**HEAD, **options}
    fast = train(small_config(store, run=tmp_path / "fast", **given))
    slow = train(small_config(store, run=tmp_path / "slow", **{**given, "frozen_features": "off"}))
    rows = timeless_rows(fast)
    for row, other in zip(rows, timeless_rows(slow), strict=True):
        assert row.keys() == other.keys()
    if "noise_from_seed" in options:
        # The noise is bound to the sum, to its last bit; each run's own ledger is right.
        assert [verify(place, use_cache=True).num_rounds for place in (fast, slow)] == [4, 4]
    else:
        tolerance = 2e-3 if "frozen_features" in options else 5e-6
        torch.testing.assert_close(parameters(fast), parameters(slow), rtol=0, atol=tolerance)


def test_a_network_that_does_more_after_its_head_trains_on_images(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SqueezeNet's head is a convolution, before a ReLU and a mean."""
    train(small_config(store, run=tmp_path / "run", **{**HEAD, "model": "multi_label_cnn"}, central_num_iterations=2))
    assert "frozen features: none, as this network does more after its head" in capsys.readouterr().err


@pytest.mark.parametrize(("augmentation", "same"), [("none", True), ("crop", False)])
def test_whole_images_leave_nothing_to_chance(store: Path, augmentation: str, same: bool) -> None:
    """One batch of all of a client's images: what is drawn is their order, and the crops where there are any."""
    config = small_config(store, model="small_cnn", local_augmentation=augmentation, local_num_epochs=1)
    setup = make_setup(config, noise_seed=0)
    client = setup.worker.clients.load(setup.worker.clients.client_ids[4], None, stream(0, "client"))
    assert 1 < client.num_examples <= config.local.local_batch_size
    model = flatten(setup.worker.module, setup.worker.device)
    start = parameter_vector(setup.worker.module, setup.worker.device)
    options = local_training(config, 0)
    first, second = (train_locally(model, start, client, options, stream(seed, "client"))[0] for seed in (0, 1))
    assert torch.allclose(first, second, rtol=0, atol=1e-7) is same
