"""Centralised training against a plain loop, and its batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.data.images.crops import decode, eval_inputs
from fedflair.errors import ConfigError
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.sampling import stream
from fedflair.training.round import run_round
from fedflair.training.train import train
from tests.federated.algorithms.conftest import SIDE, named_parameters, network
from tests.small_runs import small_config


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_steps_equal_a_plain_loop(problem: Callable[..., TrainingSetup], optimizer: str) -> None:
    """Batches of 6 of the 8 images in pieces of 4 and 2: the gradient of each batch's mean loss, by torch.optim."""
    options: dict[str, Any] = {"central_optimizer": optimizer, "learning_rate": 0.1, "central_weight_decay": 0.01}
    if optimizer == "sgd":
        options["central_weight_decay"] = 0.0
    setup = problem(algorithm_name="central", central_batch_size=6, local_batch_size=4, **options)
    partition = setup.worker.store.partitions["train"]
    pixels = eval_inputs(decode([partition.encoded(i) for i in range(8)]), SIDE).contiguous()
    targets = torch.from_numpy(setup.worker.labels.targets(partition, range(8))).float()
    order = np.concatenate([stream(0, "central order", epoch).permutation(8) for epoch in range(3)])
    module = network()
    plain = (
        torch.optim.AdamW(module.parameters(), lr=0.1, betas=(0.9, 0.99), eps=0.01, weight_decay=0.01)
        if optimizer == "adam"
        else torch.optim.SGD(module.parameters(), lr=0.1)
    )
    state = initial_state(setup)
    with thread_backend(setup.worker) as backend:
        for round_ in range(3):
            cohort = setup.sampler.sample(round_)
            assert [setup.worker.clients.num_images(piece) for piece in cohort] == [4, 2]
            state, total = run_round(state, cohort, setup=setup, backend=backend)
            assert total.metrics.num_examples == 6
            batch = torch.from_numpy(order[6 * round_ : 6 * round_ + 6])
            plain.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(module(pixels[batch]), targets[batch])
            assert total.metrics.loss == pytest.approx(loss.item(), abs=1e-6)
            loss.backward()
            plain.step()
    ours = named_parameters(setup, state)
    for name, expected in module.named_parameters():
        torch.testing.assert_close(ours[name], expected.detach(), rtol=0, atol=1e-5)


def test_every_epoch_has_every_image_once(tiny_store: Path) -> None:
    config = small_config(
        tiny_store, algorithm_name="central", central_batch_size=8, local_batch_size=3, central_num_iterations=6
    )
    setup = make_setup(config, noise_seed=0)
    drawn = [
        image
        for round_ in range(6)
        for piece in setup.sampler.sample(round_)
        for image in setup.worker.clients.images_of(setup.worker.clients.client_ids.index(piece)).tolist()
    ]
    assert len(drawn) == 48
    assert sorted(drawn[:24]) == sorted(drawn[24:]) == list(range(24))
    assert drawn[:24] != drawn[24:]


def test_a_run_is_named_and_measured_like_the_others(tiny_store: Path, tmp_path: Path) -> None:
    config = small_config(
        tiny_store, algorithm_name="central", central_batch_size=20, model="small_cnn", run=tmp_path / "run"
    )
    folder = RunFolder(train(config))
    rows = read_rows(folder)
    assert [row["train/num_examples"] for row in rows] == [20] * 4
    assert [row["train/num_clients"] for row in rows] == [0] * 4
    assert read_summary(folder)["setting"] == "central"
    assert 0 < read_summary(folder)["test"]["macro_ap"] <= 1


def test_a_batch_larger_than_the_data_is_refused(tiny_store: Path) -> None:
    with pytest.raises(ConfigError, match="central_batch_size: 512 is more than the 24 images"):
        make_setup(small_config(tiny_store, algorithm_name="central"), noise_seed=0)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "top_k"},
        {"dropout_rate": 0.1},
        {"over_selection": 0.1},
        {"weighting": "num_examples"},
        {"local_evaluation": True},
        {"dataset": "flair_iid"},
        {"central_privacy_mechanism": "gaussian_moments_accountant"},
        {"local_privacy_mechanism": "gaussian"},
        {"max_num_user_images": 8},
    ],
)
def test_options_of_clients_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="central"):
        TrainConfig.of(algorithm_name="central").changed(**options)
