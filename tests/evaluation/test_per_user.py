"""How users' models are tuned, what is refused, and what the summary says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.evaluation.per_user import personalisation_of, summary_of
from fedflair.metrics.per_user import USER_METRICS
from tests.small_runs import small_config

SCORES = dict.fromkeys(USER_METRICS, 0.5)
ROW = {"user_id": "7@N00", "num_images": 4, "num_labels": 2, **SCORES}


@pytest.fixture
def config(tiny_store: Path) -> TrainConfig:
    return small_config(tiny_store, model="small_cnn", local_learning_rate=0.25)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((-1, 0.5, None), "personalise_steps: -1 is impossible"),
        ((0, 0.0, None), "personalise_fraction: 0.0 is impossible"),
        ((2, 0.0, None), "personalise_fraction: 0.0 is impossible"),
        ((2, 1.0, None), "personalise_fraction: 1.0 is impossible"),
        ((2, 0.5, 0.0), "personalise_learning_rate: 0.0 is impossible"),
        ((2, 0.5, float("inf")), "personalise_learning_rate: inf is impossible"),
    ],
)
def test_impossible_options_are_refused_by_name(
    config: TrainConfig, options: tuple[int, float, float | None], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        personalisation_of(config, *options)


def test_tuning_is_local_training_but_for_what_is_given(config: TrainConfig) -> None:
    assert personalisation_of(config, 0, 0.5, None) is None
    own, given = personalisation_of(config, 1, 0.01, None), personalisation_of(config, 3, 0.99, 0.125)
    assert own is not None and given is not None
    assert (own.training.num_steps, own.training.learning_rate, own.fraction) == (1, 0.25, 0.01)
    assert (given.training.num_steps, given.training.learning_rate, given.fraction) == (3, 0.125, 0.99)
    assert own.training.batch_size == config.local.local_batch_size


def test_the_summary_names_the_options_where_users_were_tuned(config: TrainConfig) -> None:
    facts: dict[str, Any] = {"run": "runs/a", "partition": "test"}
    tuning = personalisation_of(config, 3, 0.4, 0.125)
    tuned = {**ROW, "num_tune_images": 2, "num_held_out_images": 2, "global": SCORES, "personalised": SCORES}
    summary = summary_of([tuned, ROW], tuning, facts)
    assert (summary["run"], summary["partition"]) == ("runs/a", "test")
    found = summary["personalisation"]
    assert (found["num_steps"], found["fraction"], found["learning_rate"]) == (3, 0.4, 0.125)
    assert (found["num_users"], found["num_users_left_out"]) == (1, 1)
    # Nobody had two images, or nothing was asked for.
    assert summary_of([ROW], tuning, facts)["personalisation"] is None
    assert summary_of([ROW], None, facts)["personalisation"] is None
