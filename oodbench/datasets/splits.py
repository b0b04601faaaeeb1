"""Splits of a suite's data sets, as plain data."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.datasets.preparation import Prepared, Preprocessing

Use = Literal["train", "meta", "test", "exposed", "unknown", "validation", "covariate"]
"""What a split is for.

Known samples: ``train`` the classifier, fit detectors (``meta``), ``test``. Unknown samples: ``exposed`` to
detectors in fitting, ``unknown``, used for testing only, or ``validation``, which parameters are chosen by. Known
classes under a shift, for testing only: ``covariate``.
"""
UNKNOWN_LABEL = -1


@dataclass(frozen=True)
class Split:
    """Samples of a data set for a use.

    Attributes:
        dataset: Name of the data set in the suite.
        use: What the split is for.
        adapter: Name of the adapter and its parameters.
        source: Where the data set can be obtained, from the adapter's card.
        origin: Split of the adapter that the samples are from: ``train``, ``test`` or ``all``.
        read: Reads and prepares the images at positions of the adapter's split, (N, C, H, W).
        labels: int64 (N,): the output of the classifier that stands for the class; −1 in unknown sets.
        indices: int64 (N,): positions in the adapter's split.
        digests: (N,): hash of each image.
        originals: (N,): hash of the image that each one is made from; None if they are made from none.
        available: Number of samples in the adapter's split.
        official: Number of samples of that split in the authors' release, if the suite or the card states it.
        name_of: What the image at a position of the adapter's split is called in messages.
        left_out: Number of files and samples that were left out of the data set, by the reason.
        remarks: Number of images that were converted, by how.
    """

    dataset: str
    use: Use
    adapter: str
    source: str
    origin: str
    read: Callable[[NDArray[np.int64]], Prepared]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    digests: NDArray[np.bytes_]
    available: int
    official: int | None
    name_of: Callable[[int], str] = "image {}".format
    left_out: Mapping[str, int] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)
    originals: NDArray[np.bytes_] | None = None

    @property
    def images(self) -> Prepared:
        """All prepared images (N, C, H, W), of uint8, or of float32 from a transform; read anew each time."""
        return self.read(self.indices)

    @cached_property
    def sha256(self) -> str:
        """Hash of the images and their labels, in order."""
        content = hashlib.sha256()
        content.update(self.digests.tobytes())
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    def first(self, n: int | None) -> "Split":
        """The n samples with the smallest hashes, a random sample in effect; None takes all."""
        if n is None or n >= len(self.labels):
            return self
        return self.subset(np.sort(np.argsort(self.digests)[:n]))

    def subset(self, positions: NDArray[np.intp]) -> "Split":
        """The samples at the given positions."""
        return replace(
            self,
            labels=self.labels[positions],
            indices=self.indices[positions],
            digests=self.digests[positions],
            originals=None if self.originals is None else self.originals[positions],
        )


@dataclass(frozen=True)
class SuiteSplits:
    """All splits of a suite.

    Attributes:
        classes: Name of the class that each output of the classifier stands for.
        train: Known samples that the classifier is trained on; None if its weights are given, and the known set has
            only held-out samples.
        meta: Known samples that detectors are fitted on.
        test: Known samples that detectors are tested on.
        exposed: For each unknown set, the samples that detectors may be fitted on; none if the suite holds none back.
        unknown: For each unknown set, the samples that detectors are tested on, the same under every protocol.
        validation: For each unknown set that parameters are chosen by, its samples.
        covariate: For each known set under a shift, its samples.
        missing: Unknown sets whose files are missing, with a description of the files.
        preprocessing: The classifier's preprocessing, which knows the size of the first known picture.
        remarks: Sentences on what is missing, was left out of the data sets, and was converted.
    """

    classes: tuple[str, ...]
    train: Split | None
    meta: Split
    test: Split
    exposed: Mapping[str, Split]
    unknown: Mapping[str, Split]
    validation: Mapping[str, Split]
    covariate: Mapping[str, Split]
    missing: Mapping[str, str]
    preprocessing: Preprocessing
    remarks: tuple[str, ...]
