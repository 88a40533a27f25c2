"""What using a network takes that is trained: photographs come from anywhere, and there is no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.engine.cpu.choice import Kind, Precision
from fedflair.federated.networks import untrained_model
from fedflair.federated.plugins import load_plugins
from fedflair.federated.setup import kernels_of


@dataclass(frozen=True)
class ModelSetup:
    """labels: one for each output of the module. kernels: what a CPU computes with."""

    config: TrainConfig
    labels: tuple[str, ...]
    module: nn.Module
    device: torch.device
    kernels: Kind

    @property
    def network(self) -> nn.Module:
        """What a worker runs."""
        return self.module

    @property
    def precision(self) -> Precision:
        return self.config.hardware.precision


def make_model_setup(
    config: TrainConfig, labels: Sequence[str], fixed: Mapping[str, torch.Tensor], kernels: Kind | None = None
) -> ModelSetup:
    """As ``make_evaluation_setup``, without a store.

    fixed: what the model needs beside its trained parameters. kernels: what the run computed with; None is what this
    machine chooses. Raises ConfigError where the network cannot be made here.
    """
    load_plugins(config)
    module = untrained_model(config, len(labels), fixed)
    return ModelSetup(config, tuple(labels), module, config.hardware.torch_device(), kernels_of(config, kernels))
