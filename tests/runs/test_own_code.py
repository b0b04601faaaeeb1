"""What a network computes is part of what it is: no number of one is ever taken for that of another."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import command_line
from PIL import Image

import oodbench
from oodbench import registry
from oodbench.errors import UsageError
from oodbench.registry.code import code_of, imported_files

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, size, classes, change=lambda x: x):
        super().__init__()
        self.body = nn.Linear(channels * size * size, 16)
        self.head = nn.Linear(16, classes)
        self.change = change

    def forward(self, x):
        return self.head(self.change(torch.relu(self.body(x.flatten(1)))))

    def __repr__(self):
        return "Net()"
"""
SUITE = """
name = "own"
version = 1
classifier = "factory.py:build"
{weights}
known = {{ adapter = "imagefolder", path = "known", name = "known"{split} }}
seeds = [0]
[unknown]
noise = {{ n = 40, group = "far" }}
[input]
size = 8
[training]
epochs = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with images of three classes, a network and its weights."""
    random = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "known" / f"class{label}").mkdir(parents=True)
        for i in range(40):
            image = random.integers(0, 120, (8, 8)) + 120 * (np.arange(8) // 3 == label)
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / "known" / f"class{label}" / f"{i}.png")
    (tmp_path / "mynet.py").write_text(NET)
    torch.manual_seed(0)
    namespace = {}
    exec(NET, namespace)
    torch.save(namespace["Net"](1, 8, 3).state_dict(), tmp_path / "net.pt")
    write_suite(tmp_path)
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("mynet", "inner", "helper"):
            del sys.modules[name]


def write_suite(folder, given=True):
    weights, split = ('weights = "net.pt"', ', split = "test"') if given else ("", "")
    (folder / "suite.toml").write_text(SUITE.format(weights=weights, split=split))


def run(folder, out="out", **options):
    (record,) = oodbench.run(
        "suite.toml", ["energy"], ["unknown-unknowns"], out=folder / out, **{"trust_model": True} | options
    )
    return record, record.results[-1].metrics["auroc"].value


def made(folder):
    """How many entries of what was computed the cache has; those of files appear when these are some seconds old."""
    return len([file for file in (folder / "cache").rglob("*.safetensors") if file.parent.name != "digests"])


FACTORY = "from mynet import Net\n\n\ndef build(channels, size, classes):\n    return Net(channels, size, classes)\n"
CLIPPED = "lambda x: x.clamp(max=0.05)"


def test_two_factories_of_one_file_whose_networks_print_alike_are_two(folder):
    (folder / "factory.py").write_text(
        FACTORY + f"\n\ndef clipped(channels, size, classes):\n    return Net(channels, size, classes, {CLIPPED})\n"
    )
    plain, auroc = run(folder)
    clipped, other = run(folder, classifier="factory.py:clipped", weights="net.pt")
    assert plain.cell_id != clipped.cell_id
    assert auroc != other
    assert (plain.classifier.name, clipped.classifier.name) == ("factory.py:build", "factory.py:clipped")
    assert run(folder, "elsewhere", classifier="factory.py:clipped", weights="net.pt")[1] == other


IMPORTS = {
    "at the top": FACTORY,
    "in the function": "def build(channels, size, classes):\n    import mynet\n"
    "    return mynet.Net(channels, size, classes)\n",
    "by name": "import importlib\n\n\ndef build(channels, size, classes):\n"
    "    return importlib.import_module('my' + 'net').Net(channels, size, classes)\n",
    "by another": "from inner import build\n",
}


@pytest.mark.parametrize("given", [True, False], ids=["given weights", "trained"])
@pytest.mark.parametrize("factory", IMPORTS.values(), ids=IMPORTS)
def test_an_edited_module_that_a_factory_imports_is_another_network(folder, factory, given):
    write_suite(folder, given)
    (folder / "factory.py").write_text(factory)
    (folder / "inner.py").write_text(FACTORY)
    before, auroc = run(folder)
    (folder / "mynet.py").write_text(NET.replace("torch.relu(", "torch.tanh(-"))
    after, other = run(folder)
    assert before.cell_id != after.cell_id
    assert auroc != other
    (folder / "mynet.py").write_text(NET)
    entries = made(folder)
    assert run(folder) == (before, auroc)
    assert made(folder) == entries  # nothing is computed again


@pytest.mark.parametrize("given", [True, False], ids=["given weights", "trained"])
def test_a_configuration_file_counts_by_what_it_does(folder, given):
    write_suite(folder, given)
    (folder / "factory.py").write_text(
        "import json\nfrom mynet import Net\n\n\ndef build(channels, size, classes):\n"
        "    limit = json.load(open('config.json'))['limit']\n"
        "    return Net(channels, size, classes, lambda x: x.clamp(max=limit))\n"
    )

    def with_limit(limit, out="out"):
        (folder / "config.json").write_text(json.dumps({"limit": limit}))
        return run(folder, out)

    plain, auroc = with_limit(1e9)
    clipped, other = with_limit(0.05)
    assert (clipped.cell_id, other) != (plain.cell_id, auroc)
    entries = made(folder)
    assert with_limit(1e9) == (plain, auroc)
    assert with_limit(0.05) == (clipped, other)
    assert with_limit(2e9) == (plain, auroc)  # another text, the same network
    assert made(folder) == entries


def test_records_of_another_network_are_refused_where_the_cache_does_not_tell(folder, monkeypatch):
    (folder / "factory.py").write_text(
        "import os\nfrom mynet import Net\n\n\ndef build(channels, size, classes):\n"
        "    scale = float(os.environ['SCALE'])\n    return Net(channels, size, classes, lambda x: x * scale)\n"
    )
    monkeypatch.setenv("SCALE", "1")
    run(folder)
    monkeypatch.setenv("OODBENCH_CACHE", str(folder / "another cache"))
    monkeypatch.setenv("SCALE", "3")
    with pytest.raises(UsageError, match=r"is of another network than the classifier factory\.py:build is now"):
        run(folder)
    assert run(folder, "another folder")[0].status == "ok"


def test_a_plan_is_not_done_with_another_network(folder, monkeypatch, capsys):
    (folder / "factory.py").write_text(
        "import os\nfrom mynet import Net\n\n\ndef build(channels, size, classes):\n"
        "    scale = float(os.environ['SCALE'])\n    return Net(channels, size, classes, lambda x: x * scale)\n"
    )
    monkeypatch.setenv("SCALE", "1")
    asked = ("-s", "suite.toml", "-d", "energy", "-p", "known", "--trust-model")
    planned = command_line("plan", *asked, cwd=folder)
    (folder / "plan.json").write_text(planned.stdout)
    monkeypatch.setenv("OODBENCH_CACHE", str(folder / "another cache"))
    monkeypatch.setenv("SCALE", "3")
    done = command_line("worker", "--plan", "plan.json", cwd=folder)
    assert done.returncode == 2
    assert "are others here" in done.stderr


def test_helpers_of_the_same_name_in_two_folders_are_two(folder, tmp_path):
    (folder / "factory.py").write_text(FACTORY)
    record, auroc = run(folder)
    other = folder / "other"
    other.mkdir()
    (other / "mynet.py").write_text(NET.replace("torch.relu(", "torch.tanh(-"))
    (other / "factory.py").write_text(FACTORY)
    another, different = run(folder, classifier="other/factory.py:build", weights="net.pt")
    assert auroc != different
    assert record.classifier.code != another.classifier.code


def test_an_edited_helper_of_a_detector_is_another_detector(folder):
    (folder / "factory.py").write_text(FACTORY)
    (folder / "mine.py").write_text(
        "import oodbench\nfrom helper import sign\n\n\n@oodbench.detector('mine', needs='logits')\n"
        "def mine(logits):\n    return sign * logits.logsumexp(dim=1)\n"
    )
    found = []
    for sign in (1, -1, 1):
        (folder / "helper.py").write_text(f"sign = {sign}\n")
        with registry.scoped():
            (record,) = oodbench.run(
                "suite.toml", ["mine"], ["unknown-unknowns"], out=folder / "out", plugins=["mine.py"], trust_model=True
            )
        found.append((record.cell_id, record.results[-1].metrics["auroc"].value))
    assert found[0] == found[2]
    assert found[0][0] != found[1][0]
    assert found[0][1] == pytest.approx(1 - found[1][1])


@pytest.mark.parametrize("change", ["file", "configuration"])
def test_another_transform_is_another_preprocessing_and_the_same_samples(folder, change):
    (folder / "factory.py").write_text(FACTORY)
    code = (
        "import json, torch\nfrom torchvision.transforms import functional as F\n\n\ndef transform(picture):\n"
        "    scale = json.load(open('config.json'))\n"
        "    return F.to_tensor(picture.convert('L').resize((8, 8))) * scale\n"
    )
    (folder / "prep.py").write_text(code)
    (folder / "config.json").write_text("1.0")
    before, auroc = run(folder, transform="prep.py:transform")
    (folder / ("prep.py" if change == "file" else "config.json")).write_text(
        code.replace("* scale", "* -scale") if change == "file" else "-1.0"
    )
    after, other = run(folder, transform="prep.py:transform")
    assert before.cell_id != after.cell_id
    assert auroc != other
    assert {name: of_set.sha256 for name, of_set in before.datasets.items() if name != "noise"} == {
        name: of_set.sha256 for name, of_set in after.datasets.items() if name != "noise"
    }


# The code that a file depends on


def test_imports_are_followed_to_the_end_of_the_users_own_code(tmp_path):
    package = tmp_path / "package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("from . import leaf\n")
    (package / "deep" / "leaf.py").write_text("from ..top import value\n")
    (package / "top.py").write_text("import torch, numpy, json\nvalue = 1\n")
    (tmp_path / "unrelated.py").write_text("")
    (tmp_path / "main.py").write_text("def build():\n    from package.deep import leaf\n")
    assert set(imported_files(tmp_path / "main.py")) == {
        "package", "package.deep", "package.deep.leaf", "package.top",
    }  # fmt: skip
    before = code_of(tmp_path / "main.py")
    (tmp_path / "unrelated.py").write_text("value = 2\n")
    assert code_of(tmp_path / "main.py") == before
    (package / "top.py").write_text("import torch, numpy, json\nvalue = 2\n")
    assert code_of(tmp_path / "main.py") != before


def test_packages_without_init_are_followed(tmp_path):
    (tmp_path / "ns" / "sub").mkdir(parents=True)
    (tmp_path / "ns" / "sub" / "leaf.py").write_text("value = 1\n")
    (tmp_path / "main.py").write_text("from ns.sub.leaf import *\n")
    assert set(imported_files(tmp_path / "main.py")) == {"ns.sub.leaf"}


def test_files_in_a_circle_and_files_that_are_not_python_do_no_harm(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("import a\nimport broken\n")
    (tmp_path / "broken.py").write_text("def (\n")
    assert set(imported_files(tmp_path / "a.py")) == {"b", "broken"}


def test_installed_packages_are_not_looked_into():
    assert not imported_files(Path(torch.__file__).parent / "functional.py")


@pytest.mark.parametrize("what", ["dropout", "gain", "frozen"])
def test_what_acts_on_training_alone_gives_other_weights(folder, what, monkeypatch):
    """The trained network prints alike, and its weights in evaluation show nothing of it."""
    write_suite(folder, given=False)
    (folder / "factory.py").write_text(
        "import os\nfrom torch import nn\nfrom mynet import Net\n\n\ndef build(channels, size, classes):\n"
        "    value = float(os.environ['VALUE'])\n    net = Net(channels, size, classes)\n"
        + {
            "dropout": "    net.change = lambda x: nn.functional.dropout(x, value, net.training)\n",
            "gain": "    net.body.weight.data *= 1 + value\n",
            "frozen": "    net.body.weight.requires_grad_(value < 0.5)\n",
        }[what]
        + "    return net\n"
    )
    found = []
    for value in ("0.1", "0.9", "0.1"):
        monkeypatch.setenv("VALUE", value)
        found.append(run(folder)[0])
    assert found[0].classifier.weights_sha256 != found[1].classifier.weights_sha256
    assert found[2] == found[0]


STARS = {
    "a star": "from helper import *\n",
    "a keyword": "import importlib\nsign = importlib.import_module(name='helper').sign\n",
    "another name": "from importlib import import_module as load\nsign = load('helper').sign\n",
    "a path": "import importlib.util as u, pathlib\nfile = pathlib.Path(__file__).parent / ('help' + 'er.py')\n"
    "spec = u.spec_from_file_location('h', file)\nh = u.module_from_spec(spec)\nspec.loader.exec_module(h)\n"
    "sign = h.sign\n",
    "a file": "import os, runpy\nsign = runpy.run_path(os.path.join(os.path.dirname(__file__), 'helper.py'))['sign']\n",
}


@pytest.mark.parametrize("code", STARS.values(), ids=STARS)
def test_a_helper_of_a_detector_counts_however_it_is_loaded(folder, code):
    (folder / "factory.py").write_text(FACTORY)
    (folder / "plugins").mkdir()
    (folder / "plugins" / "mine.py").write_text(
        f"{code}import oodbench\n\n\n@oodbench.detector('mine', needs='logits')\ndef mine(logits):\n"
        "    return sign * logits.logsumexp(dim=1)\n"
    )
    found = []
    for sign in (1, -1):
        (folder / "plugins" / "helper.py").write_text(f"sign = {sign}\n")
        with registry.scoped():
            (record,) = oodbench.run(
                "suite.toml", ["mine"], ["unknown-unknowns"], out="out", plugins=["plugins/mine.py"], trust_model=True
            )
        found.append(record.results[-1].metrics["auroc"].value)
    sys.modules.pop("helper", None)
    assert found[0] == pytest.approx(1 - found[1])


def test_detectors_of_a_notebook_are_told_apart_by_what_they_do(folder):
    (folder / "factory.py").write_text(FACTORY)
    found = []
    for sign in (1.0, -1.0):
        with registry.scoped():
            names = {"oodbench": oodbench, "sign": sign, "__name__": "notebook"}
            exec("def mine(logits):\n    return sign * logits.logsumexp(dim=1)\n", names)
            plugin = oodbench.detector("mine", needs="logits")(names["mine"])
            (record,) = oodbench.run("suite.toml", [plugin], ["unknown-unknowns"], out="out", trust_model=True)
        found.append(record.results[-1].metrics["auroc"].value)
    assert found[0] == pytest.approx(1 - found[1])


def test_the_class_of_a_meta_classifier_counts(folder, monkeypatch):
    (folder / "factory.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(folder)
    code = (
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n\n\n"
        "class Mine(LogisticRegression):\n    def predict_proba(self, x):\n        p = super().predict_proba(x)\n"
        "        return p[:, ::ORDER]\n"
    )
    found = []
    for order in ("1", "-1"):
        (folder / "myclassifier.py").write_text(code.replace("ORDER", order))
        (record,) = oodbench.run(
            "suite.toml", ["meta:inputs=entropy+energy,classifier=myclassifier.Mine"], ["unknown-unknowns"], out="out",
            trust_model=True,
        )  # fmt: skip
        found.append((record.cell_id, record.results[-1].metrics["auroc"].value))
    sys.modules.pop("myclassifier", None)
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


def test_what_only_unknown_images_feel_is_noticed(folder, monkeypatch):
    (folder / "others").mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 8), i, dtype=np.uint8)).save(folder / "others" / f"{i}.png")
    (folder / "factory.py").write_text(
        "import os, torch\nfrom mynet import Net\n\n\nclass Dark(Net):\n    def forward(self, x):\n"
        "        is_dark = (x.mean(dim=(1, 2, 3)) < 0.08) & (x.amax(dim=(1, 2, 3)) > 0)\n"
        "        scale = 1 + float(os.environ['SCALE']) * is_dark\n"
        "        return super().forward(x) * scale[:, None]\n\n\n"
        "def build(channels, size, classes):\n    return Dark(channels, size, classes)\n"
    )
    text = (folder / "suite.toml").read_text()
    (folder / "suite.toml").write_text(
        text.replace("[input]", "others = { adapter = 'imagefolder', path = 'others' }\n[input]")
    )
    monkeypatch.setenv("SCALE", "0")
    run(folder)
    monkeypatch.setenv("SCALE", "5")
    with pytest.raises(UsageError, match="is of another network"):
        run(folder)
