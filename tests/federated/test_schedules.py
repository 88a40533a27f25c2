"""Learning rates over the rounds, by hand."""

from __future__ import annotations

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.federated.schedules import local_learning_rate, server_learning_rate


def test_the_published_schedule() -> None:
    config = TrainConfig()
    assert server_learning_rate(config, 0) == 0.0
    assert server_learning_rate(config, 15) == pytest.approx(0.05)
    assert server_learning_rate(config, 30) == pytest.approx(0.1)
    assert server_learning_rate(config, (30 + 4999) // 2) == pytest.approx(0.06, abs=1e-4)
    assert server_learning_rate(config, 4999) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("schedule", "power", "rates"),
    [
        ("constant", 1.0, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("polynomial", 1.0, [0.0, 0.5, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ("polynomial", 2.0, [0.0, 0.5, 1.0, 0.65, 0.4, 0.25, 0.2]),
        ("cosine", 1.0, [0.0, 0.5, 1.0, 0.8828427, 0.6, 0.3171573, 0.2]),
    ],
)
def test_every_schedule_by_hand(schedule: str, power: float, rates: list[float]) -> None:
    # Two rounds of warm-up, then four steps from 1 to 0.2.
    config = TrainConfig.of(
        learning_rate=1.0,
        central_lr_end=0.2,
        central_num_iterations=7,
        central_lr_num_warmup_iterations=2,
        central_lr_schedule=schedule,  # type: ignore[arg-type]
        central_lr_power=power,
    )
    assert [server_learning_rate(config, round_) for round_ in range(7)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("schedule", "rates"), [("constant", [0.4, 0.4, 0.4]), ("polynomial", [0.4, 0.2, 0.0]), ("cosine", [0.4, 0.2, 0.0])]
)
def test_the_local_schedule(schedule: str, rates: list[float]) -> None:
    config = TrainConfig.of(local_learning_rate=0.4, local_lr_schedule=schedule, central_num_iterations=3)  # type: ignore[arg-type]
    assert [local_learning_rate(config, round_) for round_ in range(3)] == pytest.approx(rates, abs=1e-12)
    single = TrainConfig.of(local_learning_rate=0.4, local_lr_schedule=schedule, central_num_iterations=1)  # type: ignore[arg-type]
    assert local_learning_rate(single, 0) == 0.4


def test_like_pfl_the_end_is_reached_a_round_after_the_last() -> None:
    """As torch's ``LambdaLR`` after each of 7 steps has it: two of warm-up, then a fifth of the way each, of five."""
    config = TrainConfig.of(
        learning_rate=1.0,
        central_lr_end=0.2,
        central_num_iterations=7,
        central_lr_num_warmup_iterations=2,
        like="pfl",
    )
    rates = [server_learning_rate(config, round_) for round_ in range(7)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.84, 0.68, 0.52, 0.36])
    assert server_learning_rate(TrainConfig.of(like="pfl"), 4999) == pytest.approx(0.02 + 0.08 / 4970)
