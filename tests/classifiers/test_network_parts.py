"""A network taken apart is the network: encoder and last layer, stages and head."""

import pickle

import pytest
import torch
from torch import nn
from torchvision import models

from oodbench.classifiers.cnn import cnn
from oodbench.classifiers.network_parts import NetworkParts
from oodbench.errors import CellSkippedError

# Shape of an input, and of the feature maps of each stage, by how torchvision's papers draw them.
NETWORKS = {
    "cnn": (lambda: cnn(1, 28, 10), (1, 28, 28), [(16, 28, 28), (32, 14, 14), (64, 7, 7), (64, 3, 3)]),
    "resnet18": (
        lambda: models.resnet18(num_classes=7),
        (3, 64, 64),
        [(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)],
    ),
    "densenet121": (
        lambda: models.densenet121(num_classes=7),
        (3, 64, 64),
        [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (1024, 2, 2)],
    ),
    "mobilenet": (
        lambda: models.mobilenet_v3_small(num_classes=7),
        (3, 64, 64),
        [(16, 32, 32), (72, 16, 16), (96, 8, 8), (288, 4, 4), (576, 2, 2)],
    ),
    "convnext": (lambda: models.convnext_tiny(num_classes=7), (3, 64, 64), [(768, 2, 2)]),
    "swin": (lambda: models.swin_t(num_classes=7), (3, 64, 64), [(768, 2, 2)]),
}


@pytest.fixture(params=NETWORKS)
def taken_apart(request):
    build, shape, stages = NETWORKS[request.param]
    torch.manual_seed(0)
    network = build().eval()
    inputs = torch.randn(3, *shape)
    return NetworkParts(network, inputs[:1]), inputs, stages


def test_encoder_and_last_layer_are_the_network(taken_apart):
    parts, inputs, _ = taken_apart
    with torch.no_grad():
        features = parts.encoder(inputs)
        assert torch.equal(parts.last_layer(features), parts.network(inputs))
    assert features.shape == (3, parts.last_layer.in_features)


def test_stages_and_head_are_the_network(taken_apart):
    parts, inputs, shapes = taken_apart
    maps, found = inputs, []
    with torch.no_grad():
        for stage in parts.stages:
            maps = stage(maps)
            found.append(tuple(maps.shape[1:]))
        assert torch.equal(parts.head(maps), parts.network(inputs))
    assert found[-1] == shapes[-1]
    if len(shapes) > 1:
        assert found == shapes


def test_parts_share_the_weights_of_the_network_and_can_be_sent():
    network = cnn(1, 8, 4).eval()
    parts = NetworkParts(network, torch.zeros(1, 1, 8, 8))
    inputs = torch.rand(2, 1, 8, 8)
    assert {id(p) for stage in parts.stages for p in stage.parameters()} <= {id(p) for p in network.parameters()}
    again = pickle.loads(pickle.dumps(parts.head))
    with torch.no_grad():
        maps = nn.Sequential(*parts.stages)(inputs)
        assert torch.equal(again(maps), network(inputs))


class Branching(nn.Module):
    """Python decides by the values of a tensor, which no graph can hold."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = self.body(x)
        if x.mean() > 0:
            x = x * 1
        return self.fc(x.mean((2, 3)))


class Bypassed(nn.Module):
    """The head looks at the input, too."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(68, 3)

    def forward(self, x):
        return self.fc(torch.cat([self.body(x).mean((2, 3)), x.flatten(1)], dim=1))


@pytest.mark.parametrize(
    ("build", "shape", "reason"),
    [
        (Branching, (1, 8, 8), "which torch.fx cannot trace"),
        (Bypassed, (1, 8, 8), "that all of the classifier passes through, and there are none"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8), "there are none"),
        (lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3), (3, 32, 32), "there are none"),
    ],
)
def test_a_network_without_feature_maps_says_so_and_still_has_features(build, shape, reason):
    torch.manual_seed(0)
    parts = NetworkParts(build().eval(), torch.zeros(1, *shape))
    with pytest.raises(CellSkippedError) as skipped:
        _ = parts.stages
    assert reason in str(skipped.value)
    inputs = torch.rand(2, *shape)
    with torch.no_grad():
        assert torch.equal(parts.last_layer(parts.encoder(inputs)), parts.network(inputs))
