"""Gradient metrics of many architectures against one float64 backward pass for each sample."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from oodbench.classifiers.cnn import CNN
from oodbench.gradients import gradient_metrics
from oodbench.gradients.recording import owners


class Residual(nn.Module):
    """A ResNet in small: BatchNorm, a shortcut as it is and one by a strided 1×1 convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.same = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16))
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.same(x))
        x = F.relu(self.down(x) + self.shortcut(x))
        return self.head(x.mean(dim=(2, 3)))


def grouped():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, dilation=2, padding="same", groups=4, bias=False), nn.Tanh(),
        nn.Conv2d(8, 6, (2, 3), stride=(1, 2), padding=(1, 0), padding_mode="reflect"), nn.GELU(),
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="replicate"), nn.Tanh(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, padding_mode="circular"), nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip


def separable():
    return nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.Hardswish(), nn.Conv2d(12, 24, 5, padding=2, groups=12), nn.BatchNorm2d(24), nn.ReLU6(),
        nn.Conv2d(24, 7, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4),
    )  # fmt: skip


def one_dimensional():
    return nn.Sequential(
        nn.Conv1d(2, 6, 5, padding="same", padding_mode="circular"), nn.PReLU(6), nn.GroupNorm(3, 6),
        nn.Conv1d(6, 8, 3, stride=2, dilation=2), nn.BatchNorm1d(8), nn.PReLU(),
        nn.ConvTranspose1d(8, 4, 4, stride=3, padding=1, output_padding=1, dilation=2), nn.Tanh(),
        nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip


def three_dimensional():
    return nn.Sequential(
        nn.Conv3d(1, 4, (2, 3, 3), stride=(1, 2, 1), padding=(1, 0, 1)), nn.InstanceNorm3d(4, affine=True), nn.ReLU(),
        nn.Conv3d(4, 8, 2, groups=2), nn.InstanceNorm3d(8, affine=True, track_running_stats=True), nn.ReLU(),
        nn.ConvTranspose3d(8, 2, 2, groups=2), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip


def decoder():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.ELU(), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1),
        nn.ELU(), nn.ConvTranspose2d(6, 2, (3, 2), padding=(1, 0), bias=False), nn.Flatten(), nn.LazyLinear(4),
    )  # fmt: skip


class Patches(nn.Module):
    """A vision transformer in small: class token, positions, pre-norm blocks, dimensions swapped."""

    def __init__(self, batch_first=True):
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Conv2d(1, 12, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.positions = nn.Parameter(torch.randn(1, 20, 12))
        layer = nn.TransformerEncoderLayer(12, 3, 24, batch_first=batch_first, norm_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(12), enable_nested_tensor=False)
        self.head = nn.Linear(12, 6)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.positions[:, : x.shape[1]]
        if not self.batch_first:
            return self.head(self.encoder(x.transpose(0, 1))[0])
        return self.head(self.encoder(x)[:, 0])


class Text(nn.Module):
    """A text transformer: padded tokens, positions that all samples share, masks, tokens first."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(40, 8, padding_idx=0)
        self.positions = nn.Embedding(16, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        t = tokens.shape[1]
        x = self.words(tokens) + self.positions(torch.arange(t)).unsqueeze(0)
        mask = nn.Transformer.generate_square_subsequent_mask(t, dtype=x.dtype)
        x = self.encoder(x.transpose(0, 1), mask=mask, src_key_padding_mask=tokens == 0)
        return self.head(x.mean(dim=0))


class Crossed(nn.Module):
    """Attention from a few learnt queries to an input of another width, and one between two inputs of one width."""

    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(5, 8)
        self.wide = nn.MultiheadAttention(8, 2, kdim=5, vdim=5, batch_first=True)
        self.packed = nn.MultiheadAttention(8, 4, bias=False, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        q = torch.tanh(self.lift(x[:, :2]))
        y, _ = self.wide(q, x, x)
        z, _ = self.packed(torch.tanh(y), self.lift(x), self.lift(x), need_weights=False)
        return self.head(z.mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    """A weight shared by two modules, a layer called twice, one never called, one whose output is not used."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.twice = nn.Linear(6, 6)
        self.idle = nn.Linear(6, 2)
        self.unused = nn.Linear(6, 2)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        self.unused(x)
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


class Scaled(nn.Module):
    """Parameters of the model itself: added, subtracted, multiplied, reshaped, and one in a way no rule knows."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.shift = nn.Parameter(torch.randn(6))
        self.offset = nn.Parameter(torch.randn(2, 3))
        self.scale = nn.Parameter(torch.randn(6, 1))
        self.power = nn.Parameter(torch.rand(6))
        self.rms = nn.RMSNorm((4, 6))
        self.norm = nn.LayerNorm(6, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.rms(self.embed(x) + self.shift)
        x = torch.sub(x, self.offset.reshape(-1), alpha=0.5)
        x = self.scale.t() * self.norm(x)
        return self.head((x.sigmoid() ** self.power).mean(dim=1))


def weight_norm():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 6)), nn.Tanh(), nn.Linear(6, 3))


def images(*shape):
    return lambda n: torch.randn(n, *shape)


def tokens(n):
    found = torch.randint(1, 40, (n, 7))
    found[:, 4] = found[:, 1]
    found[-1, 5:] = 0
    return found


ZOO = {
    "cnn": (lambda: CNN(1, 16, 10), images(1, 16, 16)),
    "resnet in small": (Residual, images(3, 11, 11)),
    "grouped, dilated, padded": (grouped, images(3, 13, 11)),
    "depthwise separable": (separable, images(3, 9, 9)),
    "one dimension": (one_dimensional, images(2, 25)),
    "three dimensions": (three_dimensional, images(1, 5, 8, 6)),
    "transposed convolutions": (decoder, images(1, 9, 9)),
    "vision transformer": (Patches, images(1, 16, 16)),
    "vision transformer, tokens first": (lambda: Patches(batch_first=False), images(1, 16, 16)),
    # 17 tokens and 17 samples: only by their number can nobody tell the dimensions apart
    "text transformer": (Text, tokens),
    "attention between inputs": (Crossed, images(6, 5)),
    "lstm": (Recurrent, images(5, 4)),
    "tied weights": (Tied, images(6)),
    "parameters of the model": (Scaled, images(4, 5)),
    "parametrized weight": (weight_norm, images(5)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), images(3, 32, 32)),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=10), images(3, 32, 32)),
    "efficientnet_b0": (lambda: torchvision.models.efficientnet_b0(num_classes=10), images(3, 32, 32)),
    "vit": (lambda: VisionTransformer(32, 16, 3, 4, 64, 128, num_classes=10), images(3, 32, 32)),
    "convnext_tiny": (lambda: torchvision.models.convnext_tiny(num_classes=10), images(3, 32, 32)),
}


def make(name):
    torch.manual_seed(0)
    build, draw = ZOO[name]
    model, inputs = build().eval(), draw(17)
    model(inputs[:2])  # lazy layers
    with torch.no_grad():
        for parameter in model.parameters():
            # Heads and residual scales that start at 0 or 1e-6 would leave nothing to compare.
            if parameter.abs().amax() < 1e-3:
                parameter.normal_(std=0.1)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return model, inputs


def seven(gradient):
    """The statistics of one gradient by their definitions."""
    mean, std = gradient.mean(), gradient.std(correction=0)
    central = gradient - mean
    spread = std > 1e-9 * gradient.abs().amax()
    return {
        "l1": gradient.abs().sum(), "l2": gradient.norm(), "min": gradient.amin(), "max": gradient.amax(),
        "mean": mean, "std": std, "skewness": (central**3).mean() / std**3 if spread else 0 * std,
    }  # fmt: skip


def brute_force(model, one, label, dtype):
    """All statistics of one sample from its own backward pass."""
    model = copy.deepcopy(model).to(dtype)
    logits = model(one.to(dtype) if one.is_floating_point() else one)
    F.cross_entropy(logits, label).backward()

    def flat(parameters):
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in parameters])

    expected = seven(flat(model.parameters()))
    for layer, module in owners(model).items():
        of_layer = seven(flat(module.parameters(recurse=False)))
        expected |= {f"{metric}@{layer}": value for metric, value in of_layer.items()}
    return {key: float(value) for key, value in expected.items()}


def natural_scale(key, expected):
    """What an error is relative to: the value; of a mean at least the spread, of a skewness at least 1."""
    metric, at, layer = key.partition("@")
    if metric == "mean":
        return max(expected[f"std{at}{layer}"], abs(expected[key]))
    return max(1.0, abs(expected[key])) if metric == "skewness" else abs(expected[key])


def assert_exact(model, inputs, samples, found):
    for i in samples:
        one = inputs[i : i + 1]
        label = model(one).argmax(dim=1).detach()
        exact = brute_force(model, one, label, torch.float64)
        assert set(found) == set(exact)
        off = {
            key: abs(float(found[key][i]) - value)
            for key, value in exact.items()
            if abs(float(found[key][i]) - value) > 1e-4 * natural_scale(key, exact) + 1e-30
        }
        if off:
            # As far off as a float32 backward pass of this sample alone would be.
            single = brute_force(model, one, label, torch.float32)
            assert {key: error for key, error in off.items() if error > 3 * abs(single[key] - exact[key])} == {}


@pytest.mark.parametrize("name", ZOO)
def test_metrics_are_exact_in_batches_of_1_2_and_17(name):
    model, inputs = make(name)
    together = gradient_metrics(model, inputs)
    assert_exact(model, inputs, [0, 16], together)
    for n in (1, 2):
        assert_exact(model, inputs[:n], [0], gradient_metrics(model, inputs[:n]))


@pytest.mark.parametrize("name", ["cnn", "vision transformer", "text transformer", "parameters of the model"])
def test_float64_models_are_exact(name):
    model, inputs = make(name)
    model = model.double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    assert_exact(model, inputs, [0, 16], gradient_metrics(model, inputs))


@pytest.mark.parametrize("name", ["resnet in small", "vision transformer"])
def test_confident_samples_are_exact(name):
    model, inputs = make(name)
    with torch.no_grad():
        model.head.bias[1] += 20
    found = gradient_metrics(model, inputs)
    # In float32 the softmax is 1 to its last bit; beyond this, p − 1 is too coarse in float64 as well.
    assert 0 < found["l1"].max() < 1e-4
    assert_exact(model, inputs, [0, 16], found)


@pytest.mark.parametrize("name", ["resnet18", "vit", "text transformer", "convnext_tiny", "one dimension"])
def test_nothing_goes_by_single_samples(name, caplog):
    model, inputs = make(name)
    with caplog.at_level("INFO", logger="oodbench"):
        gradient_metrics(model, inputs[:2])
    assert "one backward pass for each sample" not in caplog.text


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_weight_that_a_hook_makes_of_two_parameters_is_exact():
    """Its module is a Linear layer by type, and its parameters are not a Linear layer's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 6)), nn.Tanh(), nn.Linear(6, 3))
    inputs = torch.randn(3, 5)
    found = gradient_metrics(model, inputs)
    for i in range(3):
        logits = model(inputs[i : i + 1])
        parameters = [model[0].weight_g, model[0].weight_v, model[0].bias]
        gradients = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1)), parameters)
        expected = seven(torch.cat([gradient.flatten() for gradient in gradients]))
        for metric, value in expected.items():
            torch.testing.assert_close(found[f"{metric}@0"][i], value, rtol=1e-4, atol=1e-6)
