"""The networks of OpenOOD by name, into which its checkpoints (``best.ckpt``) load as they are."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import torch
from torch import Tensor, nn

from oodbench.classifiers import hub
from oodbench.classifiers.spec import ClassifierSpec

WIDTHS = (64, 128, 256, 512)
DEPTH = 2
"""Number of blocks in each layer."""


class Block(nn.Module):
    """Two 3×3 convolutions and a way around them (He et al. 2015, arXiv 1512.03385, figure 2)."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(leaving)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if (entering, stride) != (leaving, 1):
            self.shortcut.append(nn.Conv2d(entering, leaving, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(leaving))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (N, entering, H, W) to (N, leaving, H / stride, W / stride)."""
        inner = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """A ResNet-18 that begins with a 3×3 convolution, for small images; its weights have OpenOOD's names."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _layer(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = _layer(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = _layer(WIDTHS[1], WIDTHS[2], stride=2)
        self.layer4 = _layer(WIDTHS[2], WIDTHS[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def openood(model: str) -> ClassifierSpec:
    """A network of OpenOOD.

    Args:
        model: Its name there, such as ``resnet18_32x32``.

    Raises:
        UsageError: There is no network of that name here.
    """
    name = f"openood:{model}"
    hub.check_name(name, model, list(_NETWORKS))
    return replace(_NETWORKS[model](name), name=name)


def _small(name: str) -> ClassifierSpec:
    """The network for small images, of any size."""

    def build(channels: int, size: int, classes: int) -> nn.Module:
        return ResNet18(classes)

    return ClassifierSpec(name, build, (name, "oodbench", version("oodbench")), code=hub.hashed([name]), channels=3)


def _large(name: str) -> ClassifierSpec:
    """Torchvision's ResNet-18, which OpenOOD's for 224 pixels is in evaluation; of its own training only."""
    return replace(hub.torchvision("resnet18", as_pretrained=False), pretrained=None, preset=None)


def _resnet50(name: str) -> ClassifierSpec:
    """Torchvision's ResNet-50, with the weights that OpenOOD's figures are of."""
    return hub.torchvision("resnet50.IMAGENET1K_V1", as_pretrained=False)


def _layer(entering: int, leaving: int, stride: int) -> nn.Sequential:
    later = [Block(leaving, leaving, 1) for _ in range(DEPTH - 1)]
    return nn.Sequential(Block(entering, leaving, stride), *later)


_NETWORKS: dict[str, Callable[[str], ClassifierSpec]] = {
    "resnet18_32x32": _small,
    "resnet18_64x64": _small,
    "resnet18_224x224": _large,
    "resnet50": _resnet50,
}
