"""Can a network be trained on images of a size? Found out by running it, before the first round."""

from __future__ import annotations

import torch
from torch import nn

from fedflair.errors import ConfigError
from fedflair.models.dropout import seed_dropout


def check_network(module: nn.Module, model_type: str, size: int, num_labels: int) -> None:
    """Raises ConfigError where the network cannot take images of ``size`` pixels' side, gives other than a row of
    ``num_labels`` logits for each, or draws from global randomness, which no run could repeat.
    """
    try:
        outputs = _outputs(module.eval(), size, 0)
    # It may be anybody's code, and fail in any way that code can.
    except Exception as error:
        raise ConfigError(
            f"image_size: {model_type} cannot take images of {size} px ({' '.join(str(error).split())}); use the size "
            "it was made for, such as 224"
        ) from error
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (2, num_labels):
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ConfigError(
            f"model_type: {model_type} gives {shape} for 2 images and {num_labels} labels; it must give logits "
            f"[2, {num_labels}]"
        )
    if not torch.equal(_outputs(module.train(), size, 0), _outputs(module, size, 1)):
        raise ConfigError(
            f"model_type: {model_type} draws from torch's global generator in training, so that no run could be "
            "repeated; use nn.Dropout, whose draws fedflair seeds, or switch it off"
        )


def _outputs(module: nn.Module, size: int, global_seed: int) -> torch.Tensor:
    """For two images, with the same seeded dropout whatever torch's global generator is at."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, size, size, generator=generator)
    seed_dropout(module, generator)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(global_seed)
        outputs: torch.Tensor = module(images)
    return outputs
