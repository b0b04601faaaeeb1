"""OpenOOD's own figures on a published network come back, with parameters that are mapped in the documentation."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from in_process import command_line

from oodbench.registry.parameters import split_spec

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "cifar10"
SUITE = """
name = "parity"
version = 1
classifier = "resnet20.py:resnet20"
weights = "{cifar}/models/resnet20-12fca82f.th"
duplicates = "keep"
[known]
adapter = "imagelist"
name = "cifar10"
train = "{cifar}/lists/train_cifar10.txt"
validation = "{cifar}/lists/val_cifar10.txt"
test = "{cifar}/lists/test_cifar10.txt"
root = "{cifar}"
[unknown]
texture = {{ adapter = "imagelist", path = "{cifar}/lists/texture.txt", root = "{cifar}", group = "far" }}
[validation]
val-tin = {{ adapter = "imagelist", path = "{cifar}/lists/val_tin.txt", root = "{cifar}" }}
[input]
channels = 3
size = 32
resize = 32
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[sizes]
exposed = 0
"""
MAPPED = {
    "msp": "max-softmax",
    "ebo": "energy",
    "mls": "max-logit",
    "react": "react:at=features,fitted_on=meta",
    "ash": "ash:at=features,variant=ash-b,percentile=0.9",
    "knn": "knn",
    "dice": "dice",
    "rmds": "rmd",
    "gradnorm": "gradnorm",
    "fdbd": "fdbd",
    "she": "she",
    "ash_aps": "tuned:detector=ash:at=features;variant=ash-b,grid=openood",
    "react_aps": "tuned:detector=react:at=features;fitted_on=meta,grid=openood",
    "knn_aps": "tuned:detector=knn,grid=openood",
}
CHOSEN = {"ash_aps": "percentile=0.75", "react_aps": "percentile=0.99", "knn_aps": "k=50"}
FIGURES = ("auroc", "fpr95_unknown_positive", "fpr95_known_positive")


@pytest.fixture(scope="module")
def records(real_data, tmp_path_factory):
    """Records by OpenOOD's name of the method."""
    folder = tmp_path_factory.mktemp("parity")
    (folder / "suite.toml").write_text(SUITE.format(cifar=(real_data / "cifar").resolve()))
    shutil.copy(PUBLISHED / "resnet20.py", folder)
    asked = [f"-d{spec}" for spec in MAPPED.values()]
    done = command_line("run", "-s", "suite.toml", "-p", "unknown-unknowns", *asked, "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = [json.loads(file.read_text()) for file in (folder / "out" / "records").glob("*.json")]
    by_what = {(record["detector"]["name"], record["detector"]["params"].get("detector")): record for record in found}
    specs = {method: split_spec(spec) for method, spec in MAPPED.items()}
    return {method: by_what[name, parameters.get("detector")] for method, (name, parameters) in specs.items()}


@pytest.mark.parametrize("method", MAPPED)
def test_figures_are_openoods(method, records, real_data):
    rows = csv.DictReader((real_data / "cifar" / "openood_resnet20.csv").open())
    (row,) = [row for row in rows if (row["method"], row["set"]) == (method, "texture")]
    (result,) = records[method]["results"]
    assert (result["n_known"], result["n_unknown"]) == (9_000, int(row["n_unknown"]))
    found = [result["metrics"][figure]["value"] for figure in FIGURES]
    assert found == pytest.approx([float(row[figure]) for figure in FIGURES], abs=5e-4)


@pytest.mark.parametrize("method", CHOSEN)
def test_parameters_are_chosen_as_openoods_search_chooses(method, records):
    assert records[method]["detector"]["learnt"]["chosen"].endswith(CHOSEN[method])
