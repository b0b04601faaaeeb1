"""Trained weights by content, as safetensors under the cache folder."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from oodbench import registry
from oodbench.classifiers.training import THREADS, Normalisation, to_input, train
from oodbench.datasets.splits import Split
from oodbench.errors import OodbenchError, UsageError
from oodbench.gradients.engine import forward
from oodbench.progress import Track
from oodbench.suites.suite import Suite
from oodbench.tensor_files import content_sha256, read_tensors, write_tensors


@dataclass(frozen=True)
class Classifier:
    """A trained network.

    Attributes:
        name: The plugin that built it.
        network: In eval mode.
        weights_sha256: Hash of its state: names, shapes and values.
        normalisation: Mean and standard deviation of each channel, where the network wants them taken out.
    """

    name: str
    network: nn.Module
    weights_sha256: str
    normalisation: Normalisation | None = None

    def to_input(self, images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) to what the network is given."""
        return to_input(images, self.normalisation)


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

    _try_out(entry.name, network, torch.from_numpy(training.images[:2]), classes)
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
    kept = read_tensors(file)
    if kept is not None:
        trained = network().eval()
        trained.load_state_dict(kept[0])
    else:
        images, labels = torch.from_numpy(training.images), torch.from_numpy(training.labels)
        trained = train(network, images, labels, suite.training, seed, track)
        write_tensors(file, trained.state_dict(), {})
    return Classifier(suite.classifier, trained, content_sha256(trained.state_dict()))


def _try_out(name: str, build: Callable[[], nn.Module], images: Tensor, classes: int) -> None:
    """Fail before training if the network cannot be built, or gives no logits or no features.

    Raises:
        UsageError: Says which.
    """
    try:
        with torch.random.fork_rng(devices=[]), forward(build(), to_input(images)) as run:
            shape = tuple(run.logits.shape)
            run.features  # noqa: B018 - it raises where there are none
    except OodbenchError as error:
        raise UsageError(f"the classifier {name} cannot be used: {error}") from error
    except Exception as cause:
        raise UsageError(f"the classifier {name} raised {type(cause).__name__}: {cause}.") from cause
    if shape != (len(images), classes):
        raise UsageError(f"the classifier {name} returned logits {shape}; expected ({len(images)}, {classes}).")
