"""Trained weights by content, as safetensors under the cache folder."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from oodbench import registry
from oodbench.atomic import write_atomically
from oodbench.classifiers.training import THREADS, train
from oodbench.datasets.splits import Split
from oodbench.progress import Track
from oodbench.suites.suite import Suite


@dataclass(frozen=True)
class Classifier:
    """A trained network.

    Attributes:
        name: The plugin that built it.
        network: In eval mode.
        weights_sha256: Hash of its state: names, shapes and values.
    """

    name: str
    network: nn.Module
    weights_sha256: str


def trained_classifier(suite: Suite, training: Split, classes: int, seed: int, cache: Path, track: Track) -> Classifier:
    """The suite's classifier, from the cache if the same one was trained before.

    Args:
        suite: Names the classifier and its hyper-parameters.
        training: The known training split.
        classes: Number of known classes.
        seed: Seed of the training.
        cache: The cache folder.
        track: Shows progress.
    """
    entry = registry.get("classifiers", suite.classifier)
    build = registry.load("classifiers", suite.classifier)

    def network() -> nn.Module:
        built: nn.Module = build(suite.input.channels, suite.input.size, classes)
        return built

    identity = {
        "architecture": [entry.target, entry.distribution, entry.version, str(network())],
        "data": training.sha256,
        "training": suite.training.model_dump(),
        "seed": seed,
        "threads": THREADS,
        "versions": {"torch": version("torch"), "oodbench": version("oodbench")},
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    file = cache / "weights" / f"{key}.safetensors"
    if file.exists():
        kept = network().eval()
        kept.load_state_dict(load_file(file))
        return Classifier(suite.classifier, kept, weights_sha256(kept))
    images, labels = torch.from_numpy(training.images), torch.from_numpy(training.labels)
    fresh = train(network, images, labels, suite.training, seed, track)
    write_atomically(file, lambda path: save_file(fresh.state_dict(), path))
    return Classifier(suite.classifier, fresh, weights_sha256(fresh))


def weights_sha256(network: nn.Module) -> str:
    """Hash of a network's state, whatever file it came from."""
    content = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
