"""Plugins by kind and name, wherever they come from, and the parameters that users type after a name."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from torch import nn

import oodbench
from oodbench import registry
from oodbench.detectors.plugin import DetectorPlugin
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.registry.parameters import resolve_parameters, split_spec

if TYPE_CHECKING:
    from oodbench.evidence import Evidence

FIXED_NAMES = {
    "detectors": "entropy max-softmax max-logit energy grad-l1 grad-l2 grad-min grad-max grad-mean grad-std "
    "grad-skewness grad-combo grad-all entropy-meta meta gradnorm exgrad confounding random constant feature-norm",
    "datasets": "digits rendered-letters patches noise emnist-digits emnist-letters mnist cifar10 omniglot "
    "imagefolder npz huggingface",
    "classifiers": "cnn",
    "protocols": "known unknown-unknowns known-unknowns leave-one-out",
    "suites": "digits emnist openood-cifar10 openood-cifar100 openood-imagenet200 openood-imagenet",
    "evidence": "logits features feature_maps gradients confounding",
}
BUILT_IN = [(kind, name) for kind, names in FIXED_NAMES.items() for name in names.split()]
MARGIN = '''\
import oodbench

@oodbench.detector("margin", needs="logits")
def margin(logits):
    """Second largest logit minus the largest."""
    top = logits.topk(2, dim=1).values
    return top[:, 1] - top[:, 0]
'''


# Built-in plugins


@pytest.mark.parametrize("kind", registry.KINDS)
def test_built_in_plugins_are_entry_points_like_everybody_elses(kind):
    ours = {
        point.name
        for point in importlib.metadata.entry_points(group=f"oodbench.{kind}")
        if point.dist is not None and point.dist.name == "oodbench"
    }
    adapted = {entry.qualified for entry in registry.entries(kind).values()}
    assert set(FIXED_NAMES[kind].split()) <= ours <= set(registry.entries(kind)) | adapted


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_built_in_plugin_can_be_loaded(kind, name):
    assert registry.load(kind, name) is not None
    entry = registry.get(kind, name)
    assert (entry.distribution, entry.version) == ("oodbench", importlib.metadata.version("oodbench"))


@pytest.mark.parametrize("kind", ["detectors", "datasets"])
def test_decorated_plugin_has_the_name_of_its_entry_point(kind):
    for name in FIXED_NAMES[kind].split():
        assert registry.load(kind, name).name == name


def test_listing_imports_no_plugin():
    code = (
        "import sys; from oodbench import registry\n"
        "assert all(registry.entries(kind) for kind in registry.KINDS)\n"
        "print([name for name in sys.modules if name in ('torch', 'sklearn') or name.startswith('oodbench.detectors')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


# Names


@pytest.mark.parametrize(
    ("kind", "name", "close"),
    [
        ("detectors", "entropie", "entropy"),
        ("datasets", "emnist-digit", "emnist-digits"),
        ("suites", "photographs", None),
    ],
)
def test_unknown_name_is_told_with_the_closest_ones_or_where_to_look(kind, name, close):
    with pytest.raises(UsageError) as error:
        registry.get(kind, name)
    assert repr(name) in str(error.value)
    assert (close or f"oodbench list {kind}") in str(error.value)
    assert error.value.exit_status == 2


def test_glob_finds_all_names_that_match_in_order():
    found = registry.matching("detectors", "grad-*")
    assert found == sorted(found)
    assert {"grad-l1", "grad-skewness", "grad-combo"} <= set(found)
    assert all(name.startswith("grad-") for name in found)
    assert registry.matching("detectors", "grad-l[12]") == ["grad-l1", "grad-l2"]
    assert registry.matching("detectors", "grad-l?") == ["grad-l1", "grad-l2"]
    assert set(registry.matching("protocols", "*")) == set(registry.entries("protocols"))


def test_plain_name_matches_itself_only():
    assert registry.matching("detectors", "grad-l1") == ["grad-l1"]
    assert registry.matching("protocols", "known") == ["known"]


@pytest.mark.parametrize("pattern", ["nothing-*", "nothing-at-all"])
def test_pattern_without_match_is_refused(pattern):
    with pytest.raises(UsageError, match="nothing-"):
        registry.matching("detectors", pattern)


# Plugins of installed packages


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package with entry points on the path, as pip would."""

    def package(entry_points, code=MARGIN):
        info = tmp_path / "their_package-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 2.5\nSummary: Theirs.\n")
        (info / "entry_points.txt").write_text(f"[oodbench.detectors]\n{entry_points}\n")
        (tmp_path / "their_package.py").write_text(code)
        registry.refresh()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    sys.modules.pop("their_package", None)
    registry.refresh()


def test_installed_package_is_found_by_its_entry_point_alone(install):
    install("margin = their_package:margin")
    entry = registry.entries("detectors")["margin"]
    assert (entry.distribution, entry.version, entry.summary) == ("their-package", "2.5", "Theirs.")
    assert "their_package" not in sys.modules
    assert isinstance(registry.load("detectors", "margin"), DetectorPlugin)
    assert registry.get("detectors", "margin").distribution == "their-package", "also after its decorator has run"


def test_installed_package_that_cannot_be_imported_is_named_when_it_is_loaded(install):
    install("margin = their_package:margin", code="import a_package_that_nobody_has")
    assert "margin" in registry.entries("detectors")
    with pytest.raises(MissingPrerequisiteError, match=r"their-package 2\.5.*a_package_that_nobody_has") as error:
        registry.load("detectors", "margin")
    assert error.value.exit_status == 3
    assert registry.load("detectors", "entropy").name == "entropy"


def test_installed_package_cannot_take_the_name_of_a_built_in_plugin(install):
    install("entropy = their_package:margin")
    assert registry.get("detectors", "entropy").distribution == "oodbench"


# Plugins of local files


def test_file_declares_a_detector_by_its_decorator(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MARGIN)
    registry.load_file(file)
    entry = registry.get("detectors", "margin")
    assert entry.distribution == "mine.py"
    assert len(entry.version) == 12
    assert registry.load("detectors", "margin").summary == "Second largest logit minus the largest."


def test_version_of_a_file_is_its_content(tmp_path):
    versions = []
    for code in (MARGIN, MARGIN + "# changed", MARGIN):
        (tmp_path / "mine.py").write_text(code)
        registry.load_file(tmp_path / "mine.py")
        versions.append(registry.get("detectors", "margin").version)
    assert versions[0] == versions[2] != versions[1]


BAD_FILES = {
    "syntax error": ("mine.py", "def margin(:\n", "SyntaxError"),
    "raises": ("mine.py", "1 / 0\n", "ZeroDivisionError"),
    "imports what is not there": ("mine.py", "import a_package_that_nobody_has\n", "a_package_that_nobody_has"),
    "declares nothing": ("mine.py", "def margin(logits): ...\n", "declares nothing"),
    "empty": ("mine.py", "", "declares nothing"),
    "not Python": ("mine.txt", MARGIN, r"\.py"),
}


@pytest.mark.parametrize(("name", "code", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_file_that_is_no_plugin_is_refused(tmp_path, name, code, message):
    (tmp_path / name).write_text(code)
    with pytest.raises(UsageError, match=message) as error:
        registry.load_file(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_missing_file_is_a_missing_prerequisite(tmp_path):
    with pytest.raises(MissingPrerequisiteError) as error:
        registry.load_file(tmp_path / "mine.py")
    assert str(tmp_path / "mine.py") in str(error.value)


def test_file_cannot_take_the_name_of_a_built_in_plugin(tmp_path):
    (tmp_path / "mine.py").write_text(MARGIN.replace('"margin"', '"entropy"'))
    with pytest.raises(UsageError, match=r"'entropy'.*taken by oodbench"):
        registry.load_file(tmp_path / "mine.py")
    assert registry.get("detectors", "entropy").distribution == "oodbench"


def test_detector_declared_in_this_process_is_known_by_its_name():
    @oodbench.detector("of-this-test", needs="logits")
    def of_this_test(logits):
        return logits[:, 0]

    assert registry.load("detectors", "of-this-test") is of_this_test
    assert registry.get("detectors", "of-this-test").distribution == __name__


# The text that users type

SPECS = {
    "entropy": ("entropy", {}),
    "entropy:": ("entropy", {}),
    "grad-l2:layer=conv1": ("grad-l2", {"layer": "conv1"}),
    "noise:kind=gaussian,n=3": ("noise", {"kind": "gaussian", "n": "3"}),
    "meta:inputs=entropy+energy,classifier=logistic": ("meta", {"inputs": "entropy+energy", "classifier": "logistic"}),
    "imagefolder:/my/images": ("imagefolder", {"path": "/my/images"}),
    "imagefolder:C:\\my, images": ("imagefolder", {"path": "C:\\my, images"}),
    "imagefolder:path=/my/images,invert=true": ("imagefolder", {"path": "/my/images", "invert": "true"}),
    "x:equation=a=b": ("x", {"equation": "a=b"}),
}


@pytest.mark.parametrize(("spec", "expected"), SPECS.items(), ids=SPECS)
def test_name_and_parameters_are_split(spec, expected):
    assert split_spec(spec) == expected


def test_path_with_an_equals_sign_is_told_how_to_be_written():
    def reads(request, *, path: Path, invert: bool = False):
        """An adapter."""

    name, given = split_spec("folder:a=b")
    with pytest.raises(UsageError, match=r"no parameter 'a'; .*path, invert \(.* written folder:path=a=b\)"):
        resolve_parameters(name, reads, given)
    name, given = split_spec("folder:path=a=b")
    assert resolve_parameters(name, reads, given)["path"] == Path("a=b")


def test_parameter_given_twice_is_refused():
    with pytest.raises(UsageError, match="'n' twice"):
        split_spec("noise:n=1,n=2")


def takes(
    evidence,
    *,
    n: int = 1,
    share: float = 0.5,
    invert: bool = False,
    kind: Literal["uniform", "gaussian"] = "uniform",
    path: Path = Path(),
    layer: str | None = None,
    classes: tuple[int, ...] = (),
    late: "int" = 0,
    checked: "Evidence | None" = None,
    untyped=None,
):
    """Parameters of every kind; `evidence` is none, as it has to be given by position."""


class Takes:
    def __init__(self, width: int, name: str = "a"):
        self.width, self.name = width, name


DEFAULTS = {name: one for name, one in takes.__kwdefaults__.items()}  # noqa: C416


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("n", "3", 3),
        ("n", 3, 3),
        ("share", "0.25", 0.25),
        ("share", 1, 1.0),
        ("invert", "true", True),
        ("invert", False, False),
        ("kind", "gaussian", "gaussian"),
        ("path", "a/b", Path("a/b")),
        ("layer", "conv1", "conv1"),
        ("classes", [7, 8], (7, 8)),
        ("late", "5", 5),
        ("checked", "as it is", "as it is"),
        ("untyped", "as it is", "as it is"),
    ],
)
def test_parameter_is_converted_to_its_annotated_type(name, given, expected):
    resolved = resolve_parameters("plugin", takes, {name: given})
    assert resolved == DEFAULTS | {name: expected}
    assert type(resolved[name]) is type(expected)


def test_parameters_that_are_not_given_have_their_defaults():
    assert resolve_parameters("plugin", takes, {}) == DEFAULTS


def test_parameters_of_a_class_are_those_of_its_constructor():
    assert resolve_parameters("plugin", Takes, {"width": "3"}) == {"width": 3, "name": "a"}


def test_class_that_passes_everything_on_has_no_parameters():
    class OfTorch(nn.Module):
        pass

    assert resolve_parameters("plugin", OfTorch, {}) == {}


@pytest.mark.parametrize(("name", "given"), [("n", "many"), ("n", 1.5), ("invert", "perhaps"), ("kind", "pink")])
def test_wrong_value_is_told_with_plugin_parameter_and_value(name, given):
    with pytest.raises(UsageError) as error:
        resolve_parameters("my-plugin", takes, {name: given})
    for part in ("'my-plugin'", repr(name), repr(given)):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["m", "evidence"])
def test_unknown_parameter_is_told_with_those_there_are(name):
    with pytest.raises(UsageError, match=rf"'plugin' has no parameter '{name}'.*n, share, invert"):
        resolve_parameters("plugin", takes, {name: 1})


def test_unknown_parameter_of_a_plugin_without_any_is_refused():
    with pytest.raises(UsageError, match="none"):
        resolve_parameters("plugin", lambda: None, {"n": 1})


def test_missing_parameter_is_named():
    with pytest.raises(UsageError, match=r"'plugin' needs the parameter 'width'"):
        resolve_parameters("plugin", Takes, {})


def test_two_files_that_declare_one_name_are_refused(tmp_path):
    text = "import oodbench\n@oodbench.detector('mine', needs='logits')\ndef mine(logits):\n    return logits[:, 0]\n"
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(text + f"# {name}\n")
    registry.load_file(tmp_path / "one.py")
    registry.load_file(tmp_path / "one.py")
    with pytest.raises(UsageError, match=r"'mine' of two\.py is taken by one\.py"):
        registry.load_file(tmp_path / "two.py")


@pytest.mark.parametrize("end", ["raise ValueError('no luck')", "raise SystemExit(0)"])
def test_file_that_ends_badly_leaves_nothing_behind(tmp_path, end):
    file = tmp_path / "half.py"
    file.write_text(
        "import oodbench\n@oodbench.detector('half', needs='logits')\ndef half(logits):\n    return logits[:, 0]\n"
        + end
    )
    with pytest.raises(UsageError, match=r"half\.py could not be run"):
        registry.load_file(file)
    assert "half" not in registry.entries("detectors")


def test_lists_are_typed_with_plus_signs():
    digits = registry.load("datasets", "digits")
    assert resolve_parameters("digits", digits.function, {"classes": "0+1+2"}) == {"classes": (0, 1, 2)}
