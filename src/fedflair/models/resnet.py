"""Residual networks (He et al., 2016), the backbones that most runs take.

The same networks as torchvision's, with the same names and initial values, so that its published weights load. Here too
because importing torchvision takes a second and 150 MB, most of it for compilers that nothing here uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: [n, inputs, H, W] to [n, width, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(width, width, 3, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x)) + shortcut
        result: torch.Tensor = self.relu(x)
        return result


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two 1 x 1 ones, beside a shortcut; four times ``width`` channels come out.

    The stride is the middle convolution's, as in torchvision ("ResNet v1.5").
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, width, 1, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, width * self.expansion, 1, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x)) + shortcut
        result: torch.Tensor = self.relu(x)
        return result


@dataclass(frozen=True)
class Shape:
    """block: what the four stages are made of. counts: how many of them each stage has."""

    block: type[BasicBlock] | type[Bottleneck]
    counts: tuple[int, int, int, int]


RESNETS: dict[str, Shape] = {
    "resnet18": Shape(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Shape(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Shape(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Shape(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Shape(Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Images float [n, 3, H, W] to logits [n, num_classes]."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        outputs = 64 * shape.block.expansion
        self.layer1 = _stage(shape, 0, 64)
        self.layer2 = _stage(shape, 1, outputs)
        self.layer3 = _stage(shape, 2, 2 * outputs)
        self.layer4 = _stage(shape, 3, 4 * outputs)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * outputs, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(shape: Shape, index: int, inputs: int) -> nn.Sequential:
    width = 64 * 2**index
    outputs, stride = width * shape.block.expansion, 1 if index == 0 else 2
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
    blocks = [shape.block(inputs, width, stride, downsample)]
    blocks += [shape.block(outputs, width, 1, None) for _ in range(shape.counts[index] - 1)]
    return nn.Sequential(*blocks)


def _convolution(inputs: int, outputs: int, side: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)
