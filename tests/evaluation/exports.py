"""Runs of one round to be exported, and what models say of a store's images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision import models

from fedflair.cli import main
from fedflair.data.store.packed import open_store
from fedflair.evaluation.exported import model_of_export
from fedflair.evaluation.opened import Model, open_run
from fedflair.evaluation.predict import Prediction, Stored, predict
from fedflair.training.train import train
from tests.small_runs import small_config


def trained(store: Path, run: Path, **options: Any) -> Path:
    return train(
        small_config(store, run=run, **{"central_num_iterations": 1, "cohort_size": 1, "num_threads": 1, **options})
    )


def exported(run: Path, output: Path, *words: str) -> Path:
    assert main(["export", f"--run={run}", f"--output={output}", *words]) == 0
    return output


def imagenet_weights(path: Path) -> Path:
    """Of a ResNet-18, as they could be: with the statistics that its own activations have."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        published = models.resnet18()
    for layer in published.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    published(torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    torch.save(published.state_dict(), path)
    return path


def probabilities(model: Model, store: Path) -> npt.NDArray[np.float32]:
    found = list(predict(model, Stored(open_store(store).partitions["test"])))
    return np.stack([one.probabilities for one in found if isinstance(one, Prediction)])


def assert_alike(run: Path, folder: Path, store: Path, *, exactly: bool, allow_code: bool = False) -> None:
    """The export predicts as the run does, in which adapters, if it has some, are still beside the weights."""
    there = probabilities(open_run(run, "best").model(), store)
    found = probabilities(model_of_export(folder, allow_code=allow_code), store)
    assert np.array_equal(found, there) or not exactly
    np.testing.assert_allclose(found, there, atol=2e-5)
    assert np.ptp(there, axis=0).max() > 1e-4, "the images are told apart"
