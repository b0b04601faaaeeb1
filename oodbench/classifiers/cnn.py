"""The small convolutional network of the built-in suites."""

import torch
from torch import Tensor, nn


class CNN(nn.Module):
    """Three 3×3 convolutions and two dense layers, built by ``cnn``."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.LeakyReLU(0.01)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(64 * (size // 8) ** 2, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, size, size) from 0 to 1 to logits (N, classes)."""
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = self.pool(self.activation(convolution(x)))
        x = self.dropout(torch.flatten(x, 1))
        return self.fc2(self.dropout(self.activation(self.fc1(x))))  # type: ignore[no-any-return]


def cnn(channels: int, size: int, classes: int) -> nn.Module:
    """Three 3×3 convolutions and two dense layers with leaky ReLU, pooling and dropout; about 100,000 weights.

    In the spirit of the network of Oberdiek, Rottmann, Gottschalk 2018 (arXiv 1805.08440). The exact architecture is
    not in the paper's abstract, the only text of it that was available: widths and pooling are our choice.

    Args:
        channels: Number of channels of the images.
        size: Height and width of the images, at least 8.
        classes: Number of known classes.
    """
    return CNN(channels, size, classes)
