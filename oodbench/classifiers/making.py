"""Makes a suite's classifier: with weights from training, from the cache, from a file or from an object."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.cache.entries import Cache, kept_of_same_network
from oodbench.cache.tensor_files import Kept, content_sha256
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.own_networks import as_usable, unwrapped
from oodbench.classifiers.probe import Probe, outputs_of, picture_inputs, sample_inputs, training_outputs, without_probe
from oodbench.classifiers.spec import Build, ClassifierSpec
from oodbench.classifiers.training import THREADS, Read, to_input, train
from oodbench.classifiers.weights import load_weights, weights_file
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.splits import Split
from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, OodbenchError, UsageError, blaming, one_line
from oodbench.gradients.copying import copied
from oodbench.gradients.engine import forward
from oodbench.machine.device import CPU, FLOAT32, Computing
from oodbench.machine.progress import Track
from oodbench.suites.schema import GIVEN, PRETRAINED, Suite

logger = logging.getLogger(__name__)

# Prepared images of a training split up to this size are kept in memory.
KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ClassifierMaker:
    """Makes the classifier of a suite for a seed: with the weights that the suite names, or else by training.

    Attributes:
        suite: The suite, with the name of the weights or the hyper-parameters of the training.
        spec: Builds the network.
        preprocessing: How pictures become inputs.
        training: The known training split, if the classifier is trained.
        example: A few prepared images (N, C, H, W), to try the network out.
        classes: Number of outputs.
        cache: Where trained weights are kept.
        track: Shows progress.
        download: Whether pretrained weights may be downloaded.
        computing: Where it is trained and computes, and how.
    """

    suite: Suite
    spec: ClassifierSpec
    preprocessing: Preprocessing
    training: Split | None
    example: NDArray[np.generic]
    classes: int
    cache: Cache
    track: Track
    download: bool = False
    computing: Computing = FLOAT32

    def make(self, seed: int) -> Classifier:
        """Make the classifier for a seed.

        Raises:
            UsageError: The network or its weights cannot be used.
            MissingPrerequisiteError: The weights are missing.
        """
        suite = self.suite
        with torch.random.fork_rng(devices=[]):
            if suite.weights == PRETRAINED:
                network = self._load_pretrained()
            elif suite.weights == GIVEN:
                network = self._usable(self._called(self.spec.given))
            else:
                torch.manual_seed(seed)  # as in training, so that what is random outside of the weights is the same
                network = self._with_weights(seed) if suite.weights is not None else self._build()
            self._try_out(network, torch.from_numpy(self.example[:2]))
        if suite.weights is None:
            network = self._train_or_read(network, seed)
        weights_sha256 = content_sha256(network.state_dict())
        if self.computing.device.type != "cpu":
            network = copied(network).to(self.computing.device)  # a copy, as it may be the user's own
        return Classifier(
            suite.classifier,
            network.eval(),
            weights_sha256,
            self.preprocessing,
            suite.penultimate,
            self.spec.code,
            self.computing,
        )

    def _with_weights(self, seed: int) -> nn.Module:
        """The network with the weights in a file."""
        name = self.spec.name
        assert self.suite.weights is not None, "it is asked for a file of weights"
        network, changes = unwrapped(self._called(self.spec.build))
        self._say(f"the classifier {name}", changes)
        file, key = weights_file(self.suite.weights, seed)
        taken_off = load_weights(network, file, self.classes, key=key, unused=self.spec.unused)
        self._say(f"the weights {file}", taken_off)
        return self._usable(network)

    def _train_or_read(self, untrained: nn.Module, seed: int) -> nn.Module:
        """Load trained weights into the network: from the cache, or else by training."""
        suite, training = self.suite, self.training
        assert training is not None, "opening a known set without weights gives a training split"
        identity: dict[str, Any] = {
            "architecture": [*self.spec.origin, str(untrained), self.spec.code],
            "data": training.sha256,
            "training": suite.training.model_dump(),
            "preprocessing": self.preprocessing.identity,
            "seed": seed,
            "threads": THREADS,
            "frozen": [name for name, weight in untrained.named_parameters() if not weight.requires_grad],
            "versions": {"torch": version("torch"), "oodbench": version("oodbench")},
            **self.computing.identity,
        }
        before = self._probe_untrained(untrained, seed)

        def make() -> Kept:
            labels = torch.from_numpy(training.labels)
            with blaming(f"the training of the classifier {self.spec.name}"):
                trained = train(
                    self._build, self._reader(training), labels, suite.training, seed, self.track, self.computing
                ).to(CPU)
            # A copy of each tensor, as weights may share memory.
            tensors = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
            return tensors | before.tensors("untrained ") | self._probe(trained).tensors(), {}

        def is_same(kept: Kept) -> bool:
            if not before.is_of(kept, "untrained "):
                return False
            state = untrained.state_dict()  # with the versions of modules, which no file of tensors has
            state.update(without_probe(kept)[0])
            untrained.load_state_dict(state)
            return self._probe(untrained).is_of(kept)

        kept_of_same_network(self.cache, "weights", identity, make, is_same)
        return untrained

    def _reader(self, training: Split) -> Read:
        """Reads inputs of the training; small data are read once, and larger ones again in each epoch."""
        size = len(training.labels) * prod(self.preprocessing.shape) * self.example.itemsize
        kept = training.images if size <= KEPT_BYTES else None

        def read(positions: Tensor) -> Tensor:
            chosen = positions.numpy()
            images = training.read(training.indices[chosen]) if kept is None else kept[chosen]
            return sample_inputs(self.preprocessing, images)

        return read

    def _probe_untrained(self, untrained: nn.Module, seed: int) -> Probe:
        """What the untrained network computes in both modes, in which what acts on the training alone shows."""
        in_evaluation = self._probe(untrained)
        with blaming(f"the training of the classifier {self.spec.name}"):
            torch.manual_seed(seed)
            in_training = training_outputs(self._build(), self._pictures, seed)
        return Probe(torch.cat([in_evaluation.logits, in_training]), in_evaluation.features)

    @cached_property
    def _pictures(self) -> Tensor:
        return picture_inputs(self.preprocessing)

    def _probe(self, network: nn.Module) -> Probe:
        inputs = torch.cat([self._pictures, sample_inputs(self.preprocessing, self.example)])
        return outputs_of(network.eval(), inputs, self.suite.penultimate)

    def _build(self) -> nn.Module:
        return self._usable(self._called(self.spec.build))

    def _called(self, build: Build | None) -> nn.Module:
        """The network that a function builds."""
        name = self.spec.name
        assert build is not None, "only a classifier with such a function is asked for it"
        channels, size, _ = self.preprocessing.shape
        with blaming(f"the classifier {name}"):
            network = build(channels, size, self.classes)
        if not isinstance(network, nn.Module):
            raise UsageError(f"the classifier {name} built a {type(network).__name__}; expected a torch.nn.Module.")
        return network

    def _usable(self, network: nn.Module) -> nn.Module:
        """The network in a form that evidence can be read off, which is said."""
        name = f"the classifier {self.spec.name}"
        inputs = sample_inputs(self.preprocessing, self.example[:2])
        with blaming(name):
            try:
                usable, changes = as_usable(network, inputs, self.classes)
            except UsageError as error:
                raise UsageError(f"{name} cannot be used: {error}") from error
        self._say(name, changes)
        return usable

    def _say(self, what: str, changes: Sequence[str]) -> None:
        if changes:
            logger.warning("taken off %s or converted: %s.", what, "; ".join(changes))

    def _load_pretrained(self) -> nn.Module:
        name = self.spec.name
        if self.spec.pretrained is None:
            raise UsageError(
                f"the classifier {name} has no pretrained weights, as those of torchvision and timm have; give a file "
                "of weights."
            )
        if not self.download:
            raise MissingPrerequisiteError(
                f"the pretrained weights of the classifier {name} are only downloaded with --download."
            )
        channels, size, _ = self.preprocessing.shape
        try:
            return self._usable(self.spec.pretrained(channels, size, self.classes))
        except (OodbenchError, *FROM_OUTSIDE):
            raise
        except BaseException as cause:
            raise MissingPrerequisiteError(
                f"the download of the pretrained weights of the classifier {name} failed: {one_line(cause)}; check the "
                "connection, or give a file of weights."
            ) from cause

    def _try_out(self, network: nn.Module, images: Tensor) -> None:
        """Run the network on a few images, to fail before training if it gives no logits, or features of a wrong shape.

        Raises:
            UsageError: The logits or the features have the wrong shape, or the network fails.
        """
        name, classes = self.spec.name, self.classes
        inputs = to_input(images, self.preprocessing.normalisation)
        with blaming(f"the classifier {name}"):
            try:
                with forward(network, inputs, last_layer=self.suite.penultimate) as run:
                    logits = tuple(run.logits.shape)
                    features = None if run.recording.features is None else tuple(run.features.shape)
            except OodbenchError as error:
                raise UsageError(f"the classifier {name} cannot be used: {error}") from error
        if logits != (len(images), classes):
            more = (
                "; say which output is which class by `classes` in the suite"
                if len(logits) == 2 and logits[1] > classes
                else ""
            )
            raise UsageError(
                f"the classifier {name} returned logits {logits}; expected ({len(images)}, {classes}), one for each of "
                f"the {classes} known classes{more}."
            )
        if features is None and self.suite.penultimate is not None:
            raise UsageError(
                f"the classifier {name} does not call its layer {self.suite.penultimate}, so there are no features "
                "before it; name another one (penultimate)."
            )
        if features is not None and (len(features) != 2 or features[0] != len(images)):
            raise UsageError(
                f"the classifier {name} has penultimate features {features}; expected ({len(images)}, D): name another "
                "layer (penultimate)."
            )
