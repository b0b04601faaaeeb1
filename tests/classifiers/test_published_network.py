"""The example of the README: a published network as it is, on the images that its author tested it on, and others."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import command_line

from oodbench.machine.progress import silent
from oodbench.runs.prepared import prepare_run
from oodbench.runs.resolved import resolve_run
from oodbench.runs.spec import make_spec

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def folder(real_data, tmp_path, monkeypatch):
    """A folder with the suite of the README, the network, and a link to the images."""
    (text,) = re.findall(r"```toml\n(name = \"cifar10-resnet20\".*?)```", README.read_text(), flags=re.DOTALL)
    assert len(text.splitlines()) <= 20
    (tmp_path / "cifar10.toml").write_text(text)
    (tmp_path / "cifar").symlink_to((real_data / "cifar").resolve())
    shutil.copy(README.parent / "leaderboards" / "cifar10" / "resnet20.py", tmp_path)
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_it_is_as_accurate_as_its_author_says_on_all_of_the_list(folder):
    spec = make_spec({"suite": str(folder / "cifar10.toml"), "detectors": "entropy", "drop_shared": True})
    run = prepare_run(resolve_run(spec), data=None, download=False, track=silent)
    test = run.splits.test
    assert len(test.labels) == 9_000
    classifier = run.trial(0).collector.classifier
    images = torch.from_numpy(test.images)
    with torch.no_grad():
        predictions = [classifier.network(classifier.to_input(chunk)).argmax(dim=1) for chunk in images.split(500)]
    accuracy = float(np.mean(torch.cat(predictions).numpy() == test.labels))
    assert 0.91 < accuracy < 0.925


def test_its_one_command_ends_in_a_table(folder):
    asked = ("run", "-s", "cifar10.toml", "-d", "entropy", "-d", "knn", "-p", "unknown-unknowns", "--limit", "60")
    refused = command_line(*asked, cwd=folder)
    assert refused.returncode == 2
    assert "cifar10/train/dog/dog_s_001057.png and " in refused.stderr
    done = command_line(*asked, "--drop-shared", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Tested on 60 known samples, and unknown ones: 60 of cifar100, 60 of tin, 60 of texture" in done.stdout
