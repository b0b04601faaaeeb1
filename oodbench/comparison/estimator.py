"""Figures of compared detectors as estimates, from the scores of their cells."""

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oodbench.comparison.compared import ComparedDetector, result_on
from oodbench.comparison.estimates import Estimate, mean_of
from oodbench.evaluation.influence import Influenced, auroc_influence, balanced_accuracy_influence
from oodbench.evaluation.results import Result, joined
from oodbench.records.scored import ScoredRecord

INFLUENCED = ("auroc", "meta_accuracy")
"""Metrics with a known influence of each sample, for both targets."""
FAILURE = "failure_"


class Estimator:
    """Estimates from the cells of one suite; each figure on a data set is computed once."""

    def __init__(self, cells: Iterable[ScoredRecord]) -> None:
        self._places: dict[str, slice] = {}
        self._count = 0
        self._known: dict[tuple[object, ...], Estimate | None] = {}
        for scored in cells:
            for name, samples in scored.samples.items():
                if name not in self._places:
                    self._places[name] = slice(self._count, self._count + len(samples.scores))
                    self._count += len(samples.scores)

    def estimate(
        self, compared: ComparedDetector, metric: str, datasets: Sequence[str], seeds: Sequence[int]
    ) -> Estimate | None:
        """The mean of a metric over data sets and seeds; None if one of them is missing.

        Args:
            compared: The detector.
            metric: One of ``INFLUENCED``, or one of them with the prefix ``failure_``.
            datasets: The data sets.
            seeds: The seeds.
        """
        by_dataset = [self._on_dataset(compared, metric, dataset, seeds) for dataset in datasets]
        present = [figure for figure in by_dataset if figure is not None]
        return mean_of(present) if present and len(present) == len(by_dataset) else None

    def _on_dataset(
        self, compared: ComparedDetector, metric: str, dataset: str, seeds: Sequence[int]
    ) -> Estimate | None:
        cells = [compared.cells.get(seed, {}).get(dataset) for seed in seeds]
        present = [cell for cell in cells if cell is not None]
        if not present or len(present) < len(cells):
            return None
        key = metric, dataset, *((cell.record.cell_id, cell.record.seed) for cell in present)
        if key not in self._known:
            self._known[key] = self._computed(present, metric, dataset)
        return self._known[key]

    def _computed(self, cells: Sequence[ScoredRecord], metric: str, dataset: str) -> Estimate | None:
        results = [result_on(cell.record, dataset) for cell in cells]
        values = [result.metrics[metric].value for result in results if result is not None and metric in result.metrics]
        by_seed = tuple(value for value in values if value is not None)
        if results[0] is None or len(by_seed) < len(cells):
            return None
        influences = [_influenced(cell, metric, dataset) for cell in cells]
        influence: NDArray[np.float64] = np.mean([item.influence for item in influences], axis=0)
        names = cells[0].sets_of(dataset)
        smallest = min(_smallest(result, metric) for result in results if result is not None)
        return Estimate(by_seed, self._spread(influence, names), mean(item.unseen for item in influences), smallest)

    def _spread(self, influence: NDArray[np.float64], names: Iterable[str]) -> NDArray[np.float64]:
        """Influences of the samples of some sets, in this order, at their places among all of the suite (N,)."""
        everywhere = np.zeros(self._count)
        start = 0
        for name in names:
            place = self._places[name]
            length = place.stop - place.start
            everywhere[place] = influence[start : start + length]
            start += length
        return everywhere


def _smallest(result: Result, metric: str) -> int:
    """Size of the smaller class of a metric's target."""
    if metric.startswith(FAILURE):
        return min(result.n_known - result.n_wrong, result.n_wrong + result.n_unknown)
    return min(result.n_known, result.n_unknown)


class Target(NamedTuple):
    """Scores (N,) of the known samples and those of an unknown set, and which of them are positive (N,)."""

    scores: NDArray[np.floating]
    positive: NDArray[np.bool_]


def target_of(scored: ScoredRecord, metric: str, dataset: str) -> Target:
    """The scores and classes that a metric of a cell on a data set is computed from."""
    names = scored.sets_of(dataset)
    everything = joined([scored.samples[name] for name in names])
    if metric.startswith(FAILURE) or len(names) == 1:
        return Target(everything.scores, everything.wrong)
    n = len(everything.scores)
    return Target(everything.scores, np.arange(n) >= n - len(scored.samples[dataset].scores))


def _influenced(scored: ScoredRecord, metric: str, dataset: str) -> Influenced:
    target = target_of(scored, metric, dataset)
    if metric.endswith("meta_accuracy"):
        threshold = scored.record.threshold
        return balanced_accuracy_influence(*target, threshold if threshold is not None else 0.0)
    return auroc_influence(*target)
