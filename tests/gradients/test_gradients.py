"""Gradient metrics against brute force: one float64 backward pass for each sample."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from oodbench.classifiers.cnn import CNN
from oodbench.errors import UsageError
from oodbench.gradients import METRICS, Vector, engine, entries, forward, gradient_metrics, rule
from oodbench.gradients import statistics as statistics_module
from oodbench.gradients.recording import owners

NAMES = list(METRICS)


def statistics(gradient):
    """The seven statistics by numpy and scipy."""
    return {
        "l1": np.abs(gradient).sum(),
        "l2": np.sqrt((gradient**2).sum()),
        "min": gradient.min(),
        "max": gradient.max(),
        "mean": gradient.mean(),
        "std": gradient.std(),
        "skewness": stats.skew(gradient) if gradient.std() > 1e-12 * np.abs(gradient).max(initial=0) else 0.0,
    }


def brute_force(model, inputs, loss):
    """Backward passes of single samples in float64, with the loss taken at the float32 model's prediction."""
    predicted = copy.deepcopy(model).eval()(inputs).argmax(dim=1)
    double = copy.deepcopy(model).double().eval()
    for parameter in double.parameters():
        parameter.requires_grad_()
    rows = []
    for position in range(len(inputs)):
        double.zero_grad()
        one = inputs[position : position + 1]
        logits = double(one.double() if one.is_floating_point() else one)
        c = logits.shape[1]
        value = {
            "predicted": lambda z, p=position: F.cross_entropy(z, predicted[p : p + 1]),
            "uniform": lambda z, c=c: F.cross_entropy(z, torch.full((1, c), 1 / c, dtype=z.dtype)),
            "confounding": lambda z, c=c: F.cross_entropy(z, torch.ones(1, c, dtype=z.dtype)),
            "logsumexp": lambda z: z.logsumexp(dim=1),
        }.get(loss, loss)(logits)
        value.sum().backward()

        def flat(parameters):
            return np.concatenate([
                np.zeros(p.numel()) if p.grad is None else p.grad.flatten().numpy() for p in parameters
            ])  # fmt: skip

        row = statistics(flat(double.parameters()))
        for layer, module in owners(double).items():
            of_layer = statistics(flat(module.parameters(recurse=False)))
            row |= {f"{metric}@{layer}": value for metric, value in of_layer.items()}
        rows.append(row)
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def assert_exact(model, inputs, loss="predicted", tolerance=1e-4):
    expected = brute_force(model, inputs, loss)
    found = gradient_metrics(model, inputs, loss=loss)
    assert set(found) == set(expected)
    for key, values in found.items():
        assert values.dtype == torch.float32
        assert values.shape == (len(inputs),)
        metric, _, layer = key.partition("@")
        suffix = f"@{layer}" if layer else ""
        # Mean and skewness can cancel: their natural scale is that of the entries, and 1.
        scale = {"mean": expected[f"std{suffix}"], "skewness": np.maximum(1, np.abs(expected[key]))}.get(
            metric, np.abs(expected[key])
        )
        difference = np.abs(values.double().numpy() - expected[key])
        assert (difference <= tolerance * scale + 1e-30).all(), (key, values.numpy(), expected[key])


def cnn():
    return CNN(1, 16, 10)


def strided():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, dilation=2, padding="same", groups=4, bias=False), nn.Tanh(),
        nn.Conv2d(8, 6, (2, 3), stride=(1, 2), padding=(1, 0), padding_mode="reflect"), nn.GELU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, padding_mode="circular"), nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip


class Tokens(nn.Module):
    """Linear layers on tokens, one of them in two leading dimensions."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.mix = nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.tanh(self.embed(x))
        return self.head(torch.sin(self.mix(x)).mean(dim=(1, 2)))


class Tied(nn.Module):
    """A weight shared by two modules, a module called twice, one without a rule, one never called, a free parameter."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.twice = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.idle = nn.Linear(6, 2)
        self.scale = nn.Parameter(torch.ones(6))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        x = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        return self.head(self.norm(x) * self.scale)


class Functional(nn.Module):
    """A weight that its own module uses and a function too, one that only a function uses, and a layer behind a cut."""

    def __init__(self):
        super().__init__()
        self.both = nn.Linear(6, 6)
        self.only = nn.Linear(6, 6)
        self.behind = nn.Linear(6, 4)

    def forward(self, x):
        x = self.both(torch.tanh(F.linear(x, self.both.weight)))
        x = torch.tanh(F.linear(x, self.only.weight, self.only.bias))
        return self.behind(x.detach()) + x[:, :4]


class Words(nn.Module):
    """Inputs that are whole numbers."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x)).mean(dim=1))


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=0)


class FunctionalDropout(nn.Module):
    """It drops in eval mode too, as F.dropout does unless it is told not to."""

    def forward(self, x):
        return F.dropout(x)


class InPlace(nn.Module):
    """In-place activations right behind the layers whose output gradients are collected."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.act = nn.LeakyReLU(0.1, inplace=True)
        self.head = nn.Linear(4 * 36, 5)

    def forward(self, x):
        return self.head(self.act(self.conv(x)).flatten(1)).mul_(1.5)


CASES = {
    "cnn": (cnn, (1, 16, 16)),
    "strided": (strided, (3, 13, 11)),
    "tokens": (Tokens, (2, 5, 4)),
    "tied": (Tied, (6,)),
    "in place": (InPlace, (1, 8, 8)),
    "functional": (Functional, (6,)),
    "words": (Words, (7,)),
}


def make(name, n, seed=0):
    torch.manual_seed(seed)
    build, shape = CASES[name]
    model = build()
    inputs = torch.randint(0, 9, (n, *shape)) if name == "words" else torch.randn(n, *shape)
    model(inputs[:1].repeat(2, *[1] * len(shape)))  # lazy layers
    return model, inputs


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [1, 2, 17])
def test_metrics_equal_a_float64_backward_pass_for_each_sample(name, n):
    model, inputs = make(name, n)
    assert_exact(model, inputs)


@pytest.mark.parametrize("loss", ["uniform", "confounding", "logsumexp", lambda z: z.square().sum(dim=1)])
def test_other_losses_are_exact(loss):
    assert_exact(*make("cnn", 3), loss=loss)


def test_confident_samples_are_exact_where_float32_would_lose_everything():
    model, inputs = make("cnn", 5)
    with torch.no_grad():
        model.fc2.bias[3] += 20
    # In float32 the softmax is 1 here to its last bit; far below that even p − 1 in float64 would be too coarse.
    assert 0 < gradient_metrics(model, inputs)["l1"].max() < 1e-5
    assert_exact(model, inputs)


def test_wide_products_are_summed_in_tiles_without_changing_the_result(monkeypatch):
    model, inputs = make("cnn", 7)
    whole = gradient_metrics(model, inputs)
    monkeypatch.setattr(statistics_module, "TILE", 50)
    tiled = gradient_metrics(model, inputs)
    for key in whole:
        torch.testing.assert_close(whole[key], tiled[key], rtol=1e-4, atol=1e-7)


def test_a_gradient_of_zero_has_metrics_of_zero():
    model, inputs = make("cnn", 2)
    with torch.no_grad():
        model.fc2.weight.zero_()
        model.fc2.bias.copy_(torch.arange(10) * 1e4)
    for values in gradient_metrics(model, inputs).values():
        assert (values == 0).all()


def test_the_mean_over_the_last_layer_is_exactly_zero_and_not_noise():
    """Σ(p − t) = 0 (design §6): a constant column, which a meta classifier drops."""
    model, inputs = make("cnn", 50)
    assert (gradient_metrics(model, inputs)["mean@fc2"] == 0).all()


def test_closed_forms_of_the_last_layer():
    """Igoe et al. 2022: ‖G‖₁ = 2(1 − p_max)‖h‖₁, ‖G‖₂ = ‖d‖₂‖h‖₂."""
    model = nn.Sequential(nn.Linear(7, 5, bias=False))
    h = torch.randn(20, 7)
    found = gradient_metrics(model, h)
    p = model(h).softmax(1).detach()
    d = p - F.one_hot(p.argmax(1), 5)
    torch.testing.assert_close(found["l1@0"], 2 * (1 - p.amax(1)) * h.abs().sum(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(found["l2"], d.norm(dim=1) * h.norm(dim=1), rtol=1e-4, atol=0)


def test_agrees_with_the_authors_package():
    package = pytest.importorskip("gradient_metrics", reason="gradient-metrics supports Python up to 3.11 only")
    from gradient_metrics.metrics import Max, Mean, Min, PNorm

    model, inputs = make("cnn", 6)
    model.eval()
    parts = {
        "l1": PNorm(model, p=1),
        "l2": PNorm(model, p=2),
        "min": Min(model),
        "max": Max(model),
        "mean": Mean(model),
    }
    collector = package.GradientMetricCollector(list(parts.values()))
    logits = model(inputs)
    theirs = collector(F.cross_entropy(logits, logits.argmax(1), reduction="none"))
    ours = gradient_metrics(model, inputs)
    for column, name in enumerate(parts):
        torch.testing.assert_close(theirs[:, column].detach().cpu(), ours[name], rtol=1e-3, atol=1e-9)


def test_it_works_under_no_grad_and_inference_mode():
    model, inputs = make("cnn", 3)
    expected = gradient_metrics(model, inputs)
    with torch.no_grad():
        assert torch.equal(gradient_metrics(model, inputs)["l1"], expected["l1"])
    with torch.inference_mode():
        assert torch.equal(gradient_metrics(model, inputs * 1)["l1"], expected["l1"])


def test_frozen_parameters_count():
    model, inputs = make("cnn", 3)
    before = gradient_metrics(model, inputs)
    model.requires_grad_(False)
    after = gradient_metrics(model, inputs)
    assert all(torch.equal(before[key], after[key]) for key in before)


def snapshot(model):
    return (
        [(module.training, len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.clone(), p.detach().clone()) for p in model.parameters()],
    )


def assert_same(one, other):
    assert one[0] == other[0]
    for (flag, grad, value), (flag2, grad2, value2) in zip(one[1], other[1], strict=True):
        assert flag == flag2
        assert (grad is None) == (grad2 is None)
        assert grad is None or torch.equal(grad, grad2)
        assert torch.equal(value, value2)


@pytest.mark.parametrize("name", ["cnn", "tied"])
def test_the_model_is_left_as_it_was_found(name):
    model, inputs = make(name, 3)
    model.train()
    model(inputs).sum().backward()
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    gradient_metrics(model, inputs)
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("where", ["forward", "loss"])
def test_the_model_is_left_as_it_was_found_when_it_raises(where):
    model, inputs = make("tied", 3)
    model.train()
    before = snapshot(model)
    if where == "forward":
        with pytest.raises(RuntimeError):
            gradient_metrics(model, inputs[:, :2])
    else:
        with pytest.raises(UsageError, match=r"expected \(3,\)"):
            gradient_metrics(model, inputs, loss=lambda z: z.sum())
    assert_same(before, snapshot(model))


def test_squared_norm_is_that_of_all_weights():
    model, inputs = make("strided", 4)
    with forward(model, inputs) as run:
        squared = run.squared_norm("confounding")
    expected = gradient_metrics(model, inputs, loss="confounding")["l2"].double() ** 2
    torch.testing.assert_close(squared, expected, rtol=1e-4, atol=0)


def test_no_per_sample_gradient_of_a_dense_layer_is_built():
    """A 4096 × 4096 layer on 64 samples would take 4 GiB; it has to do with far less."""
    import resource

    model = nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gradient_metrics(model, torch.randn(64, 4096))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.5 * 2**20  # KiB


def test_parameters_without_a_rule_are_named_in_the_log_once(caplog):
    engine._say_once.cache_clear()
    model, inputs = make("tied", 2)
    with caplog.at_level("INFO", logger="oodbench"):
        gradient_metrics(model, inputs)
        gradient_metrics(model, inputs)
    (said,) = [record.message for record in caplog.records if "for each sample" in record.message]
    assert said.endswith(": first.weight, first.bias, second.weight, second.bias, twice.weight, twice.bias")


def test_a_plugin_adds_a_layer_with_one_function(caplog):
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.rand(6))

        def forward(self, x):
            return x**2 * self.gain.exp()

    model = nn.Sequential(nn.Linear(4, 6), Gain(), nn.Linear(6, 3))
    inputs = torch.randn(5, 4)
    slowly = gradient_metrics(model, inputs)

    @rule(Gain)
    def gain(module, x, d):
        return {"gain": Vector(d * x**2 * module.gain.exp())}

    engine._say_once.cache_clear()
    caplog.clear()
    with caplog.at_level("INFO", logger="oodbench"):
        quickly = gradient_metrics(model, inputs)
    assert caplog.text == ""
    for key, values in quickly.items():
        torch.testing.assert_close(values, slowly[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("forms", [lambda d: {"gain": Vector(d[:, :4])}, lambda d: {"other": Vector(d)}])
def test_a_rule_that_leaves_something_out_is_not_trusted(forms):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.rand(6))

        def forward(self, x):
            return x * self.gain.exp()

    rule(Half)(lambda module, x, d: forms(d))
    assert_exact(nn.Sequential(nn.Linear(4, 6), Half(), nn.Linear(6, 3)), torch.randn(3, 4))


def test_exgrad_is_the_expectation_over_labels():
    model, inputs = make("cnn", 3)
    found = gradient_metrics(model, inputs, loss="exgrad")
    p = model.eval()(inputs).double().softmax(1).detach()
    by_label = [
        gradient_metrics(model, inputs, loss=lambda z, label=label: -z.log_softmax(1)[:, label]) for label in range(10)
    ]
    for key, values in found.items():
        expected = sum(p[:, label] * one[key].double() for label, one in enumerate(by_label))
        torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=1e-6)


def test_several_losses_share_a_forward_pass():
    model, inputs = make("tied", 3)
    with forward(model, inputs) as run:
        found = {loss: run.metrics(loss) for loss in ("uniform", "predicted", "uniform")}
    for loss, metrics in found.items():
        alone = gradient_metrics(model, inputs, loss=loss)
        assert all(torch.equal(metrics[key], alone[key]) for key in alone)


@pytest.mark.parametrize("name", ["cnn", "strided", "tokens", "in place"])
def test_torch_operations_give_what_the_kernel_gives(name, monkeypatch):
    pytest.importorskip("numba")
    model, inputs = make(name, 17)
    quickly = gradient_metrics(model, inputs)
    monkeypatch.setattr(entries, "path", lambda: "torch")
    slowly = gradient_metrics(model, inputs)
    assert_exact(model, inputs)
    for key, values in quickly.items():
        torch.testing.assert_close(values, slowly[key], rtol=2e-5, atol=1e-5 if "skew" in key else 1e-9)


def test_the_kernel_reads_extreme_and_odd_rows():
    for dtype in (torch.float32, torch.float64):
        rows = torch.randn(3, 2500, dtype=dtype)
        rows[0, 1024], rows[1, 2499], rows[2] = 1e6, -1e6, 0
        for width in (1, 7, 1024, 1025, 2500):
            chosen = rows[:, :width].contiguous()
            torch.testing.assert_close(
                entries.read_once(chosen), entries._by_operations(chosen.double()), rtol=1e-4, atol=1e-1
            )


def test_tiny_gradients_keep_their_powers():
    """A stack of layers that shrink: cubes of the first layer's gradient are below the least float32."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(15, 4))
    model.insert(2, nn.Unflatten(1, (1, 6)))
    with torch.no_grad():
        model[3].weight.mul_(1e-16)
    assert_exact(model, torch.randn(17, 5))


def test_positions_are_taken_in_parts_without_changing_the_result(monkeypatch):
    model, inputs = make("strided", 3)
    whole = gradient_metrics(model, inputs)
    monkeypatch.setattr(statistics_module, "PATCHES", 200)
    parts = gradient_metrics(model, inputs)
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=1e-4, atol=1e-6)


def test_a_model_that_mixes_samples_is_refused():
    for mixing in (nn.BatchNorm1d(4, track_running_stats=False), Centred(), FunctionalDropout()):
        with pytest.raises(UsageError, match="treats each sample by itself"):
            gradient_metrics(nn.Sequential(nn.Linear(4, 4), mixing, nn.Linear(4, 3)), torch.randn(5, 4))


def test_a_layer_of_which_the_input_is_changed_later_is_not_trusted_to_the_rule():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = torch.sin(self.lift(x))
            z = self.head(x)
            x.mul_(2)
            return z

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient_metrics(Late(), torch.randn(3, 4))


BAD_INPUTS = {
    "empty": (lambda x: x[:0], r"shape \(0, 1, 16, 16\); expected one sample or more"),
    "not finite": (lambda x: x.index_fill(0, torch.tensor([2]), float("nan")), "the first at index 2"),
    "elsewhere": (lambda x: x.to("meta"), "the model is on cpu and the inputs on meta"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_inputs_without_metrics_are_refused(name):
    model, inputs = make("cnn", 4)
    spoil, sentence = BAD_INPUTS[name]
    with pytest.raises(UsageError, match=sentence):
        gradient_metrics(model, spoil(inputs))


def test_outputs_that_are_no_logits_are_refused():
    class Returns(nn.Linear):
        def __init__(self, wrap):
            super().__init__(3, 2)
            self.wrap = wrap

        def forward(self, x):
            return self.wrap(super().forward(x))

    for wrap, sentence in (
        (lambda z: (z, z), "a tuple of 2; expected logits"),
        (lambda z: {"logits": z}, "a dict with the keys logits; expected"),
        (lambda z: z / 0, "logits of 4 of 4 inputs are NaN or infinite, the first at index 0"),
    ):
        with pytest.raises(UsageError, match=sentence):
            gradient_metrics(Returns(wrap), torch.randn(4, 3))


def test_a_model_without_parameters_or_logits_is_refused():
    with pytest.raises(UsageError, match="no parameters"):
        gradient_metrics(nn.Flatten(), torch.randn(2, 3))
    with pytest.raises(UsageError, match="expected logits"):
        gradient_metrics(nn.Conv1d(1, 1, 1), torch.randn(2, 1, 3))
    with pytest.raises(UsageError, match="unknown"):
        gradient_metrics(nn.Linear(3, 2), torch.randn(2, 3), loss="mse")
