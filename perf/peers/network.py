"""The network that the peers train: torchvision's, with the same normalisation and initial values as fedflair's own."""

from __future__ import annotations

import torch
from torch import nn
from torchvision import transforms

from fedflair.data.images import IMAGENET_MEAN, IMAGENET_STD
from fedflair.models.multi_label_cnn import build


class PeerNetwork(nn.Module):
    """Takes uint8 [n, H, W, 3] as it lies in pfl's files; crops, flips and normalises as pfl's FLAIR benchmark does.

    One crop and one flip are drawn for the whole batch, as there. ``loss`` is what pfl's ``PyTorchModel`` calls.
    """

    def __init__(self, model_type: str, num_labels: int, image_size: int, pretrained: bool) -> None:
        super().__init__()
        self.network = build(model_type, num_labels, pretrained=pretrained, weights=None, seed=0)
        normalise = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
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
        value: torch.Tensor = self.criterion(self(images), targets)
        return value

    @torch.no_grad()
    def metrics(self, images: torch.Tensor, targets: torch.Tensor, eval: bool = True) -> dict[str, object]:
        from pfl.metrics import Weighted

        return {"loss": Weighted.from_unweighted(float(self.loss(images, targets, eval=True)))}
