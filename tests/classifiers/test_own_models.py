"""A user's own classifier: code, weights, seeds, the penultimate layer, and what is said of each mistake."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from collecting import collect
from drawing import draw
from safetensors.torch import save_file
from torch import nn

import oodbench
from oodbench.cache.tensor_files import content_sha256
from oodbench.classifiers.lookup import find_classifier
from oodbench.classifiers.network_parts import NetworkParts
from oodbench.classifiers.weights import load_weights
from oodbench.cli import run_command_line
from oodbench.errors import CellSkippedError, MissingPrerequisiteError, OodbenchError, UsageError
from oodbench.evidence.batches import BATCH, batch_of
from oodbench.gradients import forward
from oodbench.machine.device import Computing
from oodbench.suites.reading import read_suite

CODE = (Path(__file__).parent / "own_models" / "mine.py").read_text(encoding="utf-8")
SUITE = """\
name = "mine"
version = 1
classifier = "mine:build"
known = "npz:known.npz"

[unknown]
noise = { group = "far", n = 40 }

[input]
size = 8

[training]
epochs = 2
"""
TRUSTED = {"trust_model": True}  # its weights are random
HELD_OUT = '{ adapter = "npz", path = "known.npz", name = "npz", split = "test" }'
CLASSES = 3


class Net(nn.Module):
    """The network of CODE."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(3)
    return Net().state_dict()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with data, code and a suite; commands are run in another one."""
    random = np.random.default_rng(0)
    labels = np.arange(180) % CLASSES
    images = (random.integers(0, 200, (180, 8, 8)) + 25 * labels[:, None, None]).astype(np.uint8)
    mine = tmp_path / "mine"
    mine.mkdir()
    np.savez(mine / "known.npz", images=images, labels=labels)
    (mine / "mine.py").write_text(CODE)
    (mine / "mine.toml").write_text(SUITE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return mine


def suite_with(folder, *lines, held_out=False, **tables):
    """The suite with lines before its tables, and lines in them; with weights, all of its known set is held out."""
    text = SUITE.replace("\n[unknown]", "".join(f"{line}\n" for line in lines) + "\n[unknown]")
    if held_out or any(line.startswith("weights") for line in lines):
        text = text.replace('"npz:known.npz"', HELD_OUT)
    for table, added in tables.items():
        text = text.replace(f"[{table}]\n", f"[{table}]\n{added}\n")
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def run(suite, tmp_path, detectors=("entropy",), seeds=None, **options):
    return oodbench.run(suite, detectors, ["unknown-unknowns"], seeds, out=tmp_path / "out", **options | TRUSTED)


def exit_status(*arguments):
    with pytest.raises(SystemExit) as error:
        run_command_line(list(map(str, arguments)))
    return error.value.code


# With weights


def test_a_network_with_weights_is_used_as_it_is(folder, tmp_path, weights):
    save_file(weights, folder / "net.safetensors")
    suite = suite_with(folder, 'weights = "net.safetensors"', input="mean = [0.4]\nstd = [0.3]")
    (record,) = run(suite, tmp_path)
    network = Net()
    network.load_state_dict(weights)
    loaded = read_suite(suite)
    test = draw(loaded, tmp_path).test
    logits = network((torch.from_numpy(test.images) / 255 - 0.4) / 0.3)
    accuracy = (logits.argmax(dim=1).numpy() == test.labels).mean()
    assert record.status == "ok"
    assert record.classifier.name == "mine:build"
    assert record.classifier.accuracy == pytest.approx(accuracy)
    assert record.classifier.weights_sha256 == content_sha256(weights)
    assert record.seed == 0


@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_a_state_dict_of_torch_gives_the_same_record(folder, tmp_path, weights, ending):
    save_file(weights, folder / "net.safetensors")
    torch.save(weights, folder / f"net{ending}")
    (one,) = run(suite_with(folder, 'weights = "net.safetensors"'), tmp_path)
    (other,) = run(suite_with(folder, f'weights = "net{ending}"'), tmp_path)
    assert (one.cell_id, one.results) == (other.cell_id, other.results)


def test_the_command_line_overrides_the_suite_and_its_paths_start_here(folder, tmp_path, weights, capsys):
    save_file(weights, "here.safetensors")
    Path("other.py").write_text(CODE)
    suite = suite_with(folder, 'weights = "not there.safetensors"')
    options = (
        "--classifier",
        "other.py:Net",
        "--weights",
        "here.safetensors",
        "--penultimate",
        "head",
        "--trust-model",
    )
    command = (
        "run",
        "-s",
        suite,
        "-d",
        "entropy",
        "-p",
        "known",
        "--out",
        tmp_path / "out",
        *options,
        "--trust-model",
        "--json",
    )
    assert exit_status(*command) == 0
    assert '"name": "other.py:Net"' in capsys.readouterr().out


def test_another_classifier_comes_without_the_suites_weights(folder):
    suite = read_suite(suite_with(folder, 'weights = "net.safetensors"', 'penultimate = "head"'))
    other = suite.with_classifier("cnn", None, None).suite
    assert (other.classifier, other.weights, other.penultimate) == ("cnn", None, None)
    same = suite.with_classifier(None, "w.pt", None).suite
    assert (same.classifier, same.weights, same.penultimate) == ("mine:build", "w.pt", "head")
    assert suite.with_classifier(None, None, None) == suite


# Seeds


def test_weights_of_one_training_are_one_seed(folder, tmp_path, weights):
    save_file(weights, folder / "net.safetensors")
    suite = suite_with(folder, 'weights = "net.safetensors"')
    assert [record.seed for record in run(suite, tmp_path)] == [0]
    assert [record.seed for record in run(suite, tmp_path, seeds=[7])] == [7]
    with pytest.raises(UsageError, match=r"of one training, and 2 seeds are asked for; write \{seed\}"):
        run(suite, tmp_path, seeds=[0, 1])
    with pytest.raises(UsageError, match=r"mine.toml, line 5, key seeds: .*one training, and there are 2 seeds"):
        run(suite_with(folder, "seeds = [0, 1]", 'weights = "net.safetensors"'), tmp_path)
    several = suite_with(folder, "seeds = [3, 4]", held_out=True)
    assert [record.seed for record in run(several, tmp_path, weights=folder / "net.safetensors")] == [0]


def test_a_file_for_each_seed(folder, tmp_path, weights):
    save_file(weights, folder / "net-0.safetensors")
    save_file({name: -tensor for name, tensor in weights.items()}, folder / "net-5.safetensors")
    suite = suite_with(folder, "seeds = [0, 5]", 'weights = "net-{seed}.safetensors"')
    hashes = {record.seed: record.classifier.weights_sha256 for record in run(suite, tmp_path)}
    assert hashes[0] == content_sha256(weights) != hashes[5]
    with pytest.raises(MissingPrerequisiteError, match=r"looked for the file .*net-1\.safetensors\.$"):
        run(suite, tmp_path, seeds=[0, 1])


# What is wrong with the weights


def save_whole(file, weights):
    torch.save(Net(), file)


def save_nested(file, weights):
    torch.save({"epoch": 3, "state_dict": list(weights.values())}, file)


def save_list(file, weights):
    torch.save(list(weights.values()), file)


def save_text(file, weights):
    file.write_text("weights")


def save_more_classes(file, weights):
    save_file(weights | {"head.weight": torch.zeros(5, 12)}, file)


def save_others(file, weights):
    renamed = {name.replace("body", "trunk").replace("head", "fc"): tensor for name, tensor in weights.items()}
    save_file(renamed, file)


def save_nan(file, weights):
    save_file(weights | {"head.bias": torch.full((CLASSES,), torch.nan)}, file)


BROKEN = {
    "whole network": (save_whole, "net.pt", r"net.pt are a pickled \S+Net, which only its own code can read; save the"),
    "nested": (save_nested, "net.pt", r"net.pt hold no tensors by name, but epoch, state_dict; expected a state dict"),
    "list": (save_list, "net.pth", r"net.pth are a list; expected a state dict"),
    "text as .pt": (save_text, "net.pt", "net.pt cannot be read; expected a safetensors file, or tensors by name as"),
    "text as .safetensors": (save_text, "net.safetensors", "cannot be read; expected a safetensors file, or tensors"),
    "text as anything": (save_text, "net.pkl", "net.pkl cannot be read; expected a safetensors file, or tensors by"),
    "classes": (
        save_more_classes,
        "net.safetensors",
        r"have head.weight of shape \(5, 12\); expected \(3, 12\), for 3 known classes\.$",
    ),
    "names": (
        save_others,
        "net.safetensors",
        r"not those of this classifier: they lack body.weight, body.bias, head.weight and 1 more and they have "
        r"fc.bias, fc.weight, trunk.bias and 1 more, which it has not\.$",
    ),
    "nan": (save_nan, "net.safetensors", "have NaN or infinite values in head.bias"),
}


@pytest.mark.parametrize(("save", "name", "message"), BROKEN.values(), ids=BROKEN)
def test_weights_that_cannot_be_used_are_told_in_one_sentence(folder, tmp_path, weights, save, name, message):
    save(folder / name, dict(sorted(weights.items())))
    with pytest.raises(UsageError, match=message) as error:
        run(suite_with(folder, f'weights = "{name}"'), tmp_path)
    assert "\n" not in str(error.value)


class Attack:
    def __reduce__(self):
        return (Path.write_text, (Path("attacked"), "by a pickle"))


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_no_code_in_a_file_of_weights_is_run(folder, tmp_path, name):
    (folder / name).write_bytes(pickle.dumps({"head.weight": Attack()}))
    with pytest.raises(UsageError, match="cannot be read"):
        run(suite_with(folder, f'weights = "{name}"'), tmp_path)
    assert not Path("attacked").exists()


def test_weights_that_are_not_there_cost_no_time(folder, tmp_path):
    (folder / "known.npz").unlink()
    with pytest.raises(MissingPrerequisiteError, match=r"looked for the file .*/mine/net\.safetensors\.$"):
        run(suite_with(folder, 'weights = "net.safetensors"'), tmp_path)


def test_weights_of_a_network_that_minds_its_version_can_be_loaded(tmp_path):
    """Torchvision's MNASNet refuses a state dict without the versions of its modules."""
    build = find_classifier("torchvision:mnasnet0_5", []).build
    one, other = build(3, 32, 4), build(3, 32, 4)
    save_file(one.state_dict(), tmp_path / "net.safetensors")
    torch.save(one.state_dict(), tmp_path / "net.pt")
    for name in ("net.safetensors", "net.pt"):
        load_weights(other, tmp_path / name, 4)
        assert content_sha256(other.state_dict()) == content_sha256(one.state_dict())


# Code


def test_a_factory_is_given_what_it_asks_for(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def none(): return nn.Linear(1, 1)\n"
        "def some(classes, *, width=5, channels): return nn.Linear(channels, classes)\n"
        "def every(**given): return nn.Linear(given['size'], given['classes'])\n"
    )
    shapes = {"none": (1, 1), "some": (3, 7), "every": (32, 7)}
    for name, shape in shapes.items():
        layer = find_classifier(f"nets:{name}", [tmp_path]).build(3, 32, 7)
        assert (layer.in_features, layer.out_features) == shape


def test_modules_are_found_here_beside_the_suite_and_in_packages(folder, tmp_path, monkeypatch):
    package = folder / "zoo_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(CODE)
    (package / "nets.py").write_text("from zoo_of_a_test.parts import build\n")
    Path("here.py").write_text("from beside import build\n")
    Path("beside.py").write_text(CODE)
    for name in ("zoo_of_a_test.nets:build", "mine:build", "mine.py:Net", "here:build", f"{folder}/mine.py:build"):
        suite = read_suite(suite_with(folder)).with_classifier(name, None, None)
        assert find_classifier(name, suite.code_folders).build(1, 8, 3).head.out_features == 3
    assert str(folder) not in sys.path
    for module in ("zoo_of_a_test", "zoo_of_a_test.nets", "zoo_of_a_test.parts", "beside"):
        sys.modules.pop(module)


WRONG_CODE = {
    "no module": ("minne:build", CODE, UsageError, r"line 3, key classifier: .*no module that there is \(minne\)"),
    "no such name": ("mine:bild", CODE, UsageError, r"names 'bild', which is not there; expected one of: Net, build"),
    "no file": ("nets/mine.py:build", CODE, MissingPrerequisiteError, r"looked for the file .*nets/mine\.py and .*"),
    "no plugin": ("cnm", CODE, UsageError, "did you mean cnn"),
    "syntax": ("mine:build", "def build(", UsageError, "could not be imported: SyntaxError"),
    "raises": ("mine:build", "1 / 0", UsageError, "could not be imported: ZeroDivisionError: division by zero"),
    "needs a package": ("mine:build", "import no_such_package", MissingPrerequisiteError, "the module no_such_package"),
    "argument": ("mine:build", "def build(num_classes): ...", UsageError, "needs an argument 'num_classes'; expected"),
    "network": ("mine:net", "from torch import nn\nnet = nn.ReLU()", UsageError, "is a ReLU; expected a function or"),
    "no network": ("mine:build", "def build(): return 3", UsageError, "built a int; expected a torch.nn.Module"),
    "build raises": ("mine:build", "def build(): return 1 / 0", UsageError, "build raised ZeroDivisionError: division"),
    "too many classes": (
        "mine:build",
        CODE.replace("Net(classes)", "Net(9)"),
        UsageError,
        r"returned logits \(2, 9\); expected \(2, 3\), one for each of the 3 known classes",
    ),
    "features of tokens": (
        "mine:build",
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.head = nn.Linear(8, 3)\n"
        "    def forward(self, x):\n        return self.head(x[:, 0]).mean(dim=1)\nbuild = Net",
        UsageError,
        r"has penultimate features \(2, 8, 8\); expected \(2, D\)",
    ),
}


@pytest.mark.parametrize(("name", "code", "kind", "message"), WRONG_CODE.values(), ids=WRONG_CODE)
def test_code_that_cannot_be_used_is_told_in_one_sentence(folder, tmp_path, name, code, kind, message):
    (folder / "mine.py").write_text(code)
    suite = suite_with(folder)
    Path(suite).write_text(Path(suite).read_text().replace("mine:build", name))
    with pytest.raises(kind, match=message) as error:
        run(suite, tmp_path)
    assert "\n" not in str(error.value)


def test_an_edited_factory_is_trained_anew_and_an_unchanged_one_is_not(folder, tmp_path, cache):
    kept = cache / "weights"
    (first,) = run(suite_with(folder), tmp_path, seeds=[0])
    before = set(kept.iterdir())
    (again,) = run(suite_with(folder), tmp_path, seeds=[0])
    assert set(kept.iterdir()) == before
    assert again.results == first.results
    start = "    network = Net(classes)\n    nn.init.zeros_(network.head.weight)\n    return network"
    (folder / "mine.py").write_text(CODE.replace("    return Net(classes)", start))
    (edited,) = run(suite_with(folder), tmp_path, seeds=[0])
    assert edited.classifier.weights_sha256 != first.classifier.weights_sha256


def test_evidence_of_edited_code_with_the_same_weights_and_layers_is_collected_anew(folder, tmp_path, weights):
    save_file(weights, folder / "net.safetensors")
    suite = suite_with(folder, 'weights = "net.safetensors"')
    (one,) = run(suite, tmp_path)
    edited = CODE.replace("self.act(self.body(self.flat(x)))", "self.body(self.flat(x)).tanh()")
    (folder / "mine.py").write_text(edited)
    (other,) = run(suite, tmp_path)
    assert one.classifier.weights_sha256 == other.classifier.weights_sha256
    assert one.scores.sha256 != other.scores.sha256


def test_training_sees_normalised_images(folder, tmp_path):
    (plain,) = run(suite_with(folder), tmp_path, seeds=[0])
    (normalised,) = run(suite_with(folder, input="mean = [0.4]\nstd = [0.3]"), tmp_path, seeds=[0])
    (unchanged,) = run(suite_with(folder, input="mean = [0.0]\nstd = [1.0]"), tmp_path, seeds=[0])
    assert normalised.classifier.weights_sha256 != plain.classifier.weights_sha256
    assert unchanged.classifier.weights_sha256 == plain.classifier.weights_sha256


def test_training_that_raises_is_told_in_one_sentence(folder, tmp_path):
    code = CODE.replace("def build", "    def train(self, mode=True):\n        if mode: raise ValueError('no luck')\n"
                        "        return super().train(mode)\n\ndef build")  # fmt: skip
    (folder / "mine.py").write_text(code)
    with pytest.raises(UsageError, match="the training of the classifier mine:build raised ValueError: no luck"):
        run(suite_with(folder), tmp_path)


# Models by name


@pytest.mark.parametrize("name", ["torchvision:shufflenet_v2_x0_5", "timm:resnet10t"])
def test_a_model_by_name_is_trained_and_can_be_used_with_weights(folder, tmp_path, name):
    suite = suite_with(folder, input="channels = 3")
    text = Path(suite).read_text().replace("mine:build", name).replace("size = 8", "size = 32")
    Path(suite).write_text(f"{text}[sizes]\ntrain = 12\n".replace("epochs = 2", "epochs = 1"))
    (trained,) = run(suite, tmp_path, ["grad-l2"], seeds=[0], limit=4)
    assert (trained.status, trained.classifier.name) == ("ok", name)
    torch.manual_seed(0)
    network = find_classifier(name, []).build(3, 32, CLASSES)
    save_file(network.state_dict(), folder / "net.safetensors")
    held_out = suite_with(folder, held_out=True, input="channels = 3")
    Path(held_out).write_text(Path(held_out).read_text().replace("mine:build", name).replace("size = 8", "size = 32"))
    (given,) = run(held_out, tmp_path, ["grad-l2"], limit=4, weights=folder / "net.safetensors")
    assert given.status == "ok"
    assert given.classifier.weights_sha256 == content_sha256(network.state_dict())


def test_models_that_there_are_not_are_told_with_close_names(folder, tmp_path):
    for name, close in (("torchvision:resnet19", "resnet18"), ("timm:resnet19", "resnet18")):
        with pytest.raises(UsageError, match=rf"there is no classifier {name}; did you mean .*{close}"):
            run(suite_with(folder, input="channels = 3"), tmp_path, classifier=name)


def test_torchvisions_models_need_three_channels_and_timms_do_not(folder, tmp_path):
    with pytest.raises(UsageError, match="torchvision:resnet18 takes images of 3 channels; set channels = 3"):
        run(suite_with(folder), tmp_path, classifier="torchvision:resnet18")
    assert find_classifier("timm:resnet10t", []).build(1, 32, 3).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_missing_timm_is_a_missing_prerequisite(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert exit_status("run", "-s", suite_with(folder), "--classifier", "timm:resnet18", "--out", tmp_path / "out") == 3
    assert "needs the package timm; install it by pip install 'oodbench[hub]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18", "timm:resnet18.a1_in1k"])
def test_pretrained_weights_are_downloaded_only_when_asked_for_and_of_as_many_classes(folder, tmp_path, name):
    options = {"classifier": name, "weights": "pretrained"}
    suite = suite_with(folder, held_out=True, input="channels = 3")
    with pytest.raises(MissingPrerequisiteError, match="are only downloaded with --download"):
        run(suite, tmp_path, **options)
    with pytest.raises(UsageError, match=f"{name} are for 1000 classes and the known set has 3; say which"):
        run(suite, tmp_path, **options, download=True)


def test_what_has_no_pretrained_weights_says_so(folder, tmp_path):
    with pytest.raises(UsageError, match="mine:build has no pretrained weights"):
        run(suite_with(folder, 'weights = "pretrained"'), tmp_path, download=True)
    suite = suite_with(folder, held_out=True, input="channels = 3")
    with pytest.raises(UsageError, match="timm has no pretrained weights for the classifier timm:botnet50ts_256"):
        run(suite, tmp_path, download=True, classifier="timm:botnet50ts_256", weights="pretrained")


# The penultimate layer


class Heads(nn.Module):
    """Two layers with an output for each class, the last of which is not the classifier's head; and one more after."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 10)
        self.head = nn.Linear(10, CLASSES)
        self.mixing = nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        return self.mixing(self.head(self.hidden(x)).softmax(dim=1))

    def hidden(self, x):
        return self.body(x.flatten(1)).relu()


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return Heads().eval()


def test_features_are_the_input_of_the_layer_that_is_named(heads):
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8)).astype(np.uint8)
    inputs = torch.from_numpy(images) / 255
    with torch.no_grad():
        expected = heads.hidden(inputs)
    for parts in (("logits", "features"), ("logits", "features", "gradients", "confounding")):
        found = collect(heads, images, parts=parts, penultimate="head")
        torch.testing.assert_close(found.features, expected)
        assert collect(heads, images, parts=parts).features.shape == (9, CLASSES)
    network_parts = NetworkParts(heads, inputs[:1], "head")
    torch.testing.assert_close(network_parts.encoder(inputs), expected)
    with pytest.raises(CellSkippedError, match="from features to logits, and the classifier goes on after it"):
        _ = network_parts.last_layer
    assert NetworkParts(heads, inputs[:1]).last_layer is heads.mixing


def test_a_layer_that_cannot_be_named_is_told_with_those_that_can(heads):
    inputs = torch.zeros(2, 1, 8, 8)
    heads.spare = nn.Linear(4, CLASSES)
    heads.act = nn.ReLU()
    for name, message in {
        "heat": "its layer 'heat' .* is no layer of it; expected a Linear layer: body, head, mixing, spare",
        "act": "its layer 'act' .* is a ReLU; expected a Linear layer: body, head",
        "spare": "its layer spare is not called",
    }.items():
        with pytest.raises(OodbenchError, match=message), forward(heads, inputs, last_layer=name) as passed:
            _ = passed.features


def test_a_run_with_a_named_layer(folder, tmp_path):
    """The same network and weights, so only what the evidence's key has of the layer can tell the runs apart."""
    mixing = "12, classes)\n        self.mix = nn.Linear(classes, classes)"
    code = CODE.replace("12, classes)", mixing).replace("return self.head(", "return self.mix(self.head(")
    (folder / "mine.py").write_text(code.replace("(x))))", "(x)))))"))
    suite = suite_with(folder)
    (found,) = run(suite, tmp_path, ["feature-norm"], [0])
    (named,) = run(suite, tmp_path, ["feature-norm"], [0], penultimate="head")
    assert found.classifier.weights_sha256 == named.classifier.weights_sha256
    assert found.scores.sha256 != named.scores.sha256
    with pytest.raises(UsageError, match=r"mine:build cannot be used: its layer 'hat' .* expected .*: body, head, mix"):
        run(suite, tmp_path, penultimate="hat")


def test_a_network_without_a_head_has_no_features_unless_a_layer_is_named(folder, tmp_path):
    code = CODE.replace("12, classes)", "12, classes + 1)").replace("(x))))", "(x))))[:, 1:]")
    (folder / "mine.py").write_text(code)
    norm, entropy = run(suite_with(folder), tmp_path, ["feature-norm", "entropy"], seeds=[0])
    assert (norm.status, entropy.status) == ("skipped", "ok")
    (record,) = run(suite_with(folder, 'penultimate = "head"'), tmp_path, ["feature-norm"], [0])
    assert record.status == "ok"


# Large images


@pytest.mark.parametrize(("shape", "batch"), {(1, 28, 28): BATCH, (3, 64, 64): BATCH, (3, 224, 224): 20}.items())
def test_large_images_are_taken_a_few_at_once(shape, batch):
    assert batch_of(shape, Computing()) == batch
