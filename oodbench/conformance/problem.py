"""A small trial that detectors are checked on: a trained network, and unknown images that it is unsure of."""

import hashlib
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oodbench.cache.entries import NoCache
from oodbench.cache.tensor_files import content_sha256
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.cnn import cnn
from oodbench.classifiers.training import to_input, train
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.splits import UNKNOWN_LABEL, Split, Use
from oodbench.evidence.collector import EvidenceCollector
from oodbench.machine.progress import silent
from oodbench.records.record import ClassifierIdentity
from oodbench.runs.spec import RunSpec
from oodbench.runs.trial import SuiteIdentity, TrainedClassifier, Trial
from oodbench.suites.schema import Input, Training

SIZE = 12
CLASSES = 4
SEED = 0
KNOWN, UNKNOWN = "bars", "fog"
TRAINING = Training(epochs=6, batch_size=32, learning_rate=3e-3)


def known_images(n: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A bright bar along one of four directions; some images have a weaker bar of another class across it.

    Returns:
        uint8 (N, 1, 12, 12), and the classes, int64 (N,).
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, n)
    second_class = (labels + generator.integers(1, CLASSES, n)) % CLASSES
    # The second bar of one sample in four is about as bright as the first: the network will be wrong at times.
    weaker = np.where(generator.random(n) < 0.25, generator.uniform(0.7, 1.1, n), 0)
    images = _bars(labels, generator) + weaker[:, None, None] * _bars(second_class, generator)
    return _drawn(images, generator), labels.astype(np.int64)


def unknown_images(n: int, seed: int) -> NDArray[np.uint8]:
    """Faint fog in which there is a bit of every class, uint8 (N, 1, 12, 12)."""
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.full(CLASSES, 8.0), n)
    images = sum(shares[:, k, None, None] * _bars(np.full(n, k), generator) for k in range(CLASSES))
    return _drawn(0.5 * np.asarray(images), generator)


def _bars(labels: NDArray[Any], generator: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    distances = np.stack([rows, columns, (rows + columns) / 2**0.5, (rows - columns) / 2**0.5])
    shift = generator.normal(0, 0.7, len(labels))[:, None, None]
    bars: NDArray[np.float64] = np.exp(-((distances[labels] - shift) ** 2) / 2)
    return bars


def _drawn(images: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.uint8]:
    noisy = 200 * images + generator.normal(0, 8, images.shape) + 16
    return noisy.clip(0, 255).astype(np.uint8, order="C").reshape(-1, 1, SIZE, SIZE)


@cache
def problem() -> Trial:
    """The trial, made once in a process; training takes about a second, that of an ensemble's others once more each."""
    train_split = _known("train", 480, 1)
    images = train_split.images
    inputs, labels = to_input(torch.from_numpy(images)), torch.from_numpy(train_split.labels)

    @cache
    def trained(seed: int) -> TrainedClassifier:
        network = train(partial(cnn, 1, SIZE, CLASSES), inputs.__getitem__, labels, TRAINING, seed, silent)
        classifier = Classifier(
            "cnn", network, content_sha256(network.state_dict()), Preprocessing(Input(channels=1, size=SIZE))
        )
        identity = ClassifierIdentity(weights_sha256=classifier.weights_sha256)
        return TrainedClassifier(identity, EvidenceCollector(classifier, NoCache(), images[0], silent))

    return Trial(
        suite=SuiteIdentity("conformance", 1, {KNOWN: "-", UNKNOWN: "-"}, {}),
        seed=SEED,
        spec=RunSpec(),
        classifier=trained(SEED).identity,
        collector=trained(SEED).collector,
        members=lambda: {seed: trained(seed) for seed in (SEED, SEED + 1, SEED + 2)},
        train=train_split,
        meta=_known("meta", 240, 2),
        test=_known("test", 200, 3),
        exposed={UNKNOWN: split_of(UNKNOWN, "exposed", unknown_images(120, 4), np.full(120, UNKNOWN_LABEL))},
        unknown={UNKNOWN: split_of(UNKNOWN, "unknown", unknown_images(200, 5), np.full(200, UNKNOWN_LABEL))},
        classes=tuple(map(str, range(CLASSES))),
        evidence_ms=lambda needs: 0.0,
    )


def _known(use: Use, n: int, seed: int) -> Split:
    return split_of(KNOWN, use, *known_images(n, seed))


def split_of(name: str, use: Use, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
    """A split of prepared images (N, C, H, W) that are in memory, with their labels (N,)."""
    digests = np.array([hashlib.sha256(image.tobytes()).hexdigest()[:32].encode() for image in images])
    indices = np.arange(len(labels), dtype=np.int64)
    return Split(name, use, name, "drawn", "all", images.__getitem__, labels, indices, digests, len(labels), None)
