"""The cell_id: everything that can change a number is in it, and nothing else."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import oodbench
from oodbench import registry
from oodbench.classifiers.cnn import cnn
from oodbench.evidence import caching
from oodbench.machine.progress import silent
from oodbench.records.record import Record, identity
from oodbench.runs.cells import JobRunner
from oodbench.runs.prepared import prepare_run
from oodbench.runs.resolved import resolve_run
from oodbench.runs.spec import make_spec
from oodbench.suites.schema import Input, Sizes, Suite, Training

SUITE = {
    "name": "small",
    "version": 1,
    "classifier": "cnn",
    "known": "digits",
    "seeds": [0],
    "unknown": {"noise": {"n": 40, "group": "far"}, "patches": {"adapter": "patches", "group": "far"}},
    "input": {"size": 8},
    "sizes": {"train": 120, "meta": 30, "test": 30, "exposed": 10, "unknown": 10},
    "training": {"epochs": 1, "batch_size": 30},
}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def toml(value):
    """On one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(one)}' for key, one in value.items())} }}"
    return json.dumps(value)


def cells(tmp_path, change=None, detectors=("entropy", "energy"), **choices):
    """Protocol, tested sets, detector and seed of each cell to its cell_id, from a plan alone."""
    table = {**SUITE, **(change or {})}
    (tmp_path / "suite.toml").write_text("".join(f"{key} = {toml(value)}\n" for key, value in table.items()))
    spec = make_spec({"suite": str(tmp_path / "suite.toml"), "detectors": detectors, **choices})
    run = prepare_run(resolve_run(spec), data=tmp_path, download=False, track=silent)
    found = {}
    for seed in run.seeds:
        runner = JobRunner(run.trial(seed))
        for job in run.jobs(seed):
            for pending in runner.pending(job):
                case = pending.case
                found[pending.fields["protocol"], case.tested, case.exposed, job.detector.label, seed] = pending.cell_id
    return found


def test_a_plan_and_the_records_say_the_same(tmp_path):
    planned = cells(tmp_path)
    records = oodbench.run(str(tmp_path / "suite.toml"), ["entropy", "energy"], out=tmp_path / "out")
    assert sorted(planned.values()) == sorted(record.cell_id for record in records)
    for record in records:
        file = tmp_path / "out" / "records" / f"{record.cell_id}.json"
        assert identity(Record.model_validate_json(file.read_bytes())) == record.cell_id


# Each field of the configuration, with a change of it. Who adds a field has to say here what it is.

OTHER_CLASSIFIER = """
import oodbench.classifiers.cnn as own


def build(channels, size, classes):
    return own.cnn(channels, size, classes)
"""
HELD_OUT = {"adapter": "digits", "split": "test"}
OTHER_PREPROCESSING = """
import torch


def transform(picture):
    return torch.full((1, 8, 8), float(picture.width))
"""
# These change how some pictures are decoded, and the digits are none of them.
OF_SOME_PICTURES = {"ground", "orientation", "depth"}
# These change runs with duplicates, of which the digits have none, and with `tuned`.
OF_SOME_RUNS = {"duplicates", "validation"}
IDENTITY_OF_A_SUITE = {
    "name": {"name": "other"},
    "version": {"version": 2},
    "classifier": {"classifier": "model.py:build"},
    "weights": {"weights": "weights.safetensors", "known": HELD_OUT},
    "classes": {"classes": ["3", "1", "2", "0", "4", "5", "6", "7", "8", "9"]},
    "drawing": {"drawing": "prepared"},
    "duplicates": {"duplicates": "keep"},
    "validation": {"validation": {"rendered-letters": {}}},
    "penultimate": {"penultimate": "fc2"},
    "known": {"known": {"adapter": "digits", "classes": [0, 1, 2, 3]}},
    "seeds": {"seeds": [1]},
    "unknown": {"unknown": {**SUITE["unknown"], "noise": {"n": 40, "group": "near"}}},
    "input.size": {"input": {"size": 10}},
    "input.channels": {"input": {"size": 8, "channels": 3}},
    "input.resolution": {"input": {"size": 8, "resolution": 9}},
    "input.levels": {"input": {"size": 8, "levels": 4}},
    "input.mean": {"input": {"size": 8, "mean": [0.2], "std": [0.3]}},
    "input.std": {"input": {"size": 8, "mean": [0.0], "std": [0.3]}},
    "input.preset": {
        "classifier": "torchvision:mnasnet0_5",
        "input": {"size": 32, "preset": "model", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    },
    "input.resize": {"input": {"size": 8, "resize": 12}},
    "input.interpolation": {"input": {"size": 8, "interpolation": "nearest"}},
    "input.transform": {"input": {"transform": "prep.py:transform"}},
    "input.ground": {"input": {"size": 8, "ground": "black"}},
    "input.orientation": {"input": {"size": 8, "orientation": "exif"}},
    "input.depth": {"input": {"size": 8, "depth": 12}},
    "sizes.train": {"sizes": {**SUITE["sizes"], "train": 121}},
    "sizes.meta": {"sizes": {**SUITE["sizes"], "meta": 31}},
    "sizes.test": {"sizes": {**SUITE["sizes"], "test": 31}},
    "sizes.exposed": {"sizes": {**SUITE["sizes"], "exposed": 11}},
    "sizes.unknown": {"sizes": {**SUITE["sizes"], "unknown": 11}},
    "training.epochs": {"training": {**SUITE["training"], "epochs": 2}},
    "training.batch_size": {"training": {**SUITE["training"], "batch_size": 20}},
    "training.learning_rate": {"training": {**SUITE["training"], "learning_rate": 0.001}},
    "training.weight_decay": {"training": {**SUITE["training"], "weight_decay": 0.1}},
}
IDENTITY_OF_A_RUN = {
    "suite", "detectors", "protocols", "seeds", "classifier", "weights", "transform", "penultimate", "replace",
    "plugins", "limit", "skip_unreadable", "drop_shared", "device", "precision",
}  # fmt: skip
RUN_TIME = {
    "data",
    "download",
    "out",
    "skip_missing",
    "trust_model",
    "timeout",
    "batch",  # scores are the same but for rounding, and records have it
    "log_file",
    "rerun",
    "executor",
    "scheduler",
    "workers",
    "resources",
    "track",
}


def test_every_field_of_the_configuration_is_classed():
    tables = {"input": Input, "sizes": Sizes, "training": Training}
    fields = {name for name in Suite.model_fields if name not in tables}
    fields |= {f"{table}.{name}" for table, model in tables.items() for name in model.model_fields}
    assert fields == set(IDENTITY_OF_A_SUITE), "say what changes with it"
    assert set(inspect.signature(oodbench.run).parameters) == IDENTITY_OF_A_RUN | RUN_TIME, "identity or run-time?"


@pytest.mark.parametrize("change", IDENTITY_OF_A_SUITE.values(), ids=IDENTITY_OF_A_SUITE)
def test_whatever_can_change_a_number_changes_the_identity(tmp_path, change):
    (tmp_path / "model.py").write_text(OTHER_CLASSIFIER)
    torch.manual_seed(9)
    save_file(cnn(1, 8, 10).state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "prep.py").write_text(OTHER_PREPROCESSING)
    before, after = cells(tmp_path), cells(tmp_path, change)
    if change.get("input", {}).keys() & OF_SOME_PICTURES or change.keys() & OF_SOME_RUNS:
        assert before == after
        return
    assert set(before.values()) != set(after.values())
    if "unknown" not in change and "sizes" not in change:
        assert not set(before.values()) & set(after.values())


def test_the_choices_of_a_run_change_the_identity(tmp_path):
    before = set(cells(tmp_path).values())
    assert not before & set(cells(tmp_path, seeds=[1]).values())
    assert not before & set(cells(tmp_path, limit=9).values())
    assert not before & set(cells(tmp_path, detectors=["max-logit"]).values())
    assert not before & set(cells(tmp_path, precision="amp").values())
    assert set(cells(tmp_path, protocols="known").values()) < before
    assert set(cells(tmp_path, replace={"noise": "rendered-letters"}).values()) != before


def test_nothing_else_changes_it(tmp_path):
    assert cells(tmp_path, timeout=5.0, batch=7, device="cpu") == cells(tmp_path)
    assert cells(tmp_path) == cells(tmp_path)


# Exactly the cells that depend on something


def changed(before, after):
    return {key for key in before if before[key] != after.get(key)}


def test_a_parameter_changes_the_cells_of_its_detector(tmp_path):
    before = cells(tmp_path, detectors=["entropy", "energy"])
    after = cells(tmp_path, detectors=["entropy", "energy:temperature=2"])
    assert {id for key, id in before.items() if key[3] == "entropy"} == {
        id for key, id in after.items() if key[3] == "entropy"
    }
    assert not {id for key, id in before.items() if key[3] == "energy"} & set(after.values())


def test_the_code_of_a_plugin_changes_its_cells(tmp_path):
    code = "import oodbench\n@oodbench.detector('mine', needs='logits')\ndef mine(logits):\n    return -logits[:, {}]\n"
    found = []
    for column in (0, 1):
        (tmp_path / "mine.py").write_text(code.format(column))
        with registry.scoped():
            registry.load_file(tmp_path / "mine.py")
            found.append(cells(tmp_path, detectors=["entropy", "mine"]))
    assert {key[3] for key in changed(*found)} == {"mine"}


def test_one_image_changes_the_cells_that_see_its_set(tmp_path):
    folder = tmp_path / "pictures" / "class"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i:02}.png")
    change = {"unknown": {**SUITE["unknown"], "pictures": {"adapter": "imagefolder", "path": "pictures"}}}
    change["sizes"] = {**SUITE["sizes"], "unknown": 100}
    before = cells(tmp_path, change, ["entropy", "grad-combo"])
    for file in folder.iterdir():  # the first sample in either half
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
        break
    after = cells(tmp_path, change, ["entropy", "grad-combo"])
    touched = changed(before, after)
    assert touched
    assert all("pictures" in (*tested, *exposed) for _, tested, exposed, _, _ in touched)
    assert ("known", (), (), "entropy", 0) not in touched


def test_one_weight_and_the_engine_change_every_cell(tmp_path, monkeypatch):
    torch.manual_seed(3)
    weights = cnn(1, 8, 10).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    before = cells(tmp_path, {"weights": "weights.safetensors", "known": HELD_OUT})
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1e-6
    save_file(weights, tmp_path / "weights.safetensors")
    after = cells(tmp_path, {"weights": "weights.safetensors", "known": HELD_OUT})
    assert changed(before, after) == set(before)
    monkeypatch.setattr(caching, "ENGINE_VERSION", 99)
    assert changed(after, cells(tmp_path, {"weights": "weights.safetensors", "known": HELD_OUT})) == set(after)


def test_versions_of_numerical_packages_are_part_of_it(tmp_path):
    cells(tmp_path)
    (record, *_) = oodbench.run(str(tmp_path / "suite.toml"), ["entropy"], ["known"], out=tmp_path / "out")
    versions = record.provenance.versions | {"torch": "1.0"}
    other = record.model_copy(update={"provenance": record.provenance.model_copy(update={"versions": versions})})
    assert identity(other) != record.cell_id
    old = record.model_copy(update={"identity_version": 1})
    assert identity(old) == identity(other.model_copy(update={"identity_version": 1}))


def test_published_records_are_still_what_they_were():
    """Records of before versions of packages were part of it."""
    files = sorted((Path(__file__).parents[2] / "leaderboards" / "digits" / "records").glob("*.json"))[:20]
    records = [Record.model_validate_json(file.read_bytes()) for file in files]
    assert records
    assert [identity(record) for record in records] == [file.stem for file in files]
