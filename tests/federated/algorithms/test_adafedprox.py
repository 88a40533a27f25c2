"""Mu that follows a metric: by hand, in a run, and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.federated.algorithms.adafedprox import make
from fedflair.federated.server import ServerState
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training.train import train
from tests.small_runs import small_config


def mus(losses: list[float], **options: Any) -> list[float]:
    """Mu after each of the measurements."""
    config = TrainConfig.of(adafedprox_metric_name="val/loss", evaluation_frequency=1, **options)
    algorithm, parameters = make(config, 2), torch.zeros(1)
    state, values = ServerState(0, parameters, {}, algorithm.init(parameters), {}), []
    for round_, loss in enumerate(losses, 1):
        state = ServerState(round_, parameters, {}, state.algorithm_state, {})
        state = algorithm.observe(state, {"round": round_, "val/loss": loss})
        values.append(round(float(state.algorithm_state["mu"]), 6))
    return values


def test_mu_by_hand() -> None:
    # Better, better, equal (no better), worse, better, twice better.
    losses = [0.9, 0.8, 0.8, 0.9, 0.7, 0.6]
    assert mus(losses, mu=0.5) == [0.4, 0.3, 0.4, 0.5, 0.4, 0.3]
    assert mus(losses, mu=0.5, adafedprox_decrease_after=2) == [0.5, 0.4, 0.5, 0.6, 0.6, 0.5]
    assert mus(losses, mu=0.1, adafedprox_step_size=0.3) == [0.0, 0.0, 0.3, 0.6, 0.3, 0.0]
    assert mus([0.5, 0.6, 0.7], mu=0.95) == [0.85, 0.95, 1.0]
    assert mus(losses, mu=0.5, adafedprox_adapt_frequency=2) == [0.5, 0.4, 0.4, 0.5, 0.5, 0.4]


def test_mu_is_in_the_rows_of_a_run(tiny_store: Path, tmp_path: Path) -> None:
    options = {"algorithm_name": "adafedprox", "adafedprox_metric_name": "val/loss", "model": "small_cnn", "mu": 0.5}
    rows = read_rows(RunFolder(train(small_config(tiny_store, run=tmp_path / "run", **options))))
    # The row of round 2 shows what round 2 used; round 3 is the first to use the mu that came of it.
    assert [row["algorithm/mu"] for row in rows] == pytest.approx([0.5, 0.5, 0.4, 0.4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adafedprox_metric_name": "val/macro_lose"}, "val/macro_lose is never reported; choose one of val/macro_ap"),
        ({"adafedprox_metric_name": "val/loss", "adafedprox_adapt_frequency": 3}, "3 is no multiple of"),
    ],
)
def test_a_metric_that_is_not_measured_is_refused_at_the_start(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(TrainConfig.of(**options), 2)


def test_a_column_that_is_not_there_is_named() -> None:
    algorithm = make(TrainConfig.of(adafedprox_metric_name="train/lose", adafedprox_adapt_frequency=1), 2)
    state = ServerState(1, torch.zeros(1), {}, algorithm.init(torch.zeros(1)), {})
    with pytest.raises(ConfigError, match="train/lose was not measured in round 1; columns: round, train/loss"):
        algorithm.observe(state, {"round": 1, "train/loss": 0.5})
