"""Parts of the family of gradient uncertainty against their formulas: one sample at a time, in float64."""

import copy
from functools import partial

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from oodbench.classifiers.network_parts import NetworkParts
from oodbench.errors import CellSkippedError
from oodbench.evidence.gradient_parts import transformed
from oodbench.evidence.parts import PartFailedError, load_part, parts_of_batch
from oodbench.machine.device import FLOAT32


class Residual(nn.Module):
    """Convolutions, BatchNorm, ReLU in place, a shortcut, two resolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.down = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.block = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.down(self.stem(x))
        x = F.relu(self.block(x) + x, inplace=True)
        return self.head(x.mean(dim=(2, 3)))


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 5),
    )  # fmt: skip


def attention():
    return VisionTransformer(8, 4, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=16, num_classes=5)


BUILDS = {"residual": Residual, "plain": plain, "attention": attention}


def made(name, seed=0):
    """A network with random weights and running statistics, in eval mode."""
    torch.manual_seed(seed)
    network = BUILDS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.4)
    return network.eval()


def inputs_of(n, seed=1):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def values(network, inputs, part):
    return parts_of_batch(NetworkParts(network, inputs[:1]), inputs, [load_part(part)], FLOAT32)[part]


def doubled(network):
    return copy.deepcopy(network).double()


# Confounding labels


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("ones", [None, 0, 2, 5])
def test_set_norms_are_those_of_a_backward_pass_for_each_sample(name, ones, n):
    network, inputs = made(name), inputs_of(n)
    found = values(network, inputs, "set_norms" if ones is None else f"set_norms:ones={ones}")
    exact = doubled(network)
    parameters = dict(exact.named_parameters())
    assert list(found) == list(parameters)
    for i in range(n):
        logits = exact(inputs[i : i + 1].double())[0]
        order = logits.argsort(descending=True)
        label = torch.zeros(5, dtype=torch.float64)
        label[order[: 5 if ones is None else ones]] = 1
        p = logits.sigmoid()
        loss = -(label * p.log() + (1 - label) * (1 - p).log()).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for key, gradient in zip(parameters, gradients, strict=True):
            expected = 0.0 if gradient is None else float(gradient.square().sum())
            assert float(found[key][i]) == pytest.approx(expected, rel=1e-4, abs=1e-12), key


def test_more_ones_than_classes_are_skipped():
    with pytest.raises(PartFailedError, match="a label of 6 ones is asked for, and the classifier has 5 classes"):
        values(made("plain"), inputs_of(2), "set_norms:ones=6")


# Transformed inputs


def by_scipy(image, transform, strength):
    match transform:
        case "none":
            return image
        case "flip":
            return image[:, :, ::-1]
        case "blur":
            sigma = (0, strength, strength)
            return scipy.ndimage.gaussian_filter(image, sigma, mode="mirror", radius=min(round(3 * strength), 7))
        case "rotation":
            turned = [
                scipy.ndimage.rotate(channel, strength, reshape=False, order=1, mode="grid-constant")
                for channel in image
            ]
            return np.stack(turned)
    raise AssertionError


@pytest.mark.parametrize(("transform", "strength"), [("none", 1), ("flip", 1), ("blur", 0.8), ("rotation", 15.0)])
def test_transforms_are_those_of_scipy(transform, strength):
    images = inputs_of(3).double()
    expected = np.stack([by_scipy(image.numpy(), transform, strength) for image in images])
    np.testing.assert_allclose(transformed(images, transform, strength), expected, atol=1e-5)


def test_noise_is_the_same_for_all_samples_and_of_the_given_strength():
    images = torch.randn(4, 3, 64, 64)
    noise = transformed(images, "noise", 0.5) - images
    assert torch.allclose(noise[0], noise[3], atol=1e-5)
    assert float(noise[0].std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("n", [1, 17])
@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("transform", ["flip", "blur", "noise", "rotation"])
def test_transformed_norms_are_at_the_label_of_the_original(name, transform, n):
    network, inputs = made(name), inputs_of(n)
    found = values(network, inputs, f"transformed_norms:transform={transform},strength=0.7")
    exact = doubled(network)
    changed = transformed(inputs, transform, 0.7).double()
    other_labels = 0
    for i in range(n):
        label = exact(inputs[i : i + 1].double()).argmax()
        logits = exact(changed[i : i + 1])
        other_labels += int(label != logits.argmax())
        exact.zero_grad()
        (-logits.log_softmax(dim=1)[0, label]).backward()
        for key, of_layer in found.items():
            module = dict(exact.named_modules())[key.removeprefix("l1@")] if key != "l1@(root)" else exact
            own = [p.grad for p in module.parameters(recurse=False) if p.grad is not None]
            expected = sum(float(gradient.abs().sum()) for gradient in own)
            assert float(of_layer[i]) == pytest.approx(expected, rel=1e-3, abs=1e-9), key
    if (name, transform, n) == ("plain", "flip", 17):
        assert other_labels, "the label of the changed input would give other norms"


# Attributions


def attributed(network, image, kind, run):
    """Outputs of the layers of a type, with their gradients kept, and what is computed from an image in float64."""
    outputs = []

    def keep(_module, _args, output):
        outputs.append(output)
        output.retain_grad()
        return output.clone()  # as ReLU works in place

    handles = [module.register_forward_hook(keep) for module in network.modules() if isinstance(module, kind)]
    computed = run(image)
    for handle in handles:
        handle.remove()
    return outputs, computed


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize(("name", "kind"), [("residual", nn.BatchNorm2d), ("plain", nn.Conv2d)])
def test_gaia_z_is_the_mean_squared_density_of_what_is_not_zero(name, kind, n):
    network, inputs = made(name), inputs_of(n)
    found = values(network, inputs, "gaia_z")
    exact = doubled(network)
    for i in range(n):
        outputs, logits = attributed(exact, inputs[i : i + 1].double(), kind, exact)
        logits.max().backward()
        channels = [channel for output in outputs for channel in output.grad[0]]
        expected = np.mean([(float((channel != 0).double().mean())) ** 2 for channel in channels])
        assert float(found[i]) == pytest.approx(expected, abs=1e-9)
    assert n == 1 or found.std() > 0


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize(("name", "kind"), [("residual", nn.BatchNorm2d), ("plain", nn.Conv2d)])
def test_gaia_a_is_the_ratio_of_inner_to_outer_attributions(name, kind, n):
    network, inputs = made(name), inputs_of(n)
    found = values(network, inputs, "gaia_a")
    exact = doubled(network)
    last = {"residual": lambda x: x.mean(dim=(2, 3)) @ exact.head.weight.T + exact.head.bias,
            "plain": lambda x: exact[6](x.flatten(1))}[name]  # fmt: skip
    for i in range(n):
        outputs, maps = attributed(exact, inputs[i : i + 1].double(), kind, partial(_maps, exact, name))
        maps.sum().backward()
        inner = [float(channel.mean().abs()) for output in outputs for channel in output.grad[0]]
        leaf = maps.detach().requires_grad_()
        last(leaf).log_softmax(dim=1).sum().backward()
        outer = np.sqrt(np.mean([float(channel.mean().abs()) for channel in leaf.grad[0]]))
        assert float(found[i]) == pytest.approx(np.mean((np.array(inner) / outer) ** 2), rel=1e-4)


def _maps(network, name, image):
    if name == "plain":
        return network[:5](image)
    x = network.down(network.stem(image))
    return F.relu(network.block(x) + x)


@pytest.mark.parametrize("part", ["gaia_z", "gaia_a", "blood"])
def test_a_network_without_feature_maps_is_skipped_with_the_reason(part):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5)).eval()
    with pytest.raises(PartFailedError) as failed:
        values(network, inputs_of(2), part)
    assert isinstance(failed.value.reason, CellSkippedError)
    assert "needs" in str(failed.value)


# Smoothness between stages


def test_blood_estimates_squared_frobenius_norms_of_the_jacobians():
    network, inputs = made("residual"), inputs_of(3)
    found = values(network, inputs, "blood:n=2000").numpy()
    exact = doubled(network)
    steps = [
        lambda x: F.relu(exact.block(exact.down(x)) + exact.down(x)),
        lambda x: exact.head(x.mean(dim=(2, 3))),
    ]
    for i in range(3):
        x = exact.stem(inputs[i : i + 1].double())
        for number, step in enumerate(steps):
            jacobian = torch.autograd.functional.jacobian(step, x.clone())
            expected = float(jacobian.square().sum())
            # Relative standard error at most √(2 / n) for n vectors.
            assert found[i, number] == pytest.approx(expected, rel=4 * np.sqrt(2 / 2000))
            x = step(x).detach()
    assert found.shape == (3, 2)


def test_blood_is_exact_for_its_vectors_and_does_not_depend_on_the_batch():
    network, inputs = made("plain"), inputs_of(5)
    together = values(network, inputs, "blood:n=3")
    alone = torch.cat([values(network, inputs[i : i + 1], "blood:n=3") for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "part", ["set_norms", "transformed_norms:transform=blur,strength=1.0", "gaia_z", "gaia_a", "blood"]
)
def test_the_network_and_the_inputs_are_left_as_they_were(part):
    network, inputs = made("residual"), inputs_of(4)
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    before, flags = inputs.clone(), [p.requires_grad for p in network.parameters()]
    values(network, inputs, part)
    assert torch.equal(inputs, before)
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    assert [p.requires_grad for p in network.parameters()] == flags
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
