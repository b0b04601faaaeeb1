"""The networks that costs are measured on."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from oodbench.errors import UsageError


@dataclass(frozen=True)
class Network:
    """A network to measure: how it is built, the shape of an input, the batch."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int


def _small() -> nn.Module:
    from oodbench.classifiers.cnn import cnn

    return cnn(1, 28, 10)


def _wide() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def _resnet18() -> nn.Module:
    from torchvision.models import resnet18

    network: nn.Module = resnet18(num_classes=10)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    network: nn.Module = VisionTransformer(
        image_size=32, patch_size=4, num_layers=6, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=10
    )
    nn.init.normal_(network.heads.head.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    return network


NETWORKS = {
    "cnn": Network(_small, (1, 28, 28), 256),
    "wide-cnn": Network(_wide, (1, 28, 28), 128),
    "resnet18": Network(_resnet18, (3, 32, 32), 32),
    "vit": Network(_vit, (3, 32, 32), 64),
}
"""The suites' own network; 3×3 convolutions of 32 and 64 channels with a dense layer of 128; torchvision's resnet18
with a 3×3 stem; a vision transformer of 6 layers, width 192 and 65 tokens."""


def find_network(name: str) -> Network:
    """The network of a name.

    Raises:
        UsageError: There is no such network.
    """
    if name not in NETWORKS:
        raise UsageError(f"no network is named {name!r}; expected one of: {', '.join(NETWORKS)}.")
    return NETWORKS[name]
