"""Checkpoints as people have them: what is loaded, what is said of it, and that nothing in them is run."""

import argparse
import collections
import enum
import os
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from oodbench.classifiers.weights import load_weights, weights_file
from oodbench.errors import MissingPrerequisiteError, UsageError

PUBLISHED = pathlib.Path(__file__).parents[2] / "leaderboards" / "cifar10"


class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.bn(self.conv(x)).mean((2, 3)))


class Outer(nn.Module):
    """A factory's own wrapper."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)


class Config(dict):
    """A dict with attributes, as many configuration libraries have."""


class Options:
    class Mode(enum.Enum):
        FAST = 1


def made(seed):
    torch.manual_seed(seed)
    network = Net()
    network.bn.running_mean.normal_()
    return network


@pytest.fixture
def state():
    return made(1).state_dict()


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def scrambled(state):
    return {name: tensor + 1 for name, tensor in state.items()}


def assert_loaded(network, state, prefix=""):
    own = network.state_dict()
    for name, tensor in state.items():
        torch.testing.assert_close(own[prefix + name], tensor, rtol=0, atol=0, check_dtype=False)


# Wrappers and prefixes

WRAPPED = {
    "plain": (lambda s: s, []),
    "with scalars beside the weights": (lambda s: {**s, "epoch": 3, "best": 0.5}, []),
    "lightning": (
        lambda s: {
            "state_dict": prefixed("model.", s),
            "hyper_parameters": argparse.Namespace(lr=0.1),
            "callbacks": collections.defaultdict(list, {"a": [1]}),
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        },
        ["the wrapper 'state_dict'", "the prefix 'model.'"],
    ),
    "model": (lambda s: {"model": s, "epoch": 1}, ["the wrapper 'model'"]),
    "model_state_dict": (lambda s: {"model_state_dict": s}, ["the wrapper 'model_state_dict'"]),
    "any other key": (lambda s: {"our weights": s}, ["the wrapper 'our weights'"]),
    "three deep": (lambda s: {"a": {"b": s}}, ["the wrapper 'a.b'"]),
    "an average alone": (lambda s: {"state_dict_ema": s}, ["the wrapper 'state_dict_ema'"]),
    "module": (lambda s: prefixed("module.", s), ["the prefix 'module.'"]),
    "compiled": (lambda s: prefixed("_orig_mod.", s), ["the prefix '_orig_mod.'"]),
    "compiled and parallel": (lambda s: prefixed("module._orig_mod.", s), ["the prefix 'module._orig_mod.'"]),
    "another prefix": (lambda s: prefixed("student.backbone.", s), ["the prefix 'student.backbone.'"]),
    "compiled in part": (
        lambda s: {name.replace("conv.", "conv._orig_mod."): tensor for name, tensor in s.items()},
        ["'_orig_mod.' within names"],
    ),
    "averaged": (
        lambda s: AveragedModel(made(1)).state_dict(),
        ["the prefix 'module.'", "left out: n_averaged, which evaluation does not use"],
    ),
    "without num_batches_tracked": (lambda s: {n: t for n, t in s.items() if "num_batches" not in n}, []),
    "parameters": (lambda s: {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in s.items()}, []),
    "double": (lambda s: made(1).double().state_dict(), ["8 tensors converted from float64 to float32"]),
}


@pytest.mark.parametrize("kind", ["zip", "legacy", "python"])
@pytest.mark.parametrize(("wrap", "said"), WRAPPED.values(), ids=WRAPPED)
def test_a_checkpoint_is_loaded_and_what_is_taken_off_is_said(tmp_path, state, wrap, said, kind):
    network, checkpoint = made(2), wrap(state)
    if kind != "python":
        torch.save(checkpoint, tmp_path / "net.ckpt", _use_new_zipfile_serialization=kind == "zip")
        checkpoint = tmp_path / "net.ckpt"
    assert load_weights(network, checkpoint, 3) == said
    assert_loaded(network, state)


@pytest.mark.parametrize("name", ["n.pt", "n.pth", "n.th", "n.ckpt", "n.pth.tar", "n.bin", "n", "n.safetensors"])
def test_the_content_of_a_file_tells_its_format_and_not_its_ending(tmp_path, state, name):
    torch.save(state, tmp_path / name)
    network = made(2)
    assert load_weights(network, tmp_path / name, 3) == []
    assert_loaded(network, state)
    save_file(state, tmp_path / name)
    network = made(2)
    assert load_weights(network, tmp_path / name, 3) == []
    assert_loaded(network, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_and_said(tmp_path, state, dtype):
    half = made(1).to(dtype).state_dict()
    torch.save(half, tmp_path / "net.pt")
    network = made(2)
    said = load_weights(network, tmp_path / "net.pt", 3)
    assert said == [f"8 tensors converted from {str(dtype).removeprefix('torch.')} to float32"]
    assert_loaded(network, half)
    assert network.conv.weight.dtype == torch.float32


def test_a_prefix_that_the_network_has_and_the_file_has_not(state):
    network = Outer()
    assert load_weights(network, state, 3) == ["the network's own prefix 'net.', which they lack"]
    assert_loaded(network, state, "net.")
    network = Outer()
    said = load_weights(network, prefixed("module.", state), 3)
    assert said == ["the prefix 'module.'", "the network's own prefix 'net.', which they lack"]
    assert_loaded(network, state, "net.")


def test_of_model_and_average_the_model_is_taken_and_the_other_one_is_named(tmp_path, state):
    average = scrambled(state)
    file = tmp_path / "net.ckpt"
    torch.save({"state_dict_ema": average, "state_dict": state, "again": state}, file)
    network = made(2)
    said = load_weights(network, file, 3)
    assert said == ["the wrapper 'state_dict'", f"not taken: state_dict_ema, which fits, too; give weights = "
                    f"'{file}#state_dict_ema' for it"]  # fmt: skip
    assert_loaded(network, state)
    found, key = weights_file(f"{file}#state_dict_ema", 0)
    assert load_weights(network, found, 3, key=key) == ["the wrapper 'state_dict_ema'"]
    assert_loaded(network, average)
    with pytest.raises(UsageError, match="nothing under the key 'emma'; expected one of: state_dict_ema, state_dict"):
        load_weights(network, file, 3, key="emma")


@pytest.mark.parametrize("key", ["net_ema", "ema", "swa.module", "teacher"])
def test_an_average_is_not_preferred_to_anything_else(state, key):
    network = made(2)
    checkpoint = {"ours": state}
    load_weights(network, {key: scrambled(state), **checkpoint}, 3)
    assert_loaded(network, state)


def test_modules_see_the_versions_that_a_file_has_of_them(tmp_path, state):
    class Versioned(Net):
        _version = 5
        seen = None

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others):
            self.seen = local_metadata.get("version")
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)

    older = made(1)
    older._version = 2
    torch.save({"model": nn.DataParallel(older).state_dict()}, tmp_path / "net.pt")
    save_file(state, tmp_path / "net.safetensors")
    for name, version in (("net.pt", 2), ("net.safetensors", 5)):
        network = Versioned()
        load_weights(network, tmp_path / name, 3)
        assert network.seen == version


def test_a_key_may_be_a_prefix_of_names(state):
    both = prefixed("teacher.", scrambled(state)) | prefixed("student.", state)
    network = made(2)
    with pytest.raises(UsageError, match=r"not those of this classifier: .* they have teacher.conv.weight"):
        load_weights(network, both, 3)
    load_weights(network, both, 3, key="student")
    assert_loaded(network, state)


def test_a_file_may_have_a_hash_in_its_name_and_a_seed(tmp_path):
    for name in ("net#1.pt", "net.pt", "of-3.pt"):
        (tmp_path / name).touch()
    assert weights_file(f"{tmp_path}/net#1.pt", 0) == (tmp_path / "net#1.pt", None)
    assert weights_file(f"{tmp_path}/net.pt#ema", 0) == (tmp_path / "net.pt", "ema")
    assert weights_file(f"{tmp_path}/of-{{seed}}.pt#ema", 3) == (tmp_path / "of-3.pt", "ema")
    with pytest.raises(MissingPrerequisiteError, match=r"looked for the file .*none\.pt\.$"):
        weights_file(f"{tmp_path}/none.pt#ema", 0)


def test_weights_of_unused_modules_may_be_there_and_no_others(state):
    more = prefixed("module.", {**state, "aux.conv.weight": torch.zeros(2), "aux.fc.weight": torch.zeros(2)})
    network = made(2)
    said = load_weights(network, more, 3, unused=["aux"])
    assert said == [
        "the prefix 'module.'",
        "left out: module.aux.conv.weight, module.aux.fc.weight, which evaluation does not use",
    ]
    assert_loaded(network, state)
    for unused in ([], ["au"], ["aux.conv"]):
        with pytest.raises(UsageError, match="aux"):
            load_weights(network, more, 3, unused=unused)


# Shared weights


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(self.one(x))


def test_shared_weights_may_be_there_once_and_must_not_contradict():
    state = Tied().state_dict()
    once = {name: tensor for name, tensor in state.items() if name != "other.weight"}
    network = Tied()
    assert load_weights(network, once, 3) == []
    assert_loaded(network, state)
    with pytest.raises(UsageError, match=r"different values for other.weight, which the network shares"):
        load_weights(network, {**state, "other.weight": state["one.weight"] + 1}, 3)
    with pytest.raises(UsageError, match=r"they lack one.weight, other.weight"):
        load_weights(network, {name: once[name] for name in ("one.bias", "other.bias")}, 3)


# Networks that rename older weights


def test_weights_that_the_network_itself_renames_are_loaded():
    older = nn.utils.weight_norm(nn.Linear(4, 3))
    newer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    x = torch.randn(5, 4)
    load_weights(newer, {"state_dict": older.state_dict()}, 3)
    torch.testing.assert_close(newer(x), older(x))


# What does not fit

MISFITS = {
    "classes": (
        lambda s: {"net": {**s, "head.weight": torch.zeros(5, 4), "head.bias": torch.zeros(5)}},
        r"under 'net' have head.weight of shape \(5, 4\); expected \(3, 4\) \(and 1 more differ\), for 3 known classes",
    ),
    "lacking": (lambda s: {n: s[n] for n in s if "bn" not in n}, "lack bn.weight, bn.bias, bn.running_mean and "),
    "too many": (lambda s: {**s, "fc.bias": s["head.bias"]}, "they have fc.bias, which it has not"),
    "others": (
        lambda s: {"a": prefixed("x.", {n.replace("head", "fc"): t for n, t in s.items()})},
        r"under 'a' without the prefix 'x.' .*they lack head.weight, head.bias and they have x.fc.weight, x.fc.bias,",
    ),
    "not a number": (lambda s: {**s, "head.bias": torch.full((3,), torch.nan)}, "NaN or infinite values in head.bias"),
    "infinite in float32": (
        lambda s: {**s, "head.bias": torch.full((3,), 1e300, dtype=torch.float64)},
        "NaN or infinite values in head.bias",
    ),
    "quantised": (
        lambda s: {**s, "head.weight": torch.zeros(3, 4, dtype=torch.int8)},
        "have head.weight of torch.int8; expected floating-point numbers",
    ),
    "no tensors": (lambda s: {"epoch": 3, "state_dict": None}, "hold no tensors by name, but epoch, state_dict; exp"),
    "whole network inside": (lambda s: {"model": made(1)}, "hold no tensors by name, but "),
}  # fmt: skip


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize(("wrap", "message"), MISFITS.values(), ids=MISFITS)
def test_weights_that_do_not_fit_are_refused_in_a_sentence_and_change_nothing(
    tmp_path, state, wrap, message, from_file
):
    weights = wrap(state)
    if from_file:
        torch.save(weights, tmp_path / "net.pt")
        weights = tmp_path / "net.pt"
    network = made(2)
    with pytest.raises(UsageError, match=message) as error:
        load_weights(network, weights, 3)
    said = str(error.value)
    assert said.startswith(f"the weights {tmp_path / 'net.pt' if from_file else 'given'} ")
    assert "\n" not in said
    assert "tensor(" not in said
    assert len(said) < 400
    assert_loaded(network, made(2).state_dict())


def test_a_mask_may_have_infinite_values_where_the_networks_own_has():
    network = nn.Linear(3, 3)
    network.register_buffer("mask", torch.zeros(3).fill_(-torch.inf))
    assert load_weights(network, {name: t.clone() for name, t in network.state_dict().items()}, 3) == []


# Objects beside the weights


def test_objects_beside_the_weights_are_never_made_and_do_no_harm(tmp_path, state, monkeypatch):
    module = type(sys)("a_module_of_theirs")
    exec("class Thing: pass\nclass Items(list): pass", vars(module))
    monkeypatch.setitem(sys.modules, "a_module_of_theirs", module)
    thing = module.Thing()
    thing.value = 3
    beside = {
        "args": argparse.Namespace(lr=0.1, folder=pathlib.Path("x")),
        "best_acc": np.float64(0.3),
        "array": np.ones(3),
        "mode": Options.Mode.FAST,
        "config": Config(a=1, b=Config(c=2)),
        "one item": Config(a=1),
        "meter": collections.deque([1, 2, 3], maxlen=5),
        "items": module.Items([1, 2]),
        "thing": thing,
        "class": argparse.Namespace,
        "set": {1, frozenset([2])},
        "bytes": b"abc",
        "rng": (torch.get_rng_state(), np.random.get_state()),
        "large": 10**30,
    }
    for is_zip in (True, False):
        torch.save({**beside, "net": state}, tmp_path / f"{is_zip}.pt", _use_new_zipfile_serialization=is_zip)
    monkeypatch.delitem(sys.modules, "a_module_of_theirs")
    before = torch.serialization.get_safe_globals()
    for is_zip in (True, False):
        network = made(2)
        assert load_weights(network, tmp_path / f"{is_zip}.pt", 3) == ["the wrapper 'net'"]
        assert_loaded(network, state)
    assert "a_module_of_theirs" not in sys.modules
    assert set(map(id, torch.serialization.get_safe_globals())) == set(map(id, before))


class Attack:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def by_a_module_that_torch_refuses(file):
    return Attack(os.system, f"touch {file}")


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(
    "attack",
    [
        by_a_module_that_torch_refuses,
        lambda file: Attack(subprocess.check_output, ["touch", file]),
        lambda file: Attack(exec, f"open({file!r}, 'w').close()"),
        lambda file: Attack(pathlib.Path.touch, pathlib.Path(file)),
    ],
)
def test_code_in_a_pickle_is_never_run(tmp_path, state, attack, nested, is_zip):
    target = tmp_path / "attacked"
    bad = attack(str(target))
    content = {"state_dict": state, "x": [bad]} if nested else bad
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=is_zip)
    network = made(2)
    if nested and attack is not by_a_module_that_torch_refuses:
        assert load_weights(network, tmp_path / "net.pt", 3) == ["the wrapper 'state_dict'"]
        assert_loaded(network, state)
    else:
        with pytest.raises(UsageError, match=r"a pickled \S+, which only its own code can read; save the tensors"):
            load_weights(network, tmp_path / "net.pt", 3)
    assert not target.exists()


def scripted(file):
    torch.jit.trace(made(1), torch.zeros(1, 1, 4, 4)).save(file)


UNREADABLE = {
    "whole network": (lambda f: torch.save(made(1), f), r"a pickled \S*Net, which only its own code can read"),
    "whole network, legacy": (
        lambda f: torch.save(made(1), f, _use_new_zipfile_serialization=False),
        r"hold a pickled torch.nn.modules.\S+, which only its own code can read; save the tensors alone",
    ),
    "torchscript": (scripted, "are a TorchScript archive, which has its own code; save the tensors alone"),
    "list": (lambda f: torch.save([torch.zeros(2)], f), "are a list; expected a state dict, tensors by name"),
    "another protocol": (lambda f: torch.save({"a": torch.zeros(1)}, f, pickle_protocol=4), "another protocol than 2"),
    "text": (lambda f: f.write_text("weights of mine"), "cannot be read; expected a safetensors file, or tensors by"),
    "nothing": (lambda f: f.touch(), "cannot be read; expected a safetensors file, or tensors by name"),
    "cut off": (
        lambda f: (torch.save(made(1).state_dict(), f), f.write_bytes(f.read_bytes()[:900])),
        "cannot be read; expected",
    ),
    "cut off safetensors": (
        lambda f: (save_file(made(1).state_dict(), f), f.write_bytes(f.read_bytes()[:-30])),
        r"cannot be read; expected a safetensors file \(",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("save", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_told_in_one_sentence(tmp_path, save, message):
    save(tmp_path / "net.bin")
    with pytest.raises(UsageError, match=message) as error:
        load_weights(made(2), tmp_path / "net.bin", 3)
    assert "\n" not in str(error.value)


# A published file


def test_the_published_resnet20_is_loaded_as_it_is(real_data):
    resnet20 = runpy.run_path(str(PUBLISHED / "resnet20.py"))["resnet20"]
    network = resnet20()
    file = real_data / "cifar" / "models" / "resnet20-12fca82f.th"
    assert load_weights(network, file, 10) == ["the wrapper 'state_dict'", "the prefix 'module.'"]
    assert network.bn1.running_mean.abs().sum() > 0
    with pytest.raises(UsageError, match=r"linear.weight of shape \(10, 64\); expected \(7, 64\)"):
        load_weights(resnet20(7), file, 7)
