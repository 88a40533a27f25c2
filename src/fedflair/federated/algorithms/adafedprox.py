"""FedProx whose mu follows a metric (Li et al., 2020, appendix C.3.3).

every adapt_frequency rounds:   metric fell, decrease_after times in a row:   mu <- max(0, mu - step_size)
                                metric did not fall:                          mu <- min(1, mu + step_size)

The first measurement counts as an improvement, and a row of improvements goes on after mu was lowered, as in
pfl-research's published runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.federated.algorithms.base import Algorithm, optimizer_update
from fedflair.federated.algorithms.fedprox import proximal_client_update
from fedflair.federated.server import ServerState, Tensors
from fedflair.metrics.multi_label import Targets, multi_label_metrics


def make(config: TrainConfig, num_clients: int) -> Algorithm:
    """Raises ConfigError where the metric is not measured when mu should be adapted."""
    metric = config.algorithm.adafedprox_metric_name
    frequency = config.algorithm.adafedprox_adapt_frequency or config.evaluation.evaluation_frequency
    _check_metric(config, metric, frequency)

    def init(parameters: torch.Tensor) -> Tensors:
        return {
            "mu": torch.tensor(min(config.algorithm.mu, 1.0), dtype=torch.float64),
            "previous_metric": torch.tensor(math.inf, dtype=torch.float64),
            "num_improvements": torch.tensor(0),
        }

    def observe(state: ServerState, row: Mapping[str, Any]) -> ServerState:
        if state.round % frequency:
            return state
        value = row.get(metric)
        if value is None:
            raise ConfigError(
                f"adafedprox_metric_name: {metric} was not measured in round {state.round}; columns: {', '.join(row)}"
            )
        mu, improvements = float(state.algorithm_state["mu"]), 0
        if value < float(state.algorithm_state["previous_metric"]):
            improvements = int(state.algorithm_state["num_improvements"]) + 1
            if improvements >= config.algorithm.adafedprox_decrease_after:
                mu = max(0.0, mu - config.algorithm.adafedprox_step_size)
        else:
            mu = min(1.0, mu + config.algorithm.adafedprox_step_size)
        adapted = {
            "mu": torch.tensor(mu, dtype=torch.float64),
            "previous_metric": torch.tensor(value, dtype=torch.float64),
            "num_improvements": torch.tensor(improvements),
        }
        return replace(state, algorithm_state=adapted)

    client_update = proximal_client_update(config, lambda server: float(server.algorithm_state["mu"]))
    return Algorithm(init, client_update, optimizer_update(config), observe)


def _check_metric(config: TrainConfig, metric: str, frequency: int) -> None:
    """Refuses, before anything is trained, a metric on val that will not be there when it is needed."""
    group, _, name = metric.partition("/")
    if group != "val":
        return
    one = np.ones((1, 1), dtype=np.float32)
    known = multi_label_metrics(one, Targets.from_dense(one)).values()
    if name not in known:
        columns = ", ".join(f"val/{column}" for column in known)
        raise ConfigError(f"adafedprox_metric_name: {metric} is never reported; choose one of {columns}")
    if frequency % config.evaluation.evaluation_frequency:
        raise ConfigError(
            f"adafedprox_adapt_frequency: {frequency} is no multiple of evaluation_frequency "
            f"{config.evaluation.evaluation_frequency}, when {metric} is measured"
        )
