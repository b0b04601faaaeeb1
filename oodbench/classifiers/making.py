"""Makes a suite's classifier: with weights from training, from the cache or from a file."""

from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor, nn

from oodbench.cache.entries import Cache
from oodbench.cache.tensor_files import Kept, content_sha256
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.spec import ClassifierSpec
from oodbench.classifiers.training import THREADS, to_input, train
from oodbench.classifiers.weights import load_weights, weights_file
from oodbench.datasets.splits import Split
from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, OodbenchError, UsageError, blaming, one_line
from oodbench.gradients.engine import forward
from oodbench.machine.progress import Track
from oodbench.suites.schema import PRETRAINED, Suite


@dataclass(frozen=True)
class ClassifierMaker:
    """Makes the classifier of a suite for a seed: with the weights that the suite names, or else by training.

    Attributes:
        suite: The suite, with the name of the weights or the hyper-parameters of the training.
        spec: Builds the network.
        training: The known training split.
        classes: Number of known classes.
        cache: Where trained weights are kept.
        track: Shows progress.
        download: Whether pretrained weights may be downloaded.
    """

    suite: Suite
    spec: ClassifierSpec
    training: Split
    classes: int
    cache: Cache
    track: Track
    download: bool = False

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
            else:
                network = self._build()
                if suite.weights is not None:
                    load_weights(network, weights_file(suite.weights, seed), self.classes)
            self._try_out(network, torch.from_numpy(self.training.images[:2]))
        if suite.weights is None:
            network = self._train_or_read(network, seed)
        return Classifier(
            suite.classifier,
            network.eval(),
            content_sha256(network.state_dict()),
            suite.input.normalisation,
            suite.penultimate,
            self.spec.code,
        )

    def _train_or_read(self, untrained: nn.Module, seed: int) -> nn.Module:
        """Load trained weights into the network: from the cache, or else by training."""
        suite = self.suite
        identity = {
            "architecture": [*self.spec.origin, str(untrained)],
            "data": self.training.sha256,
            "training": suite.training.model_dump(),
            "seed": seed,
            "threads": THREADS,
            "versions": {"torch": version("torch"), "oodbench": version("oodbench")},
        }
        if suite.input.normalisation is not None:
            identity["normalisation"] = suite.input.normalisation

        def make() -> Kept:
            images, labels = torch.from_numpy(self.training.images), torch.from_numpy(self.training.labels)
            with blaming(f"the training of the classifier {self.spec.name}"):
                trained = train(
                    self._build, images, labels, suite.training, seed, self.track, suite.input.normalisation
                )
            # A copy of each tensor, as weights may share memory.
            return {name: tensor.clone() for name, tensor in trained.state_dict().items()}, {}

        untrained.load_state_dict(self.cache.kept_or_made("weights", identity, make)[0])
        return untrained

    def _build(self) -> nn.Module:
        name = self.spec.name
        with blaming(f"the classifier {name}"):
            network = self.spec.build(self.suite.input.channels, self.suite.input.size, self.classes)
        if not isinstance(network, nn.Module):
            raise UsageError(f"the classifier {name} built a {type(network).__name__}; expected a torch.nn.Module.")
        return network

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
        try:
            return self.spec.pretrained(self.suite.input.channels, self.suite.input.size, self.classes)
        except (OodbenchError, *FROM_OUTSIDE):
            raise
        except BaseException as cause:
            raise MissingPrerequisiteError(
                f"the download of the pretrained weights of the classifier {name} failed: {one_line(cause)}; check the "
                "connection, or give a file of weights."
            ) from cause

    def _try_out(self, network: nn.Module, images: Tensor) -> None:
        """Run the network on a few images, to fail before training if it gives no logits or no features.

        Raises:
            UsageError: The logits or the features have the wrong shape, or the network fails.
        """
        name, classes = self.spec.name, self.classes
        inputs = to_input(images, self.suite.input.normalisation)
        with blaming(f"the classifier {name}"):
            try:
                with forward(network, inputs, last_layer=self.suite.penultimate) as run:
                    logits, features = tuple(run.logits.shape), tuple(run.features.shape)
            except OodbenchError as error:
                raise UsageError(f"the classifier {name} cannot be used: {error}") from error
        if logits != (len(images), classes):
            raise UsageError(
                f"the classifier {name} returned logits {logits}; expected ({len(images)}, {classes}), one for each of "
                f"the {classes} known classes."
            )
        if len(features) != 2 or features[0] != len(images):
            raise UsageError(
                f"the classifier {name} has penultimate features {features}; expected ({len(images)}, D): name another "
                "layer (penultimate)."
            )
