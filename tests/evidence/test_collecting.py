"""What is collected of samples, how often they are read, and what a process that is killed leaves behind."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from collecting import split_of
from torch import nn

from oodbench.cache.entries import DiskCache, NoCache
from oodbench.cache.tensor_files import content_sha256
from oodbench.classifiers.classifier import Classifier
from oodbench.datasets.preparation import Preprocessing
from oodbench.evidence import Evidence, caching
from oodbench.evidence.collector import EvidenceCollector
from oodbench.evidence.parts import BASIC
from oodbench.gradients import gradient_metrics
from oodbench.machine.device import Computing
from oodbench.machine.progress import silent
from oodbench.suites.schema import Input

CLASSES, SIZE = 3, 8


class Counted(nn.Module):
    """Notes for each call how many samples it had, and whether it was recorded for a backward pass."""

    calls: ClassVar[list] = []

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        self.calls.append((len(x), torch.is_grad_enabled()))
        return self.head(self.conv(x).relu().mean((2, 3)))


def made():
    torch.manual_seed(0)
    network = Counted().eval()
    return Classifier("counted", network, content_sha256(network.state_dict()), Preprocessing(Input(size=SIZE)))


def drawn(n):
    return np.random.default_rng(0).integers(0, 256, (n, 1, SIZE, SIZE), dtype=np.uint8)


def collector_of(cache):
    Counted.calls.clear()
    return EvidenceCollector(made(), cache, drawn(1)[0], silent)


def counted(collector, split, needs):
    """The sizes of the batches of a collection, and whether there were backward passes."""
    collector.probe(split)
    Counted.calls.clear()
    collector.collect(split, needs)
    # The engine looks at single samples beside each batch.
    return sum(n for n, _ in Counted.calls if n > 2), any(recorded for _, recorded in Counted.calls)


def test_only_what_is_needed_is_computed_and_later_parts_cost_themselves(tmp_path):
    split = split_of(drawn(300), "test")
    cache = DiskCache(tmp_path)
    assert counted(collector_of(cache), split, ()) == (300, False)
    assert counted(collector_of(cache), split, ("features",)) == (300, False)
    assert counted(collector_of(cache), split, ("features", "logits")) == (0, False)
    assert counted(collector_of(cache), split, ("gradients",)) == (300, True)
    assert counted(collector_of(cache), split, ("gradients", "features")) == (0, False)
    assert counted(collector_of(cache), split, BASIC) == (300, True), "for the confounding label alone"
    assert counted(collector_of(cache), split, BASIC) == (0, False)


def test_parts_are_the_same_whatever_they_are_collected_with(tmp_path):
    images = drawn(300)
    split = split_of(images, "test")
    together = collector_of(NoCache()).evidence(split, BASIC)
    one_by_one = collector_of(DiskCache(tmp_path))
    for part in BASIC:
        one_by_one.collect(split, (part,))
    alone = one_by_one.evidence(split, BASIC)
    inputs = torch.from_numpy(images).float() / 255
    expected = gradient_metrics(made().network, inputs)
    for name, column in expected.items():
        torch.testing.assert_close(alone.gradients[name], column, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together.gradients[name], alone.gradients[name], rtol=1e-5, atol=1e-7)
    for part in ("logits", "features", "confounding"):
        torch.testing.assert_close(together.parts[part], alone.parts[part], rtol=1e-5, atol=1e-6)


def test_samples_are_read_batch_by_batch():
    images, read = drawn(700), []

    def noted(indices):
        read.append(len(indices))
        return images[indices]

    split = replace(split_of(images, "test"), read=noted)
    evidence = collector_of(NoCache()).evidence(split, ("features",))
    assert len(evidence) == 700
    assert max(read) == caching.batch_of((1, SIZE, SIZE), Computing()) < 700
    assert sum(read) == 700 + 8, "each once, and those of the probe"


def test_inputs_of_several_splits_are_those_of_all_in_any_order():
    collector = collector_of(NoCache())
    parts = [drawn(30)[:12], drawn(30)[12:17], drawn(30)[17:]]
    uses = ("meta", "test", "exposed")
    evidence = [collector.evidence(split_of(images, use), ("inputs",)) for images, use in zip(parts, uses, strict=True)]
    together = Evidence.concatenate(evidence)
    expected = torch.from_numpy(drawn(30)).float() / 255
    mask = torch.arange(30) % 3 == 0
    for chosen in (slice(None), slice(5, 20), mask, [29, 0, 13, 12, 16, 0]):
        assert torch.equal(together.inputs[chosen], expected[chosen])
        assert torch.equal(together[chosen].inputs, expected[chosen])
    assert len(together.copy().inputs) == 30


def test_a_failure_while_reading_ends_the_pass(tmp_path):
    images = drawn(700)

    def broken(indices):
        if 600 in indices:
            raise ValueError("it cannot be read")
        return images[indices]

    collector = collector_of(DiskCache(tmp_path))
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="cannot be read"):
        collector.collect(replace(split_of(images, "test"), read=broken), ())
    assert torch.get_num_threads() == before


KILLED = """
import sys, time
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
import numpy as np
from pathlib import Path
from dataclasses import replace
from oodbench.evidence import Evidence, caching
caching.SHARD = 512
from collecting import split_of
from test_collecting import collector_of, drawn
from oodbench.cache.entries import DiskCache

images = drawn(6000)

def slow(indices):
    with open({log!r}, "a") as log:
        log.write(f"{{indices[0]}}\\n")
    time.sleep(0.01)
    return images[indices]

split = replace(split_of(images, "test"), read=slow)
collector_of(DiskCache(Path({cache!r}))).collect(split, ("gradients",))
"""


def test_a_killed_process_goes_on_in_the_middle_of_a_split(tmp_path, monkeypatch):
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    log, cache = tmp_path / "log", tmp_path / "cache"
    code = KILLED.format(paths=paths, log=str(log), cache=str(cache))
    generator = random.Random(1)
    kills = 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
        aim = len(list(cache.rglob("0*.safetensors"))) + generator.randint(1, 2)
        while process.poll() is None and len(list(cache.rglob("0*.safetensors"))) < aim:
            time.sleep(0.002)
        time.sleep(generator.random() * 0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 3
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setattr(caching, "SHARD", 512)
    split = split_of(drawn(6000), "test")
    resumed = collector_of(DiskCache(cache))
    assert counted(resumed, split, ("gradients",)) == (0, False)
    undisturbed = collector_of(NoCache()).evidence(split, ("gradients",))
    for name, column in resumed.evidence(split, ("gradients",)).gradients.items():
        assert torch.equal(column, undisturbed.gradients[name])
    # No shard that was finished was read again: at most what was under way at a kill.
    batches = 6000 // 256 + 1
    under_way = 512 // 256 + 2 * 2 * os.cpu_count()
    assert len(log.read_text().splitlines()) <= batches + (kills + 1) * (1 + under_way)
    assert not list(cache.rglob("*.shards"))
