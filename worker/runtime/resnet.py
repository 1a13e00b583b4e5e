"""ResNet-18 in plain torch, so that the reference needs no other package. He et al., arXiv:1512.03385, table 1."""

import torch
from torch import nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class _Block(nn.Module):
    """Two 3×3 convolutions and a shortcut of the input around them: 1×1 where the size changes, else the identity."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(inputs, outputs, 3, stride)
        self.second = _conv(outputs, outputs, 3, 1)
        changes = stride != 1 or inputs != outputs
        self.shortcut: nn.Module = _conv(inputs, outputs, 1, stride) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + self.shortcut(x))


def resnet18() -> nn.Sequential:
    """Returns the module (N, 3, 224, 224) -> (N, 1000) with 11.7 million random weights."""
    stem = nn.Sequential(_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
    widths = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
    stages = [
        nn.Sequential(_Block(inputs, outputs, stride), _Block(outputs, outputs, 1))
        for inputs, outputs, stride in widths
    ]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    return nn.Sequential(stem, *stages, head)
