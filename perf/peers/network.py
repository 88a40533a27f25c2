"""The network that the peers train: torchvision's, with the same normalisation and initial values as fedflair's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision import models, transforms

from fedflair.data.images.crops import decode, train_inputs
from fedflair.data.images.preprocessing import IMAGENET
from fedflair.models.multi_label_cnn import build
from fedflair.models.normalization import FrozenBatchNorm2d, replace_modules
from fedflair.models.trainable import Choice, choose_trained
from fedflair.models.weights import read_weights
from fedflair.sampling import stream
from peers.task import Task
from peers.users import pictures


class PeerNetwork(nn.Module):
    """Takes uint8 [n, H, W, 3] as it lies in pfl's files; crops, flips and normalises as pfl's FLAIR benchmark does.

    One crop and one flip are drawn for the whole batch, as there. ``loss`` is what pfl's ``PyTorchModel`` calls.
    Frozen BatchNorm is torch's own, held in evaluation mode.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        image_size = task.image_size
        weights = None if task.weights_path is None else read_weights(task.weights_path)
        self.network = build(task.model_type, task.num_labels, pretrained=weights is not None, weights=weights, seed=0)
        replace_modules(self.network, FrozenBatchNorm2d, _batch_norm)
        choose_trained(self.network, Choice(trainable="head" if task.trainable == "head" else "all"))
        normalise = transforms.Normalize(IMAGENET.mean, IMAGENET.deviation)
        crop = transforms.RandomResizedCrop(image_size)
        self.train_transform = transforms.Compose([crop, transforms.RandomHorizontalFlip(), normalise])
        self.eval_transform = transforms.Compose([transforms.Resize(image_size), normalise])
        self.criterion = nn.BCEWithLogitsLoss()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = (images.float() / 255.0).permute(0, 3, 1, 2)
        transform = self.train_transform if self.training else self.eval_transform
        logits: torch.Tensor = self.network(transform(pixels))
        return logits

    def loss(self, images: torch.Tensor, targets: torch.Tensor, eval: bool = False) -> torch.Tensor:
        self.train(not eval)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        value: torch.Tensor = self.criterion(self(images), targets)
        return value

    @torch.no_grad()
    def metrics(self, images: torch.Tensor, targets: torch.Tensor, eval: bool = True) -> dict[str, object]:
        from pfl.metrics import Weighted

        return {"loss": Weighted.from_unweighted(float(self.loss(images, targets, eval=True)))}


def write_weights(folder: Path, model_type: str, num_labels: int, image_size: int) -> Path:
    """Random weights whose BatchNorm statistics are those of a few photographs, as in a pretrained network."""
    torch.manual_seed(0)
    network = models.get_model(model_type, num_classes=num_labels).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network(train_inputs(decode([np.frombuffer(p, np.uint8) for p in pictures(32)]), image_size, stream(0, "perf")))
    path = folder / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def _batch_norm(frozen: FrozenBatchNorm2d) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(frozen.weight.numel(), frozen.eps)
    norm.load_state_dict(frozen.state_dict(), strict=False)
    return norm
