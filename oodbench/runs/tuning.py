"""Chooses among detectors by their scores on the validation sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodbench.detectors.selection import SelectedDetector
from oodbench.errors import CellSkippedError, OodbenchError
from oodbench.evaluation.influence import Influenced, auroc_influence
from oodbench.evaluation.interval import Z
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
    """Difference of the mean AUROCs with its 95 % interval (DeLong), which knows nothing of the choice before.

    Both are scores of the same samples, and the known ones are in each of the sets.
    """
    differences = [_difference(best, second, name) for name in best.unknown]
    n = len(best.known)
    of_known = np.mean([influence[:n] for _, influence in differences], axis=0)
    variance = float(np.square(of_known).sum())
    variance += sum(float(np.square(influence[n:]).sum()) for _, influence in differences) / len(differences) ** 2
    value, half = float(np.mean([value for value, _ in differences])), Z * variance**0.5
    return {"auroc": value, "ci_low": value - half, "ci_high": value + half}


def _difference(best: Candidate, second: Candidate, name: str) -> tuple[float, NDArray[np.float64]]:
    one, other = (_influenced(candidate, name) for candidate in (best, second))
    return one.value - other.value, one.influence - other.influence


def _influenced(candidate: Candidate, name: str) -> Influenced:
    return auroc_influence(*_joined(candidate.known, candidate.unknown[name]))


def _joined(
    known: NDArray[np.floating], unknown: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Scores of known, then of unknown samples, and whether each is unknown."""
    return np.concatenate([known, unknown]), np.arange(len(known) + len(unknown)) >= len(known)
