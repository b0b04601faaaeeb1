"""The curves of a board: ROC, distributions of scores, risk against coverage."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oodbench.comparison.entrants import Entrant, detector_labels, entrants
from oodbench.evaluation.metrics import cumulated
from oodbench.evaluation.risk import risk_coverage
from oodbench.leaderboard.board import Curve, RiskCurve
from oodbench.records.results import Samples
from oodbench.records.verification import Measured

# Denser towards 0, where detectors are used.
FPR = np.unique(np.round(np.concatenate([[0.0], np.geomspace(1e-3, 1, 37), np.linspace(0, 1, 21)]), 4))
COVERAGE = np.round(np.linspace(0.05, 1, 39), 4)
BINS = 24
DIGITS = 4
LARGEST = 1e300
"""Scores beyond are drawn here: the width of a bin has to be a number."""


def curves(cells: Sequence[Measured], datasets: Sequence[str]) -> list[Curve]:
    """ROC curves and distributions of all detectors that saw known samples only, on all unknown sets."""
    unexposed = [one for one in cells if one.record.protocol == "unknown-unknowns"]
    return [
        _curve(entrant, dataset)
        for entrant in _by_name(cells, unexposed)
        for dataset in datasets
        if all(dataset in of_seed for of_seed in entrant.cells.values())
    ]


def risk_curves(cells: Sequence[Measured]) -> list[RiskCurve]:
    """Risk–coverage curves of all detectors on the known test split."""
    known = [one for one in cells if one.record.protocol == "known" and one.samples]
    return [_risk_curve(entrant) for entrant in _by_name(cells, known)]


def _by_name(cells: Sequence[Measured], chosen: Sequence[Measured]) -> list[Entrant]:
    labels = detector_labels(one.record for one in cells)
    finished = [one for one in chosen if one.record.status == "ok"]
    return sorted(entrants(finished, labels, by_exposure=False), key=lambda entrant: entrant.detector)


def _curve(entrant: Entrant, dataset: str) -> Curve:
    rates = [true_positive_rates(*_known_and(entrant, dataset, seed)) for seed in sorted(entrant.cells)]
    known, unknown = _known_and(entrant, dataset, min(entrant.cells))
    edges = _edges(np.concatenate([known.scores, unknown.scores]))
    return Curve(
        detector=entrant.detector,
        dataset=dataset,
        fpr=_rounded(FPR),
        tpr=_rounded(np.mean(rates, axis=0)),
        edges=tuple(float(f"{edge:.4g}") for edge in edges),
        right=_shares(known.scores[~known.wrong], edges),
        wrong=_shares(known.scores[known.wrong], edges),
        unknown=_shares(unknown.scores, edges),
    )


def _known_and(entrant: Entrant, dataset: str, seed: int) -> tuple[Samples, Samples]:
    samples = entrant.cells[seed][dataset].samples
    return next(iter(samples.values())), samples[dataset]


def true_positive_rates(known: Samples, unknown: Samples) -> NDArray[np.float64]:
    """Of the unknown samples, at the false positive rates ``FPR``, by straight lines between points of the curve."""
    scores = np.concatenate([known.scores, unknown.scores])
    positives, negatives = cumulated(scores, np.arange(len(scores)) >= len(known.scores))
    fpr = np.append(0, negatives) / negatives[-1]
    tpr = np.append(0, positives) / positives[-1]
    # At a jump of the curve, its upper end.
    last = np.append(fpr[1:] != fpr[:-1], True)
    rates: NDArray[np.float64] = np.interp(FPR, fpr[last], tpr[last])
    return rates


def _edges(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Limits of bins of equal width between the 0.5 % and the 99.5 % quantile; the outer bins hold what is beyond."""
    low, high = np.clip(np.quantile(scores.astype(np.float64), [0.005, 0.995]), -LARGEST, LARGEST)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _shares(scores: NDArray[np.floating], edges: NDArray[np.float64]) -> tuple[float, ...]:
    counts, _ = np.histogram(np.clip(scores.astype(np.float64), edges[0], edges[-1]), edges)
    return _rounded(counts / max(len(scores), 1))


def _risk_curve(entrant: Entrant) -> RiskCurve:
    risks = []
    for of_seed in entrant.cells.values():
        known = next(iter(next(iter(of_seed.values())).samples.values()))
        coverage, risk = risk_coverage(known.scores, known.wrong)
        # The least coverage that a threshold gives at or above the wanted one.
        risks.append(risk[np.searchsorted(coverage, COVERAGE - 1e-12)])
    mean: NDArray[np.float64] = np.mean(risks, axis=0)
    return RiskCurve(detector=entrant.detector, coverage=_rounded(COVERAGE), risk=tuple(mean.tolist()))


def _rounded(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(np.round(values.astype(np.float64), DIGITS).tolist())
