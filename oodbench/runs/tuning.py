"""Chooses among detectors by their scores on the validation sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodbench.comparison.estimates import Estimate, difference, mean_of
from oodbench.detectors.selection import SelectedDetector
from oodbench.errors import CellSkippedError, OodbenchError
from oodbench.evaluation.influence import auroc_influence
from oodbench.evaluation.metrics import SMALLER_IS_BETTER, metrics
from oodbench.registry.isolation import Failure


@dataclass(frozen=True)
class Candidate:
    """A detector with parameters that are tried, and its scores.

    Attributes:
        detector: The detector.
        known: Its scores of known samples, (N,).
        unknown: Its scores of each validation set.
    """

    detector: SelectedDetector
    known: NDArray[np.floating]
    unknown: Mapping[str, NDArray[np.floating]]

    def figure(self, objective: str) -> float:
        """Mean of a metric over the validation sets."""
        return float(
            np.mean([metrics(*_joined(self.known, scores), None)[objective] for scores in self.unknown.values()])
        )


def choose(
    tried: Sequence[Candidate], failures: Mapping[str, Failure], objective: str
) -> tuple[SelectedDetector, dict[str, Any]]:
    """The first of the best candidates, and what the record says of the choice.

    Args:
        tried: The candidates that could be fitted and scored, in their order.
        failures: Why others could not, by their label.
        objective: The metric whose mean over the validation sets decides.

    Raises:
        CellSkippedError: None could be tried, for reasons for which detectors are skipped.
        OodbenchError: None could be tried.
    """
    if not tried:
        label, failure = next(iter(failures.items()))
        kind = CellSkippedError if failure.status == "skipped" else OodbenchError
        raise kind(f"none of the {len(failures)} candidates can be tried; {label}: {failure.error}")
    sign = -1 if objective in SMALLER_IS_BETTER else 1
    figures = [candidate.figure(objective) for candidate in tried]
    order = sorted(range(len(tried)), key=lambda i: -sign * figures[i])  # stable: the first of equal ones
    best = tried[order[0]]
    learnt: dict[str, Any] = {
        "chosen": best.detector.label,
        "objective": objective,
        "known": len(best.known),
        "unknown": {name: len(scores) for name, scores in best.unknown.items()},
        "candidates": {candidate.detector.label: figure for candidate, figure in zip(tried, figures, strict=True)},
        "failed": {label: failure.error for label, failure in failures.items()},
    }
    if len(tried) > 1:
        second = tried[order[1]]
        learnt["preferred_to"] = {"candidate": second.detector.label, "by": _advantage(best, second)}
    return best.detector, learnt


def _advantage(best: Candidate, second: Candidate) -> dict[str, float]:
    """Difference of the mean AUROCs with its 95 % interval over samples, which knows nothing of the choice before."""
    found = difference(_estimate(best), _estimate(second))
    return {"auroc": found.value, "ci_low": found.low, "ci_high": found.high}


def _estimate(candidate: Candidate) -> Estimate:
    """Mean AUROC over the validation sets; the known samples are in each of them."""
    n = len(candidate.known)
    ends = np.cumsum([n, *(len(scores) for scores in candidate.unknown.values())])
    estimates = []
    for scores, start, end in zip(candidate.unknown.values(), ends, ends[1:], strict=False):
        of_set = auroc_influence(*_joined(candidate.known, scores))
        influence = np.zeros(ends[-1])
        influence[:n], influence[start:end] = of_set.influence[:n], of_set.influence[n:]
        estimates.append(Estimate((of_set.value,), influence, of_set.unseen, min(n, len(scores))))
    return mean_of(estimates)


def _joined(
    known: NDArray[np.floating], unknown: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Scores of known, then of unknown samples, and whether each is unknown."""
    return np.concatenate([known, unknown]), np.arange(len(known) + len(unknown)) >= len(known)
