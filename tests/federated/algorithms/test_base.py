"""Weights of clients, by hand."""

from __future__ import annotations

import math

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.federated.algorithms.base import client_weight, local_training


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        ("uniform", [1.0, 1.0, 1.0]),
        ("num_examples", [1.0, 63.0, 512.0]),
        ("log", [math.log(2), math.log(64), math.log(513)]),
        ("sqrt", [1.0, math.sqrt(63), math.sqrt(512)]),
        ("clipped", [1.0, 63.0, 64.0]),
    ],
)
def test_weights_of_1_63_and_512_images(weighting: str, weights: list[float]) -> None:
    config = TrainConfig.of(weighting=weighting)  # type: ignore[arg-type]
    assert [client_weight(config, n) for n in (1, 63, 512)] == pytest.approx(weights)


def test_the_options_of_local_training_follow_the_round() -> None:
    config = TrainConfig.of(
        local_learning_rate=0.4, local_lr_schedule="polynomial", local_lr_end=0.2, central_num_iterations=3,
        local_momentum=0.9, local_weight_decay=0.1, local_num_steps=7, local_max_grad_norm=2.0,
    )  # fmt: skip
    options = local_training(config, 1)
    assert options.learning_rate == pytest.approx(0.3)
    assert (options.momentum, options.weight_decay, options.num_steps, options.max_grad_norm) == (0.9, 0.1, 7, 2.0)
