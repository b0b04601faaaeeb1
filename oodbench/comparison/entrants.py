"""Who is compared: detectors under an exposure, with all their cells, and their figures as estimates."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oodbench.comparison.estimates import Estimate, mean_of
from oodbench.evaluation.influence import Influenced, auroc_influence, balanced_accuracy_influence
from oodbench.records.record import Record, Result
from oodbench.records.results import Samples
from oodbench.records.verification import Measured

INFLUENCED = ("auroc", "meta_accuracy")
"""Metrics whose sampling error is known sample by sample, for both targets."""
FAILURE = "failure_"


@dataclass(frozen=True)
class Entrant:
    """A detector under one protocol and exposure.

    Attributes:
        detector: Its name, with parameters where one detector occurs with several.
        exposed: Unknown sets it saw other samples of.
        cells: For each seed the cell that tested a data set, by data set.
    """

    detector: str
    exposed: tuple[str, ...]
    cells: Mapping[int, Mapping[str, Measured]]

    def value(self, metric: str, dataset: str, seed: int) -> float | None:
        """A metric of the records; None if it is missing."""
        result = self._result(dataset, seed)
        return None if result is None or metric not in result.metrics else result.metrics[metric].value

    def ends(self, metric: str, dataset: str, seed: int) -> tuple[float, float] | None:
        """The interval of that metric."""
        result = self._result(dataset, seed)
        found = None if result is None else result.metrics.get(metric)
        return None if found is None or found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)

    def _result(self, dataset: str, seed: int) -> Result | None:
        measured = self.cells.get(seed, {}).get(dataset)
        return None if measured is None else result_on(measured.record, dataset)


def result_on(record: Record, dataset: str) -> Result | None:
    """The record's result on a data set."""
    return next((result for result in record.results if result.dataset == dataset), None)


def entrants(cells: Sequence[Measured], labels: Mapping[str, str], *, by_exposure: bool) -> list[Entrant]:
    """Group the cells of one protocol.

    Args:
        cells: The cells.
        labels: Names of detectors by :func:`detector_identity`.
        by_exposure: Whether a detector enters once for each exposure; otherwise its cells are on different data sets.
    """
    grouped: dict[tuple[str, tuple[str, ...]], dict[int, dict[str, Measured]]] = {}
    for measured in cells:
        record = measured.record
        label = labels[detector_identity(record)], tuple(record.exposed) if by_exposure else ()
        by_seed = grouped.setdefault(label, {})
        by_seed.setdefault(record.seed, {}).update({result.dataset: measured for result in record.results})
    return [Entrant(detector, exposed, by_seed) for (detector, exposed), by_seed in grouped.items()]


class Estimator:
    """Estimates from the cells of one suite, each figure on one data set computed once."""

    def __init__(self, cells: Iterable[Measured]) -> None:
        self._places: dict[str, slice] = {}
        self._count = 0
        self._known: dict[tuple[object, ...], Estimate | None] = {}
        for measured in cells:
            for name, samples in measured.samples.items():
                if name not in self._places:
                    self._places[name] = slice(self._count, self._count + len(samples.scores))
                    self._count += len(samples.scores)

    def estimate(self, entrant: Entrant, metric: str, datasets: Sequence[str], seeds: Sequence[int]) -> Estimate | None:
        """The mean of a metric over data sets and seeds; None if one of them is missing.

        Args:
            entrant: The detector.
            metric: One of ``INFLUENCED``, or one of them with the prefix ``failure_``.
            datasets: The data sets.
            seeds: The seeds.
        """
        parts = [self._on_dataset(entrant, metric, dataset, seeds) for dataset in datasets]
        present = [part for part in parts if part is not None]
        return mean_of(present) if present and len(present) == len(parts) else None

    def _on_dataset(self, entrant: Entrant, metric: str, dataset: str, seeds: Sequence[int]) -> Estimate | None:
        cells = [entrant.cells.get(seed, {}).get(dataset) for seed in seeds]
        present = [cell for cell in cells if cell is not None]
        if not present or len(present) < len(cells):
            return None
        key = metric, dataset, *((cell.record.cell_id, cell.record.seed) for cell in present)
        if key not in self._known:
            self._known[key] = self._computed(present, metric, dataset)
        return self._known[key]

    def _computed(self, cells: Sequence[Measured], metric: str, dataset: str) -> Estimate | None:
        results = [result_on(cell.record, dataset) for cell in cells]
        values = [result.metrics[metric].value for result in results if result is not None and metric in result.metrics]
        by_seed = tuple(value for value in values if value is not None)
        if results[0] is None or len(by_seed) < len(cells):
            return None
        found = [_influenced(cell, metric, dataset) for cell in cells]
        influence: NDArray[np.float64] = np.mean([one.influence for one in found], axis=0)
        names = dict.fromkeys((next(iter(cells[0].samples)), dataset))
        smallest = min(_smallest(result, metric) for result in results if result is not None)
        return Estimate(by_seed, self._spread(influence, names), mean(one.unseen for one in found), smallest)

    def _spread(self, influence: NDArray[np.float64], names: Iterable[str]) -> NDArray[np.float64]:
        """The influence of the samples of some sets, one after the other, among zeros for all others (N,)."""
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


def target_of(measured: Measured, metric: str, dataset: str) -> Target:
    """What a metric of a cell on a data set is computed from."""
    known, base = next(iter(measured.samples.items()))
    novel = measured.samples[dataset] if dataset != known else Samples(base.scores[:0], base.wrong[:0])
    scores = np.concatenate([base.scores, novel.scores])
    if metric.startswith(FAILURE) or dataset == known:
        return Target(scores, np.concatenate([base.wrong, novel.wrong]))
    return Target(scores, np.arange(len(scores)) >= len(base.scores))


def _influenced(measured: Measured, metric: str, dataset: str) -> Influenced:
    target = target_of(measured, metric, dataset)
    if metric.endswith("meta_accuracy"):
        threshold = measured.record.threshold
        return balanced_accuracy_influence(*target, threshold if threshold is not None else 0.0)
    return auroc_influence(*target)


def detector_identity(record: Record) -> str:
    """A detector with its parameters, but for a seed that is the run's own."""
    params = {key: value for key, value in record.detector.params.items() if (key, value) != ("seed", record.seed)}
    return json.dumps([record.detector.name, params, record.detector.version], sort_keys=True)


def detector_labels(records: Iterable[Record]) -> dict[str, str]:
    """Names of detectors by identity.

    With the parameters that a user gave or that differ, with the layer if any, and with the version where there are
    several.
    """
    by_name: dict[str, set[str]] = {}
    given: dict[str, set[str]] = {}
    for record in records:
        by_name.setdefault(record.detector.name, set()).add(detector_identity(record))
        given.setdefault(record.detector.name, {"layer"}).update(record.detector.given)
    labels: dict[str, str] = {}
    for name, identities in by_name.items():
        every = [json.loads(identity)[1] for identity in identities]
        keys = dict.fromkeys(key for params in every for key in params)
        versions = {json.loads(identity)[2] for identity in identities}
        # A single layer is never the detector that its name alone stands for.
        varying = [
            k for k in sorted(keys) if k in given[name] or len({json.dumps(params.get(k)) for params in every}) > 1
        ]
        for identity in identities:
            _, params, version = json.loads(identity)
            shown = ",".join(f"{key}={_typed(params[key])}" for key in varying if params.get(key) is not None)
            label = f"{name}:{shown}" if shown else name
            labels[identity] = f"{label}@{version}" if len(versions) > 1 else label
    return labels


def _typed(value: object) -> str:
    """A parameter as users type it."""
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
