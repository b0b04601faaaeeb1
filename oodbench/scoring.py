"""Fitting a detector and scoring with it, and refusing scores that nobody could evaluate."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.datasets.splits import Split
from oodbench.detectors.plugin import NEEDS, Detector, DetectorPlugin
from oodbench.errors import OodbenchError
from oodbench.evaluation.metrics import best_threshold
from oodbench.evidence import Evidence

ACCEPTED = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Observed:
    """Samples of a split with their evidence."""

    split: Split
    evidence: Evidence

    @property
    def labels(self) -> Tensor:
        """The true classes, int64 (N,); −1 for unknown samples."""
        return torch.from_numpy(self.split.labels)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether each sample is wrong or unknown, (N,)."""
        answer: NDArray[np.bool_] = self.evidence.wrong(self.labels).numpy()
        return answer


@dataclass(frozen=True)
class Fitted:
    """A detector that was fitted.

    Attributes:
        detector: The detector.
        threshold: The best one on the fitting split; None where that has one class only.
        learnt: What it reports to have learnt.
        needs: The parts of the evidence that it works on.
        log_odds: Whether its scores are the log-odds of being wrong or unknown.
        seconds: Time of fitting.
    """

    detector: Detector
    threshold: float | None
    learnt: dict[str, Any]
    needs: tuple[str, ...]
    log_odds: bool
    seconds: float


def fit(plugin: DetectorPlugin, parameters: Mapping[str, Any], fitting: Sequence[Observed]) -> Fitted:
    """Fit a new detector on the samples of some splits together.

    Raises:
        CellSkippedError: They cannot teach it anything.
        OodbenchError: Its scores cannot be used.
    """
    detector = plugin.build(parameters)
    evidence = Evidence.concatenate([observed.evidence for observed in fitting])
    labels = torch.cat([observed.labels for observed in fitting])
    start = time.perf_counter()
    detector.fit(evidence.copy(), labels.clone())
    seconds = time.perf_counter() - start
    wrong = np.concatenate([observed.wrong for observed in fitting])
    threshold = best_threshold(score(detector, evidence), wrong)
    return Fitted(
        detector,
        threshold,
        dict(getattr(detector, "learnt", {})),
        plugin.needs or NEEDS,
        bool(getattr(detector, "log_odds", False)),
        seconds,
    )


def score(detector: Detector, evidence: Evidence) -> NDArray[np.floating]:
    """The scores of all samples, float32 or float64 (N,), finite.

    Raises:
        OodbenchError: The detector returned something else; the sentence says what.
    """
    # A copy, so that a detector which works in place changes nobody else's evidence.
    with torch.no_grad():
        scores = detector.score(evidence.copy())
    if not isinstance(scores, Tensor):
        raise OodbenchError(f"its scores are a {type(scores).__name__}; expected a torch.Tensor")
    if scores.dtype not in ACCEPTED:
        raise OodbenchError(f"its scores have dtype {scores.dtype}; expected float32 or float64")
    if scores.shape != (len(evidence),):
        raise OodbenchError(f"its scores have shape {tuple(scores.shape)}; expected ({len(evidence)},), one a sample")
    array: NDArray[np.floating] = scores.detach().cpu().numpy()
    strange = int((~np.isfinite(array)).sum())
    if strange:
        raise OodbenchError(f"{strange} of its {len(array)} scores are NaN or infinite; expected finite numbers")
    return array
