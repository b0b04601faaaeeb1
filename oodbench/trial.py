"""A suite under one seed: its splits, the trained classifier, and what was computed so far."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.datasets.splits import Split
from oodbench.evidence.observation import Observatory
from oodbench.records.results import Memo
from oodbench.suites.suite import Suite

logger = logging.getLogger(__name__)

# Times the accuracy of guessing that a classifier should have.
HARDLY = 1.5


@dataclass(frozen=True)
class Trial:
    """See the module.

    Attributes:
        suite: The suite.
        seed: The seed.
        limit: How many samples of each split were kept, if not all.
        timeout: Seconds that a detector may take, if there is a limit.
        observatory: The trained classifier and its evidence.
        train: What the classifier was trained on.
        meta: Known samples that detectors are fitted on.
        test: Known samples that they are tested on.
        exposed: Unknown samples that they may be fitted on.
        unknown: Unknown samples that they are tested on.
        evidence_ms: Milliseconds that some parts of the evidence take for each sample, if they could be measured.
        memo: Metrics that were computed before.
        sheets: Scores of detectors that were computed before.
    """

    suite: Suite
    seed: int
    limit: int | None
    timeout: float | None
    observatory: Observatory
    train: Split
    meta: Split
    test: Split
    exposed: Mapping[str, Split]
    unknown: Mapping[str, Split]
    evidence_ms: Callable[[tuple[str, ...]], float | None]
    memo: Memo = field(default_factory=dict)
    sheets: dict[Any, Any] = field(default_factory=dict)

    def tested(self) -> list[Split]:
        """All test sets of the run, the known one first."""
        return [self.test, *self.unknown.values()]

    def scored(self) -> list[Split]:
        """All splits that detectors score: to choose a threshold, and to be tested."""
        return [self.meta, *self.exposed.values(), *self.tested()]

    def fitting(self, exposed: Sequence[str]) -> list[Split]:
        """The known meta split, and the exposed samples of some unknown sets."""
        return [self.meta, *(self.exposed[name] for name in exposed)]

    def predictions(self, split: Split) -> Tensor:
        """The predicted classes, int64 (N,)."""
        return self.observatory.evidence(split, ()).predictions

    def wrong(self, split: Split) -> NDArray[np.bool_]:
        """Whether each sample is wrong or unknown, (N,)."""
        answer: NDArray[np.bool_] = (self.predictions(split) != torch.from_numpy(split.labels)).numpy()
        return answer

    def gather(self) -> None:
        """Collect the evidence of all splits that detectors score, where it was not collected before."""
        for split in self.scored():
            self.observatory.evidence(split)
        classes = len(np.unique(self.train.labels))
        if self.accuracy < HARDLY / classes:
            logger.warning(
                "the classifier %s with seed %d is right on %.1f %% of the known test samples of %d classes, which is "
                "hardly better than chance: train it for more epochs, or look at its weights and input.",
                self.observatory.classifier.name,
                self.seed,
                100 * self.accuracy,
                classes,
            )

    @cached_property
    def accuracy(self) -> float:
        """The share of the known test samples that the classifier is right on."""
        return float(1 - self.wrong(self.test).mean())
