"""OpenOOD's networks: they compute what they are defined to, and its checkpoints load as they are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from oodbench.classifiers.lookup import find_classifier
from oodbench.classifiers.network_parts import NetworkParts
from oodbench.classifiers.weights import load_weights, weights_file
from oodbench.errors import UsageError

WIDTHS = [64, 128, 256, 512]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def built(name, size, classes):
    torch.manual_seed(0)
    network = find_classifier(f"openood:{name}", []).build(3, size, classes).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # so that it is seen whether it is applied, and where
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network


def names_in_openood():
    """The names in OpenOOD's checkpoints of its ResNet-18 for small images."""
    found = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{name}" for name in BATCH_NORM)}
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            prefix = f"layer{layer}.{block}"
            for number in (1, 2):
                found |= {f"{prefix}.conv{number}.weight", *(f"{prefix}.bn{number}.{name}" for name in BATCH_NORM)}
        if layer > 1:
            shortcut = f"layer{layer}.0.shortcut"
            found |= {f"{shortcut}.0.weight", *(f"{shortcut}.1.{name}" for name in BATCH_NORM)}
    return found


def logits_by_hand(weights, x):
    def normalised(x, name):
        mean, var, scale, shift = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        of_channels = [value[:, None, None] for value in (mean, var, scale, shift)]
        return (x - of_channels[0]) / (of_channels[1] + 1e-5).sqrt() * of_channels[2] + of_channels[3]

    x = normalised(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1").clamp(min=0)
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = normalised(inner, f"{name}.bn1").clamp(min=0)
            inner = normalised(F.conv2d(inner, weights[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:
                around = F.conv2d(x, weights[f"{name}.shortcut.0.weight"], stride=2)
                x = normalised(around, f"{name}.shortcut.1")
            x = (inner + x).clamp(min=0)
    return x.mean(dim=(2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]


@pytest.mark.parametrize(
    ("name", "size", "classes", "parameters"),
    [
        ("resnet18_32x32", 32, 10, 11_173_962),
        ("resnet18_32x32", 32, 100, 11_220_132),
        ("resnet18_64x64", 64, 200, 11_271_432),
        ("resnet18_224x224", 64, 200, 11_279_112),
        ("resnet50", 64, 1000, 25_557_032),
    ],
)
def test_the_size_of_a_network(name, size, classes, parameters):
    network = built(name, size, classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    with torch.no_grad():
        assert network(torch.randn(2, 3, size, size)).shape == (2, classes)


@pytest.mark.parametrize(("name", "size"), [("resnet18_32x32", 32), ("resnet18_64x64", 64)])
def test_the_network_for_small_images_is_its_definition(name, size):
    network = built(name, size, 7).double()
    assert set(network.state_dict()) == names_in_openood()
    inputs = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), logits_by_hand(network.state_dict(), inputs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "build"), [("resnet18_224x224", models.resnet18), ("resnet50", models.resnet50)]
)  # fmt: skip
def test_the_networks_for_large_images_are_torchvisions(name, build):
    network = built(name, 64, 9)
    same = build(num_classes=9).eval()
    same.load_state_dict(network.state_dict())
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(inputs), same(inputs))


def test_only_the_resnet50_has_weights_to_download():
    assert find_classifier("openood:resnet50", []).pretrained is not None
    assert find_classifier("openood:resnet50", []).preset()["resize"] == 256, "of the first weights, not the second"
    for name in ("resnet18_32x32", "resnet18_64x64", "resnet18_224x224"):
        spec = find_classifier(f"openood:{name}", [])
        assert (spec.name, spec.pretrained, spec.preset, spec.channels) == (f"openood:{name}", None, None, 3)


def test_a_checkpoint_loads_as_it_is_for_each_seed(tmp_path):
    saved = {}
    for seed in (0, 2):
        saved[seed] = built("resnet18_32x32", 32, 10).state_dict()
        saved[seed]["fc.bias"] += seed + 1
        (tmp_path / f"s{seed}").mkdir()
        torch.save(saved[seed], tmp_path / f"s{seed}" / "best.ckpt")
    for seed, state in saved.items():
        network = find_classifier("openood:resnet18_32x32", []).build(3, 32, 10)
        file, key = weights_file(f"{tmp_path}/s{{seed}}/best.ckpt", seed)
        assert load_weights(network, file, 10, key=key) == []
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_checkpoint_for_other_classes_is_refused(tmp_path):
    torch.save(built("resnet18_32x32", 32, 100).state_dict(), tmp_path / "best.ckpt")
    network = find_classifier("openood:resnet18_32x32", []).build(3, 32, 10)
    with pytest.raises(UsageError, match=r"have fc\.weight of shape \(100, 512\); expected \(10, 512\)"):
        load_weights(network, tmp_path / "best.ckpt", 10)


def test_it_is_cut_at_its_feature_maps_and_its_features():
    network, inputs = built("resnet18_32x32", 32, 10), torch.randn(2, 3, 32, 32)
    parts = NetworkParts(network, inputs[:1])
    maps, shapes = inputs, []
    with torch.no_grad():
        for stage in parts.stages:
            maps = stage(maps)
            shapes.append(tuple(maps.shape[1:]))
        assert shapes == [(width, 32 >> i, 32 >> i) for i, width in enumerate(WIDTHS)]
        assert torch.equal(parts.head(maps), network(inputs))
        features = parts.encoder(inputs)
        torch.testing.assert_close(features, maps.mean(dim=(2, 3)))
        assert torch.equal(parts.last_layer(features), network(inputs))


@pytest.mark.parametrize("name", ["resnet18_32x23", "resnet101", ""])
def test_another_name_is_refused(name):
    with pytest.raises(UsageError, match=f"there is no classifier openood:{name}; "):
        find_classifier(f"openood:{name}", [])
