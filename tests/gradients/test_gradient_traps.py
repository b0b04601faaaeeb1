"""Networks that are not what their layers make them look like: exact numbers all the same, or one sentence."""

import pytest
import torch
from test_gradient_zoo import assert_exact
from torch import nn
from torch.nn import functional as F

from oodbench.errors import UsageError
from oodbench.gradients import gradient_metrics


class Model(nn.Module):
    """A forward function and the parts that it uses."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def sorted_inside(m, x):
    order = (-x[:, 0]).argsort()
    return m.h(torch.tanh(m.a(x[order]))[order.argsort()])


def experts(m, x):
    """Each token goes to one of two layers; one of them gets as many tokens as there are samples."""
    t = x.flatten(0, 1)
    here = t[:, 0] > 0
    y = t.new_zeros(len(t), 6)
    y[here], y[~here] = m.a(t[here]), m.b(t[~here])
    return m.h(torch.tanh(y.view(len(x), -1, 6)).mean(1))


def routed():
    x = torch.randn(4, 3, 4).abs()
    x[:, :, 0] = -1
    x[0, :2, 0] = x[1, :2, 0] = 1
    return x


def derived_weight(m, x):
    return m.h(torch.tanh(torch.func.functional_call(m.a, {"weight": m.a.weight.tanh() * 3}, (x,))))


def force(m, x):
    x = x.detach().requires_grad_()
    energy = m.b(torch.tanh(m.a(x))).sum()
    return m.h(torch.autograd.grad(energy, x, create_graph=True)[0])


def doubled_hooks():
    m = Model(
        lambda m, x: m.h(m.m(x, x, x)[0].mean(1)), m=nn.MultiheadAttention(4, 2, batch_first=True), h=linear(4, 3)
    )
    m.m.out_proj.register_forward_hook(lambda module, args, output: output * 2)
    return m


class LoRA(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def replaced_projection():
    m = Model(
        lambda m, x: m.h(m.m(x, x, x)[0].mean(1)), m=nn.MultiheadAttention(4, 2, batch_first=True), h=linear(4, 3)
    )
    m.m.out_proj = LoRA(4, 4)
    return m


def shared_norm(norm):
    return lambda: Model(
        lambda m, x: m.h(torch.tanh(x + m.b(m.g)).flatten(1)),
        b=norm, g=nn.Parameter(torch.randn(1, 4, 5, 5)), h=linear(100, 3),
    )  # fmt: skip


def kept_training():
    norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    norm.train = lambda mode=True: norm
    return nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.Tanh(), nn.Flatten(), linear(75, 3))


def scaled_conv(factor):
    m = nn.Sequential(nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Flatten(), linear(15, 3))
    m[0].weight.data /= factor
    return m


def integer_constant():
    m = nn.Sequential(linear(4, 6), nn.Tanh(), linear(6, 3))
    m.steps = nn.Parameter(torch.tensor([7]), requires_grad=False)
    return m


linear = nn.Linear
TRAPS = {
    "samples sorted inside": (lambda: Model(sorted_inside, a=linear(4, 6), h=linear(6, 3)), (7, 4)),
    "tokens as many as samples": (lambda: Model(experts, a=linear(4, 6), b=linear(4, 6), h=linear(6, 3)), routed),
    "a weight derived of the own": (lambda: Model(derived_weight, a=linear(4, 6), h=linear(6, 3)), (4, 4)),
    "a gradient inside": (lambda: Model(force, a=linear(4, 6), b=linear(6, 1), h=linear(4, 3)), (4, 4)),
    "hooks that torch does not run": (doubled_hooks, (4, 5, 4)),
    "another output projection": (replaced_projection, (4, 5, 4)),
    "a norm of what samples share": (shared_norm(nn.BatchNorm2d(4)), (4, 4, 5, 5)),
    "a grouped norm of what samples share": (shared_norm(nn.GroupNorm(2, 4)), (4, 4, 5, 5)),
    "a convolution of what samples share": (shared_norm(nn.Conv2d(4, 4, 1)), (4, 4, 5, 5)),
    "channels where samples were": (
        lambda: Model(lambda m, x: m.h(torch.tanh(m.b(x.permute(1, 2, 0))).permute(2, 0, 1).flatten(1)),
                      b=nn.PReLU(4), h=linear(16, 3)), (4, 4, 4)),
    "a norm that stays in training": (kept_training, (4, 1, 7, 7)),
    "a constant gradient of one entry": (lambda: nn.Sequential(linear(4, 6), nn.PReLU(), linear(6, 3)), (6, 4)),
    "a small spread": (
        lambda: Model(lambda m, x: m.h(torch.tanh(m.a(1 + 1e-2 * x)).flatten(1)), a=linear(8, 1), h=linear(5, 3)),
        (3, 5, 8)),
    "huge inputs": (lambda: scaled_conv(1e13), lambda: torch.randn(4, 1, 7) * 1e13),
    "tiny inputs": (lambda: scaled_conv(1), lambda: torch.randn(4, 1, 7) * 1e-15),
    "a scalar parameter": (
        lambda: Model(lambda m, x: m.t * m.h(x), t=nn.Parameter(torch.tensor(0.3)), h=linear(4, 3)), (4, 4)),
    "one token a sample": (
        lambda: nn.Sequential(nn.Embedding(9, 4), linear(4, 3)), lambda: torch.randint(0, 9, (5,))),
    "a wide output padding": (
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 4, 3, dilation=3, output_padding=2), nn.Flatten(), linear(52, 3)),
        (4, 2, 5)),
    "a parameter of whole numbers": (integer_constant, (3, 4)),
    "an input worked on in place": (lambda: nn.Sequential(nn.ReLU(inplace=True), linear(4, 3)), (4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_metrics_are_exact_whatever_the_network_looks_like(name):
    torch.manual_seed(0)
    build, draw = TRAPS[name]
    model, inputs = build().eval(), draw() if callable(draw) else torch.randn(*draw)
    before = inputs.clone()
    found = gradient_metrics(model, inputs)
    assert torch.equal(inputs, before)
    assert_exact(model, inputs, range(len(inputs)), found)


def without_gradient(m, x):
    with torch.no_grad():
        return m.h(x)


REFUSED = {
    "samples in another dimension": (
        lambda: Model(lambda m, x: m.h(m.r(x)[0][:, -1]), r=nn.LSTM(4, 6), h=linear(6, 3)), (4, 5, 4),
        "treats each sample by itself"),
    "later samples see earlier ones": (
        lambda: Model(lambda m, x: m.h(x.cumsum(0)), h=linear(4, 3)), (4, 4), "logits of sample 2 differ"),
    "no gradient": (lambda: Model(without_gradient, h=linear(4, 3)), (4, 4), "carry no gradient"),
    "labels for logits": (
        lambda: Model(lambda m, x: m.h(x).round().long(), h=linear(4, 3)), (4, 4), "logits of torch.int64"),
    "lazy layers": (lambda: nn.Sequential(nn.LazyLinear(3)), (4, 4), "run it once"),
    "complex parameters": (
        lambda: Model(lambda m, x: m.h(x + 0j).abs(), h=nn.Linear(4, 3, dtype=torch.cfloat)), (4, 4), "complex"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_networks_without_per_sample_gradients_are_refused(name):
    build, shape, sentence = REFUSED[name]
    with pytest.raises(UsageError, match=sentence):
        gradient_metrics(build(), torch.randn(*shape))


def test_inputs_that_are_no_tensor_are_refused():
    with pytest.raises(UsageError, match=r"the inputs are a list; expected a torch\.Tensor"):
        gradient_metrics(linear(2, 2), [[1.0, 2.0]])


def test_half_precision_and_casts_agree_with_one_sample_alone():
    def twice(m, x):
        with torch.autocast("cpu", torch.bfloat16):
            return m.a(torch.tanh(F.linear(x, m.a.weight))).float()

    torch.manual_seed(0)
    for model, inputs in (
        (Model(twice, a=linear(6, 6)), torch.randn(5, 6)),
        (Model(lambda m, x: m.a(m.a(x)), a=linear(6, 6)).bfloat16(), torch.randn(5, 6).bfloat16()),
    ):
        together = gradient_metrics(model, inputs)["l1"]
        alone = torch.cat([gradient_metrics(model, inputs[i : i + 1])["l1"] for i in range(5)])
        torch.testing.assert_close(together, alone, rtol=0.05, atol=0)
        for i in range(5):
            logits = model(inputs[i : i + 1]).float()
            gradients = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1)), list(model.parameters()))
            expected = sum(gradient.float().abs().sum() for gradient in gradients)
            assert float(together[i]) == pytest.approx(float(expected), rel=0.05)


def test_a_scripted_layer_goes_by_single_samples():
    torch.manual_seed(0)
    scripted = torch.jit.script(nn.Sequential(linear(4, 6), nn.Tanh()))
    plain = nn.Sequential(nn.Sequential(linear(4, 6), nn.Tanh()), linear(6, 3))
    plain[0].load_state_dict(scripted.state_dict())
    inputs = torch.randn(3, 4)
    found = gradient_metrics(nn.Sequential(scripted, plain[1]), inputs)
    torch.testing.assert_close(found["l1"], gradient_metrics(plain, inputs)["l1"], rtol=1e-5, atol=0)
