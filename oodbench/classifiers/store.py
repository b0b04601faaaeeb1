"""A suite's classifier: trained, and its weights kept by content under the cache folder, or with given weights."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from oodbench.cache.entries import kept_or_made
from oodbench.cache.tensor_files import Kept, content_sha256
from oodbench.classifiers.blueprint import Blueprint
from oodbench.classifiers.training import THREADS, Normalisation, to_input, train
from oodbench.classifiers.weights import load_weights, weights_file
from oodbench.datasets.splits import Split
from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, OodbenchError, UsageError, blaming, one_line
from oodbench.gradients.engine import forward
from oodbench.progress import Track
from oodbench.suites.suite import PRETRAINED, Suite


@dataclass(frozen=True)
class Classifier:
    """A trained network.

    Attributes:
        name: What the user asked for.
        network: In eval mode.
        weights_sha256: Hash of its state: names, shapes and values.
        normalisation: Mean and standard deviation of each channel, where the network wants them taken out.
        penultimate: Name of the Linear layer whose input are the features, where it is not to be found.
        code: Hash of the user's own file that builds it, if one does.
    """

    name: str
    network: nn.Module
    weights_sha256: str
    normalisation: Normalisation | None = None
    penultimate: str | None = None
    code: str = ""

    def to_input(self, images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) to what the network is given."""
        return to_input(images, self.normalisation)


def make_classifier(
    suite: Suite,
    blueprint: Blueprint,
    training: Split,
    classes: int,
    seed: int,
    cache: Path,
    track: Track,
    *,
    download: bool = False,
) -> Classifier:
    """The suite's classifier: with the weights that the suite names, or else trained.

    Args:
        suite: Names the weights, or the hyper-parameters of the training.
        blueprint: Builds the network.
        training: The known training split.
        classes: Number of known classes.
        seed: Seed of the training.
        cache: The cache folder.
        track: Shows progress.
        download: Whether pretrained weights may be downloaded.

    Raises:
        UsageError: The network, or its weights, cannot be used.
        MissingPrerequisiteError: The weights are not there.
    """
    with torch.random.fork_rng(devices=[]):
        if suite.weights == PRETRAINED:
            network = _pretrained(suite, blueprint, classes, download)
        else:
            network = _built(suite, blueprint, classes)
            if suite.weights is not None:
                load_weights(network, weights_file(suite.weights, seed), classes)
        _try_out(suite, blueprint, network, torch.from_numpy(training.images[:2]), classes)
    if suite.weights is None:
        network = _trained(suite, blueprint, network, training, classes, seed, cache, track)
    return Classifier(
        suite.classifier,
        network.eval(),
        content_sha256(network.state_dict()),
        suite.input.normalisation,
        suite.penultimate,
        blueprint.code,
    )


def _trained(
    suite: Suite,
    blueprint: Blueprint,
    untrained: nn.Module,
    training: Split,
    classes: int,
    seed: int,
    cache: Path,
    track: Track,
) -> nn.Module:
    """The trained network, from the cache if the same one was trained before."""
    identity = {
        "architecture": [*blueprint.origin, str(untrained)],
        "data": training.sha256,
        "training": suite.training.model_dump(),
        "seed": seed,
        "threads": THREADS,
        "versions": {"torch": version("torch"), "oodbench": version("oodbench")},
    }
    if suite.input.normalisation is not None:
        identity["normalisation"] = suite.input.normalisation

    def make() -> Kept:
        images, labels = torch.from_numpy(training.images), torch.from_numpy(training.labels)
        with blaming(f"the training of the classifier {blueprint.name}"):
            trained = train(
                lambda: _built(suite, blueprint, classes),
                images,
                labels,
                suite.training,
                seed,
                track,
                suite.input.normalisation,
            )
        # Each tensor by itself, as weights may share their memory.
        return {name: tensor.clone() for name, tensor in trained.state_dict().items()}, {}

    untrained.load_state_dict(kept_or_made(cache, "weights", identity, make)[0])
    return untrained


def _built(suite: Suite, blueprint: Blueprint, classes: int) -> nn.Module:
    with blaming(f"the classifier {blueprint.name}"):
        network = blueprint.build(suite.input.channels, suite.input.size, classes)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"the classifier {blueprint.name} built a {type(network).__name__}; expected a torch.nn.Module."
        )
    return network


def _pretrained(suite: Suite, blueprint: Blueprint, classes: int, download: bool) -> nn.Module:
    if blueprint.pretrained is None:
        raise UsageError(
            f"the classifier {blueprint.name} has no pretrained weights, as those of torchvision and timm have; give "
            "a file of weights."
        )
    if not download:
        raise MissingPrerequisiteError(
            f"the pretrained weights of the classifier {blueprint.name} are only downloaded with --download."
        )
    try:
        return blueprint.pretrained(suite.input.channels, suite.input.size, classes)
    except (OodbenchError, *FROM_OUTSIDE):
        raise
    except BaseException as cause:
        raise MissingPrerequisiteError(
            f"the download of the pretrained weights of the classifier {blueprint.name} failed: {one_line(cause)}; "
            "check the connection, or give a file of weights."
        ) from cause


def _try_out(suite: Suite, blueprint: Blueprint, network: nn.Module, images: Tensor, classes: int) -> None:
    """Fail before training if the network gives no logits or no features.

    Raises:
        UsageError: Says which.
    """
    name = blueprint.name
    inputs = to_input(images, suite.input.normalisation)
    with blaming(f"the classifier {name}"):
        try:
            with forward(network, inputs, last_layer=suite.penultimate) as run:
                logits, features = tuple(run.logits.shape), tuple(run.features.shape)
        except OodbenchError as error:
            raise UsageError(f"the classifier {name} cannot be used: {error}") from error
    if logits != (len(images), classes):
        raise UsageError(
            f"the classifier {name} returned logits {logits}; expected ({len(images)}, {classes}), one for each of the "
            f"{classes} known classes."
        )
    if len(features) != 2 or features[0] != len(images):
        raise UsageError(
            f"the classifier {name} has penultimate features {features}; expected ({len(images)}, D): name another "
            "layer (penultimate)."
        )
