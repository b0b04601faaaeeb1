"""The curves of a board: ROC, distributions of scores, risk against coverage."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oodbench.comparison.compared import ComparedDetector, compared_detectors, detector_labels
from oodbench.evaluation.metrics import cumulated
from oodbench.evaluation.results import Samples
from oodbench.evaluation.risk import risk_coverage
from oodbench.leaderboard.board import Curve, RiskCurve
from oodbench.records.scored import ScoredRecord

# Denser towards 0, where detectors are used.
FPR = np.unique(np.round(np.concatenate([[0.0], np.geomspace(1e-3, 1, 37), np.linspace(0, 1, 21)]), 4))
COVERAGE = np.round(np.linspace(0.05, 1, 39), 4)
BINS = 24
DIGITS = 4
LARGEST = 1e300
"""Scores beyond ± this are drawn here, so that the width of a bin is finite."""


def curves(cells: Sequence[ScoredRecord], datasets: Sequence[str]) -> list[Curve]:
    """ROC curves and distributions of all detectors that saw known samples only, on all unknown sets."""
    unexposed = [scored for scored in cells if scored.record.protocol == "unknown-unknowns"]
    return [
        _curve(compared, dataset)
        for compared in _by_name(cells, unexposed)
        for dataset in datasets
        if all(dataset in of_seed for of_seed in compared.cells.values())
    ]


def risk_curves(cells: Sequence[ScoredRecord]) -> list[RiskCurve]:
    """Risk–coverage curves of all detectors on the known test split."""
    known = [scored for scored in cells if scored.record.protocol == "known" and scored.samples]
    return [_risk_curve(compared) for compared in _by_name(cells, known)]


def _by_name(cells: Sequence[ScoredRecord], chosen: Sequence[ScoredRecord]) -> list[ComparedDetector]:
    labels = detector_labels(scored.record for scored in cells)
    finished = [scored for scored in chosen if scored.record.status == "ok"]
    return sorted(compared_detectors(finished, labels, by_exposure=False), key=lambda compared: compared.detector)


def _curve(compared: ComparedDetector, dataset: str) -> Curve:
    rates = [true_positive_rates(*_known_and(compared, dataset, seed)) for seed in sorted(compared.cells)]
    known, unknown = _known_and(compared, dataset, min(compared.cells))
    edges = _edges(np.concatenate([known.scores, unknown.scores]))
    return Curve(
        detector=compared.detector,
        dataset=dataset,
        fpr=_rounded(FPR),
        tpr=_rounded(np.mean(rates, axis=0)),
        edges=tuple(float(f"{edge:.4g}") for edge in edges),
        right=_shares(known.scores[~known.wrong], edges),
        wrong=_shares(known.scores[known.wrong], edges),
        unknown=_shares(unknown.scores, edges),
    )


def _known_and(compared: ComparedDetector, dataset: str, seed: int) -> tuple[Samples, Samples]:
    samples = compared.cells[seed][dataset].samples
    return next(iter(samples.values())), samples[dataset]


def true_positive_rates(known: Samples, unknown: Samples) -> NDArray[np.float64]:
    """True positive rates at the false positive rates ``FPR``, float64 (K,), interpolated linearly.

    Unknown samples are the positive class.
    """
    scores = np.concatenate([known.scores, unknown.scores])
    positives, negatives = cumulated(scores, np.arange(len(scores)) >= len(known.scores))
    fpr = np.append(0, negatives) / negatives[-1]
    tpr = np.append(0, positives) / positives[-1]
    # Where the curve jumps, its upper end counts.
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


def _risk_curve(compared: ComparedDetector) -> RiskCurve:
    risks = []
    for of_seed in compared.cells.values():
        known = next(iter(next(iter(of_seed.values())).samples.values()))
        coverage, risk = risk_coverage(known.scores, known.wrong)
        # At the smallest coverage that a threshold reaches at or above each of COVERAGE.
        risks.append(risk[np.searchsorted(coverage, COVERAGE - 1e-12)])
    mean: NDArray[np.float64] = np.mean(risks, axis=0)
    return RiskCurve(detector=compared.detector, coverage=_rounded(COVERAGE), risk=tuple(mean.tolist()))


def _rounded(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(np.round(values.astype(np.float64), DIGITS).tolist())
