"""Plugin packages: those that `oodbench new` makes, those in plugins/, and the one that plugins/README.md shows."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
EXAMPLES = ("oodbench-margin", "oodbench-gradorth", "oodbench-fashion-mnist")
README = (PLUGINS / "README.md").read_text()
SHOWN = ("logit-spread", "centroid", "mirrored-energy", "mean-rank")
NAMES = {"detector": "my-score", "dataset": "my-stripes"}
# Those of the package's own linters, with nothing left out but the field's symbols in docstrings.
RULES = 'lint.select=["E","F","W","I","B","UP","SIM","RUF","D","ANN","PT","PL","C4","N"]'


def python(*arguments, cwd=None, path=()):
    """Run Python where the folders of `path` are importable as if they were installed."""
    folders = os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, timeout=300, check=False,
        # As in the other tests; two processes with two threads each on two processors wait for each other. The data
        # sets of the examples' tests are their own.
        env={key: value for key, value in os.environ.items() if key != "OODBENCH_DATA"}
        | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def oodbench(*arguments, cwd=None, path=()):
    return python("-m", "oodbench", *arguments, cwd=cwd, path=path)


def register(package, site):
    """What an installer writes for a package that is used from where it is: its name, version and entry points."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in points.items())])
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a new package of each kind, and what making them printed."""
    folder = tmp_path_factory.mktemp("made")
    done = {kind: oodbench("new", kind, name, cwd=folder) for kind, name in NAMES.items()}
    return folder, done


@pytest.fixture(scope="module")
def packages(made, tmp_path_factory):
    """All packages, and a folder where they are registered: new ones, the examples, and that of the README."""
    shown = tmp_path_factory.mktemp("shown")
    for path, content in re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", README, flags=re.DOTALL):
        (shown / path).parent.mkdir(parents=True, exist_ok=True)
        (shown / path).write_text(content)
    every = [shown, *(made[0] / f"oodbench-{name}" for name in NAMES.values()), *(PLUGINS / name for name in EXAMPLES)]
    site = tmp_path_factory.mktemp("site")
    for package in every:
        register(package, site)
    return every, [site, *every]


# What is made


@pytest.mark.parametrize("kind", NAMES)
def test_it_prints_what_was_made_and_three_commands(made, kind):
    folder, done = made
    assert (done[kind].returncode, done[kind].stderr) == (0, "")
    package = folder / f"oodbench-{NAMES[kind]}"
    files = {str(file.relative_to(folder)) for file in package.rglob("*") if file.is_file()}
    above, below = done[kind].stdout.split("\n\nNext:\n")
    assert {line.removeprefix("made ") for line in above.splitlines()} == files
    commands = [shlex.split(line) for line in below.splitlines()]
    # What makes pytest available, whatever was installed with oodbench.
    assert commands[0] == ["pip", "install", "-e", f"./{package.name}[test]"]
    assert commands[1] == ["python", "-m", "pytest", package.name]
    assert commands[2][:2] == ["oodbench", "run"]
    assert sorted(child.name for child in folder.iterdir()) == ["oodbench-my-score", "oodbench-my-stripes"]


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling, which builds the packages")
@pytest.mark.parametrize("kind", NAMES)
def test_it_can_be_installed(made, tmp_path, kind):
    package = made[0] / f"oodbench-{NAMES[kind]}"
    source = shutil.copytree(package, tmp_path / "source")
    installed = tmp_path / "site"
    done = python("-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps",
                  "--target", installed, source)  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = oodbench("list", f"{kind}s", cwd=tmp_path, path=[installed])
    assert re.search(rf"^{NAMES[kind]} +oodbench-{NAMES[kind]} 0\.1\.0 ", listed.stdout, flags=re.MULTILINE)
    packages = {folder.name for folder in installed.iterdir() if folder.suffix != ".dist-info"}
    assert packages == {f"oodbench_{NAMES[kind].replace('-', '_')}"}


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="needs ruff, which checks the packages' style")
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("name", ["a", "a-name-that-is-longer-than-most-of-those-in-use"])
def test_it_is_clean(tmp_path, kind, name):
    assert oodbench("new", kind, name, "--into", tmp_path).returncode == 0
    for arguments in (
        ["check", "--config", RULES, "--config", 'lint.pydocstyle.convention="google"', "--ignore", "PLR2004,RUF002"],
        ["check"],
        ["format", "--check"],
    ):
        done = python("-m", "ruff", *arguments, "--no-cache", tmp_path / f"oodbench-{name}")
        assert done.returncode == 0, done.stdout


def test_the_data_set_is_the_same_in_any_order_and_its_splits_share_nothing(made):
    code = (
        "from pathlib import Path\nimport numpy as np\nfrom oodbench.datasets.adapter import Request\n"
        "from oodbench_my_stripes import my_stripes\n"
        "pools = [my_stripes.read(Request(Path(), split, resolution=8), {}) for split in ('train', 'test')]\n"
        "seen = set()\n"
        "for pool in pools:\n"
        "    images = [np.asarray(image) for image in pool.images]\n"
        "    assert len(images) == len(pool.labels)\n"
        "    for index in reversed(range(len(images))):\n"
        "        assert np.array_equal(pool.images[index], images[index])\n"
        "        seen.add(images[index].tobytes())\n"
        "assert len(seen) == 1500, len(seen)\n"
    )
    done = python("-c", code, path=[made[0] / "oodbench-my-stripes"])
    assert done.returncode == 0, done.stderr


# What is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["detector", "My"], "'My' cannot name a plugin; expected lower-case letters, digits and single hyphens"),
        (["detector", "my_score"], "'my_score' cannot name a plugin"),
        (["detector", "2nd"], "beginning with a letter"),
        (["detector", "a--b"], "'a--b' cannot name"),
        (["detector", "a-"], "'a-' cannot name"),
        (["detector", "a\n"], "'a\\n' cannot name"),
        (["detector", "../a"], "'../a' cannot name"),
        (["detector", "größe"], "'größe' cannot name"),
        (["detector", ""], "'' cannot name"),
        (["detector", "lambda"], "'lambda' has a meaning of its own"),
        (["detector", "float"], "'float' has a meaning of its own"),
        (["dataset", "np"], "'np' has a meaning of its own"),
        (["detector", "entropy"], "the detector name 'entropy' is taken by oodbench"),
        (["dataset", "cifar10"], "the dataset name 'cifar10' is taken by oodbench"),
        (["detector", "a", "--into", "/dev/null/x"], "the folder /dev/null/x cannot be written to"),
        (["detector", "a" * 300], "cannot be written: File name too long"),
        (["suite", "a"], "is not one of 'detector', 'dataset'"),
    ],
)
def test_a_mistake_ends_in_one_sentence(tmp_path, arguments, sentence):
    done = oodbench("new", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "file", "dangling link"])
def test_nothing_is_overwritten(tmp_path, there):
    target = tmp_path / "oodbench-mine"
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    done = oodbench("new", "detector", "mine", "--into", tmp_path)
    assert done.returncode == 2
    assert "oodbench-mine is there already, and nothing is overwritten" in done.stderr
    assert list(tmp_path.iterdir()) == [target]
    assert not target.is_dir() or list(target.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path):
    tmp_path.chmod(0o500)
    done = oodbench("new", "detector", "mine", "--into", tmp_path)
    tmp_path.chmod(0o700)
    assert done.returncode == 2
    assert f"the folder {tmp_path} cannot be written to: Permission denied; choose another --into." in done.stderr


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path, monkeypatch):
    from oodbench.errors import UsageError
    from oodbench.scaffold.package import make_package

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match="oodbench-mine cannot be written: No space left on device; choose another"):
        make_package("detector", "mine", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_verb_loads_no_torch(tmp_path):
    code = (
        "import sys\nfrom oodbench.cli import run_command_line\n"
        "try:\n    run_command_line(['new', 'detector', 'mine'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'pydantic'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "oodbench-mine").is_dir()


# All packages


def test_their_tests_pass(packages, tmp_path):
    """In one process, as the kit trains a network first; the examples' own tests are among them."""
    every, path = packages
    done = python("-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--import-mode=importlib", *every,
                  cwd=tmp_path, path=path)  # fmt: skip
    assert done.returncode == 0, done.stdout
    for name in (*NAMES.values(), *SHOWN, "checkers", "margin", "gradorth", "fashion-mnist"):
        assert re.search(rf"PASSED .*\[{name}: ", done.stdout), name
    assert "its files are not there" not in done.stdout


def test_they_run(made, packages, tmp_path):
    """Those of the README by the command there, and the new ones by the one that was printed, on a shorter training."""
    folder, done = made
    suite = folder / "oodbench-my-stripes" / "suite.toml"
    suite.write_text(suite.read_text().replace("epochs = 20", "epochs = 1"))
    (shown,) = re.findall(r"^oodbench (run -s .*)$", README, flags=re.MULTILINE)
    printed = f"{done['dataset'].stdout.splitlines()[-1].removeprefix('  oodbench ')} -d my-score --seed 0 --limit 60"
    # In one process, as it takes longer to import torch than to run either.
    code = (
        "import json, sys\nfrom oodbench.cli import run_command_line\nfor arguments in json.loads(sys.argv[1]):\n"
        "    try:\n        run_command_line(arguments)\n    except SystemExit as end:\n        assert not end.code\n"
    )
    outs = [tmp_path / "shown", tmp_path / "printed"]
    commands = [[*shlex.split(one), "--out", str(out)] for one, out in zip([shown, printed], outs, strict=True)]
    ran = python("-c", code, json.dumps(commands), cwd=folder, path=packages[1])
    assert ran.returncode == 0, ran.stderr

    records = [[json.loads(file.read_text()) for file in (out / "records").iterdir()] for out in outs]
    found = [{(one["detector"]["name"], one["status"]) for one in some} for some in records]
    assert found == [{(name, "ok") for name in SHOWN}, {("entropy", "ok"), ("my-score", "ok")}]
    tested = [{result["dataset"] for one in some for result in one["results"]} for some in records]
    assert tested == [{"checkers"}, {"digits", "my-stripes"}]
    assert {one["detector"]["distribution"] for one in records[0]} == {"my-plugins"}
    assert {one["classifier"]["name"] for one in records[0]} == {"mlp"}
    assert {one["protocol"] for one in records[0]} == {"first-exposed"}
