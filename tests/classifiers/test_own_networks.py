"""Networks as people have them: wrapped, compiled, in half precision, normed, pruned, with any kind of output."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from collecting import collect, split_of
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from oodbench.cache.entries import NoCache
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.network_parts import NetworkParts
from oodbench.classifiers.own_networks import as_usable
from oodbench.classifiers.training import Training, to_input, train
from oodbench.datasets.preparation import Preprocessing
from oodbench.errors import CellSkippedError, UsageError
from oodbench.evidence.collector import EvidenceCollector
from oodbench.evidence.parts import BASIC
from oodbench.gradients import forward, gradient_metrics
from oodbench.gradients.copying import copied
from oodbench.gradients.recording import owners
from oodbench.machine.progress import silent
from oodbench.suites.schema import Input

CLASSES = 3
FORWARD = ("logits", "features")


class Body(nn.Module):
    """A small network, whose output a subclass may change."""

    def __init__(self, outputs=CLASSES):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.hidden = nn.Linear(4, 6)
        self.head = nn.Linear(6, outputs)

    def features(self, x):
        return self.hidden(self.conv(x).relu().mean((2, 3))).relu()

    def forward(self, x):
        return self.returned(self.head(self.features(x)), x)

    def returned(self, z, x):
        return z


def body(kind=Body, outputs=CLASSES):
    torch.manual_seed(0)
    return kind(outputs).eval()


def returning(function, outputs=CLASSES):
    return body(type("Returning", (Body,), {"returned": lambda self, z, x: function(z, x)}), outputs)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8)).astype(np.uint8)


@pytest.fixture(scope="module")
def inputs(images):
    return torch.from_numpy(images).float() / 255


@pytest.fixture(scope="module")
def plain(images):
    return collect(body(), images)


# Outputs


class Tupled(NamedTuple):
    logits: torch.Tensor
    hidden: torch.Tensor


@dataclass
class Classed:
    loss: object
    logits: torch.Tensor


def hidden_states(x):
    return x.flatten(1)[:, :7]


OUTPUTS = {
    "dict": (lambda z, x: {"features": hidden_states(x), "logits": z}, "logits"),
    "dict with one matrix": (lambda z, x: {"map": x, "of mine": z, "n": 3}, "of mine"),
    "dict of kinds": (lambda z, x: {"pred": z.argmax(1), "y_hat": z, "probs": z.softmax(1)}, "y_hat"),
    "tuple": (lambda z, x: (z, hidden_states(x)), 0),
    "tuple, logits last": (lambda z, x: (hidden_states(x), z), 1),
    "list": (lambda z, x: [z], 0),
    "named tuple": (lambda z, x: Tupled(z, hidden_states(x)), "logits"),
    "dataclass": (lambda z, x: Classed(None, z), "logits"),
    "object": (lambda z, x: SimpleNamespace(output=z, more=None), "output"),
    "as a convolution": (lambda z, x: z[:, :, None, None], None),
    "with a step of time": (lambda z, x: z[:, None], None),
    "squeezed": (lambda z, x: z[:, :, None, None].squeeze(), None),
    "dict of a map": (lambda z, x: {"out": z[:, :, None, None]}, "out"),
}


@pytest.mark.parametrize(("function", "key"), OUTPUTS.values(), ids=OUTPUTS)
def test_logits_are_found_in_any_output_and_the_evidence_is_that_of_the_plain_network(
    images, inputs, plain, function, key
):
    network = returning(function)
    made, said = as_usable(network, inputs, CLASSES)
    assert (f"its output {key!r} is taken for the logits" in said) == (key is not None)
    assert said
    assert not network._forward_hooks
    assert (repr(made), list(made.state_dict())) == (repr(network), list(network.state_dict()))
    assert list(owners(made)) == ["conv", "hidden", "head"]
    found = collect(made, images, batch=2)
    for part in ("logits", "features", "confounding"):
        torch.testing.assert_close(getattr(found, part), getattr(plain, part))
    for name, values in plain.gradients.items():
        torch.testing.assert_close(found.gradients[name], values, rtol=1e-4, atol=1e-6)
    light = collect(made, images, parts=FORWARD, batch=4)
    torch.testing.assert_close(light.logits, plain.logits)
    torch.testing.assert_close(light.features, plain.features)


@pytest.mark.parametrize(
    "function",
    [
        lambda z, x: {"double": 2 * z, "logits": z},
        lambda z, x: (z, x),
        lambda z, x: Classed(None, z),
        lambda z, x: z[:, :, None, None],
        lambda z, x: z[:, :, None, None].squeeze(),
    ],
)
def test_a_network_with_other_outputs_is_taken_apart(inputs, function):
    made, _ = as_usable(returning(function), inputs, CLASSES)
    parts = NetworkParts(made, inputs[:1])
    with torch.no_grad():
        expected = made(inputs)
        torch.testing.assert_close(parts.encoder(inputs), made.features(inputs))
        torch.testing.assert_close(nn.Sequential(*parts.stages, parts.head)(inputs), expected)
        torch.testing.assert_close(nn.Sequential(*copied(nn.ModuleList(parts.stages)), parts.head)(inputs), expected)
        torch.testing.assert_close(parts.last_layer(parts.encoder(inputs)), expected)


def test_a_network_with_other_outputs_is_trained_as_the_plain_one(images):
    labels = torch.arange(len(images)) % CLASSES
    settings = Training(epochs=2, batch_size=4)

    def build(function):
        return lambda: as_usable(returning(function), torch.rand(2, 1, 8, 8), CLASSES)[0]

    (one, other) = (
        train(build(function), to_input(torch.from_numpy(images)).__getitem__, labels, settings, 0, silent)
        for function in (lambda z, x: z, lambda z, x: {"logits": z, "x": x})
    )
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor)


@pytest.mark.parametrize(
    "function", [lambda z, x: z, lambda z, x: z[:, 0], lambda z, x: z.squeeze(), lambda z, x: {"out": z[:, 0]}]
)
def test_one_logit_for_two_classes_has_the_gradients_of_the_sigmoid(inputs, images, function):
    made, said = as_usable(returning(function, 1), inputs, 2)
    assert "its one logit z becomes the logits (0, z) of the two classes" in said
    metrics = gradient_metrics(made, inputs)
    network = body(outputs=1).double()
    parameters = list(network.parameters())
    for i, x in enumerate(inputs.double()):
        z = network(x[None])[0, 0]
        loss = F.binary_cross_entropy_with_logits(z, (z.detach() > 0).double())
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        torch.testing.assert_close(metrics["l1"][i].double(), gradient.abs().sum(), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(metrics["max"][i].double(), gradient.max(), rtol=1e-4, atol=1e-7)
    features = made.features(inputs).detach()
    for parts in (BASIC, FORWARD):
        found = collect(made, images, parts=parts)
        torch.testing.assert_close(found.features, features)
        torch.testing.assert_close(
            found.logits[:, 1].double(), network(inputs.double())[:, 0].detach().to(torch.float64)
        )
        assert not found.logits[:, 0].any()
    parts = NetworkParts(made, inputs[:1])
    with torch.no_grad():
        torch.testing.assert_close(parts.last_layer(parts.encoder(inputs)), made(inputs))


def test_two_logits_of_which_one_is_always_0_have_their_own_layer(inputs):
    network = body(outputs=2)
    nn.init.zeros_(network.head.weight[0].data), nn.init.zeros_(network.head.bias.data)
    with forward(network, inputs) as run:
        torch.testing.assert_close(run.features, network.features(inputs).detach())


UNCLEAR = {
    "two matrices": (lambda z, x: (z, z + 1), r"returns a tuple \(0: \(2, 3\), 1: \(2, 3\)\) .* not clear which"),
    "others": (lambda z, x: {"a": hidden_states(x), "b": z[:, :2]}, r"a dict \(a: \(2, 7\), b: \(2, 2\)\)"),
    "no tensors": (lambda z, x: {"a": 3, "b": None}, r"a dict \(a: int, b: NoneType\)"),
    "segmentation": (
        lambda z, x: z[:, :, None, None].expand(-1, -1, 4, 4),
        r"\(2, 3, 4, 4\) for 2 inputs, a prediction for each position.*expected logits \(2, 3\)",
    ),
    "segmentation as torchvision's": (
        lambda z, x: {"out": z[:, :, None, None].expand(-1, -1, 4, 4)},
        r"a dict \(out: \(2, 3, 4, 4\)\)",
    ),
    "classes": (lambda z, x: z.argmax(dim=1), r"returns \(2,\) for 2 inputs of torch.int64"),
    "one logit for three": (lambda z, x: z[:, 0], r"returns \(2,\) for 2 inputs; expected logits \(2, 3\)"),
    "nothing": (lambda z, x: None, r"returns a NoneType \(nothing\)"),
}


@pytest.mark.parametrize(("function", "message"), UNCLEAR.values(), ids=UNCLEAR)
def test_outputs_that_are_unclear_are_told_with_keys_and_shapes(inputs, function, message):
    with pytest.raises(UsageError, match=message):
        as_usable(returning(function), inputs, CLASSES)


# Wrappers


class Compiled(Body):
    @torch.compile
    def forward(self, x):
        return self.head(self.features(x))


def compiled_in_place():
    network = body()
    network.compile()
    return network


def compiled_inside():
    network = body()
    network.conv = torch.compile(network.conv)
    return network


def compiled_forward():
    network = body()
    network.forward = torch.compile(network.forward)
    return network


def compiled_and_parallel():
    return nn.DataParallel(torch.compile(nn.DataParallel(body())))


WRAPPERS = {
    "compiled": (lambda: torch.compile(body()), ["the wrapper OptimizedModule was taken off"]),
    "in place": (compiled_in_place, ["compiled modules run as they were before torch.compile"]),
    "inside": (compiled_inside, ["compiled modules run as they were before torch.compile"]),
    "forward": (compiled_forward, ["compiled modules run as they were before torch.compile"]),
    "decorated": (lambda: body(Compiled), ["compiled modules run as they were before torch.compile"]),
    "parallel": (lambda: nn.DataParallel(body()), ["the wrapper DataParallel was taken off"]),
    "averaged": (lambda: AveragedModel(body()), ["the wrapper AveragedModel was taken off"]),
    "all": (
        compiled_and_parallel,
        ["the wrapper DataParallel was taken off", "the wrapper OptimizedModule was taken off",
         "the wrapper DataParallel was taken off"],
    ),
    "double": (lambda: body().double(), ["6 of its tensors were converted from float64 to float32"]),
    "none": (body, []),
}  # fmt: skip


@pytest.mark.parametrize(("wrap", "expected"), WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_are_taken_off_and_the_evidence_is_that_of_the_plain_network(
    images, inputs, plain, monkeypatch, wrap, expected
):
    network = wrap()

    def never(*_, **__):
        raise AssertionError("it was compiled")

    monkeypatch.setattr("torch._dynamo.convert_frame.compile_frame", never, raising=False)
    before = [id(module) for module in network.modules()]
    made, said = as_usable(network, inputs, CLASSES)
    assert said == expected
    assert [id(module) for module in network.modules()] == before
    assert list(made.state_dict()) == list(body().state_dict())
    assert list(owners(made)) == ["conv", "hidden", "head"]
    found = collect(made, images)
    torch.testing.assert_close(found.logits, plain.logits)
    torch.testing.assert_close(found.features, plain.features)
    for name, values in plain.gradients.items():
        torch.testing.assert_close(found.gradients[name], values, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        parts = NetworkParts(made, inputs[:1])
        torch.testing.assert_close(nn.Sequential(*parts.stages, parts.head)(inputs), plain.logits)


def test_distributed_data_parallel_is_taken_off(tmp_path, inputs):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        inner = body()
        made, said = as_usable(nn.parallel.DistributedDataParallel(inner), inputs, CLASSES)
        assert made is inner
        assert said == ["the wrapper DistributedDataParallel was taken off"]
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_in_a_copy(inputs, dtype):
    network = body().to(dtype)
    made, said = as_usable(network, inputs, CLASSES)
    assert said == [f"6 of its tensors were converted from {str(dtype).removeprefix('torch.')} to float32"]
    assert network.conv.weight.dtype == dtype
    assert made(inputs).dtype == torch.float32
    torch.testing.assert_close(made.conv.weight, network.conv.weight.float())


def test_a_network_that_insists_on_half_precision_says_so(inputs):
    class Half(Body):
        def forward(self, x):
            return super().forward(x.half())

    with pytest.raises(UsageError, match=r"raised RuntimeError: .* after it was changed \(6 of its tensors .*give it"):
        as_usable(body(Half).half(), inputs, CLASSES)


def test_weights_without_values_are_told(inputs):
    with torch.device("meta"):
        network = Body()
    with pytest.raises(UsageError, match="weights on the meta device, which have no values"):
        as_usable(network, inputs, CLASSES)


def test_the_mode_and_the_random_numbers_are_left_as_they_were(inputs):
    class Drawing(Body):
        def forward(self, x):
            torch.rand(1)
            return super().forward(x)

    network = body(Drawing)
    network.train()
    network.conv.eval()
    torch.manual_seed(1)
    as_usable(network, inputs, CLASSES)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert (network.training, network.conv.training, network.head.training) == (True, False, True)


def test_a_traced_network_works_without_features(inputs, images, plain):
    traced = torch.jit.trace(body(), inputs[:2])
    made, said = as_usable(traced, inputs, CLASSES)
    assert said == []
    found = collect(made, images)
    torch.testing.assert_close(found.logits, plain.logits)
    torch.testing.assert_close(found.gradients["l1"], plain.gradients["l1"], rtol=1e-4, atol=1e-6)
    assert "features" not in found.parts
    network = body()
    network.hidden = torch.jit.trace(network.hidden, torch.rand(2, 4))
    found = collect(network, images)
    torch.testing.assert_close(found.gradients["l1"], plain.gradients["l1"], rtol=1e-4, atol=1e-6)
    mapped = torch.jit.trace(returning(lambda z, x: {"logits": z}), inputs[:2], strict=False)
    with pytest.raises(UsageError, match="is a ScriptModule that does not return logits"):
        as_usable(mapped, inputs, CLASSES)


# Weights with a norm or a mask


def pruned(network):
    for layer in (network.conv, network.head):
        prune.random_unstructured(layer, "weight", amount=0.4)
    prune.ln_structured(network.hidden, "weight", amount=0.3, n=2, dim=0)
    return network


def normed(norm):
    def apply(network):
        for name in ("conv", "hidden", "head"):
            setattr(network, name, norm(getattr(network, name)))
        return network

    return apply


NORMED = {
    "pruned": pruned,
    "pruned twice": lambda network: pruned(pruned(network)),
    "weight norm": normed(nn.utils.weight_norm),
    "spectral norm": normed(nn.utils.spectral_norm),
    "new weight norm": normed(parametrizations.weight_norm),
    "new spectral norm": normed(parametrizations.spectral_norm),
    "orthogonal": normed(parametrizations.orthogonal),
}


@pytest.fixture(params=NORMED)
def special(request):
    network = NORMED[request.param](body()).train()
    for _ in range(20):  # by which the spectral norm finds singular vectors
        network(torch.rand(2, 1, 8, 8))
    return network.eval()


def test_gradients_of_normed_and_pruned_layers_are_exact(special, inputs):
    """One float64 backward pass for each sample, by the parameters that the network has."""
    special(inputs).sum().backward()
    special.zero_grad()
    made, said = as_usable(special, inputs, CLASSES)
    assert said == []
    found = gradient_metrics(made, inputs)
    exact = copied(special).double()
    for i, x in enumerate(inputs.double()):
        z = exact(x[None])
        gradients = torch.autograd.grad(F.cross_entropy(z, z.argmax(1)), list(exact.parameters()), allow_unused=True)
        assert all(gradient is not None for gradient in gradients)
        g = torch.cat([gradient.flatten() for gradient in gradients])
        centred = g - g.mean()
        expected = {
            "l1": g.abs().sum(), "l2": g.norm(), "min": g.min(), "max": g.max(), "mean": g.mean(),
            "std": g.std(correction=0), "skewness": (centred**3).mean() / g.std(correction=0) ** 3,
        }  # fmt: skip
        for metric, value in expected.items():
            torch.testing.assert_close(found[metric][i].double(), value, rtol=2e-4, atol=1e-6)


def test_normed_and_pruned_networks_are_copied_whatever_was_done_with_them(special, inputs, images):
    special(inputs).sum().backward()
    before = {name: parameter.detach().clone() for name, parameter in special.named_parameters()}
    with torch.no_grad():
        expected = special(inputs)
    special(inputs)
    copy_ = copied(special)
    with torch.no_grad():
        torch.testing.assert_close(copy_(inputs), expected)
        for parameter in copy_.parameters():
            parameter.mul_(2)
        torch.testing.assert_close(special(inputs), expected)
    for name, parameter in special.named_parameters():
        assert torch.equal(parameter, before[name])
    copied(copy_)
    special(inputs)
    for parts in (BASIC, FORWARD):
        found = collect(special, images, parts=parts)
        torch.testing.assert_close(found.logits, expected)
        torch.testing.assert_close(found.features, special.features(inputs).detach())
    special(inputs)
    split = NetworkParts(copied(special), inputs[:1])
    with torch.no_grad():
        torch.testing.assert_close(nn.Sequential(*split.stages, split.head)(inputs), expected)
        torch.testing.assert_close(split.last_layer(split.encoder(inputs)), expected)


def test_a_copy_of_what_a_network_remembers(inputs):
    class Remembering(Body):
        def forward(self, x):
            z = super().forward(x)
            self.last, self.all = z, {"all": [(z, x)]}
            return z

    network = body(Remembering)
    z = network(inputs)
    with pytest.raises(RuntimeError):
        copy.deepcopy(network)
    again = copied(network)
    assert again.last is again.all["all"][0][0]
    assert again.last is not z
    assert again.last.grad_fn is None
    assert network.last is z
    assert z.grad_fn is not None


# Networks without features


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Conv2d(4, CLASSES, 1)

    def forward(self, x):
        return F.adaptive_avg_pool2d(self.head(self.conv(x).relu()), 1)


def test_a_convolutional_head_has_no_features_and_all_else(inputs, images):
    torch.manual_seed(0)
    network = Convolutional().eval()
    made, said = as_usable(network, inputs, CLASSES)
    assert said == ["its logits are brought to the shape (N, C)"]
    full, light = (collect(made, images, parts=parts, batch=4) for parts in (BASIC, FORWARD))
    assert (set(full.parts), set(light.parts)) == ({"logits", "gradients", "confounding"}, {"logits"})
    expected = network(inputs).flatten(1).detach()
    torch.testing.assert_close(full.logits, expected)
    torch.testing.assert_close(light.logits, expected)
    with forward(made, inputs) as run:
        assert not run.has_features
        with pytest.raises(UsageError, match="no Linear layer with 3 outputs, so its penultimate features"):
            _ = run.features
    parts = NetworkParts(made, inputs[:1])
    assert not parts.has_features
    with pytest.raises(CellSkippedError, match="no Linear layer with 3 outputs"):
        _ = parts.encoder
    with torch.no_grad():
        torch.testing.assert_close(nn.Sequential(*parts.stages, parts.head)(inputs), expected)


def test_only_what_needs_features_is_skipped_where_there_are_none(inputs, images):
    made, _ = as_usable(Convolutional().eval(), inputs, CLASSES)

    preprocessing = Preprocessing(Input(channels=images.shape[1], size=images.shape[2]))
    classifier = Classifier("convolutional", made, "0" * 64, preprocessing)
    collector = EvidenceCollector(classifier, NoCache(), images[0], silent)
    for use in ("train", "test"):
        split = split_of(images, use)
        collector.collect(split, BASIC)
        assert set(collector.evidence(split, ("logits",)).parts) == {"logits"}
        assert set(collector.evidence(split, ("gradients", "confounding")).parts) == set(BASIC) - {"features"}
        with pytest.raises(CellSkippedError, match="it needs penultimate features, and the classifier has no Linear"):
            collector.evidence(split, ("features",))


def test_a_named_layer_gives_features_to_a_network_that_does_not_end_in_one(inputs, images):
    class Split(Body):
        def forward(self, x):
            return super().forward(x)[:, 1:]

    network = body(Split, CLASSES + 1)
    for parts in (BASIC, FORWARD):
        assert "features" not in collect(network, images, parts=parts).parts
        named = collect(network, images, parts=parts, penultimate="head")
        torch.testing.assert_close(named.features, network.features(inputs).detach())
