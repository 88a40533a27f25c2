"""The network of a run, as its configuration describes it: of a run that begins, and of one that has parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.federated.start import Start
from fedflair.models import MODELS
from fedflair.models.normalization import refuse_batch_statistics
from fedflair.models.trainable import Choice, choose_trained


def build_model(
    config: TrainConfig, num_labels: int, *, load_weights: bool = True, start: Start | None = None
) -> nn.Module:
    """The network with its initial weights; without ``load_weights`` a pretrained one has its shape only.

    start: where those weights come from instead; what is added to a network for training begins anew.
    """
    options, model = config.model, MODELS[config.model.model]
    wanted = options.pretrained and load_weights and start is None
    weights = model.weights(options.model_type, options.pretrained_weights) if wanted else None
    module = model.build(
        options.model_type, num_labels, pretrained=options.pretrained, weights=weights, seed=config.run.seed
    )
    refuse_batch_statistics(module)
    if start is not None:
        start.load(module)
    choose_trained(module, trained_choice(config))
    return module


def untrained_model(config: TrainConfig, num_labels: int, fixed: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network as a run has it, but for the trained parameters, which come with each task."""
    module = build_model(config, num_labels, load_weights=False)
    module.load_state_dict(dict(fixed), strict=False)
    return module


def own_code(config: TrainConfig) -> str | None:
    """What says that a network of one's own is still the same; None for all others."""
    return MODELS[config.model.model].own_code(config.model.model_type)


def trained_choice(config: TrainConfig) -> Choice:
    """The options that say what of the network is trained."""
    model = config.model
    alpha = float(model.lora_rank) if model.lora_alpha is None else model.lora_alpha
    return Choice(
        model.trainable, model.num_trainable_blocks, model.lora_rank, alpha, model.lora_layers, config.run.seed
    )
