"""Detectors as tables compare them: under a protocol and an exposure, with all their cells and a label."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from oodbench.evaluation.results import Result
from oodbench.records.record import Record
from oodbench.records.scored import ScoredRecord


@dataclass(frozen=True)
class ComparedDetector:
    """A detector under one protocol and exposure.

    Attributes:
        detector: Its name, with parameters where one detector occurs with several.
        exposed: Unknown sets it saw other samples of.
        cells: By seed and data set, the cell that tested the data set.
    """

    detector: str
    exposed: tuple[str, ...]
    cells: Mapping[int, Mapping[str, ScoredRecord]]

    def value(self, metric: str, dataset: str, seed: int) -> float | None:
        """The value of a metric in the records; None if it is missing."""
        result = self._result(dataset, seed)
        return None if result is None or metric not in result.metrics else result.metrics[metric].value

    def ends(self, metric: str, dataset: str, seed: int) -> tuple[float, float] | None:
        """The ends of its 95 % interval in the records; None if it is missing."""
        result = self._result(dataset, seed)
        stated = None if result is None else result.metrics.get(metric)
        return (
            None
            if stated is None or stated.ci_low is None or stated.ci_high is None
            else (stated.ci_low, stated.ci_high)
        )

    def _result(self, dataset: str, seed: int) -> Result | None:
        scored = self.cells.get(seed, {}).get(dataset)
        return None if scored is None else result_on(scored.record, dataset)


def result_on(record: Record, dataset: str) -> Result | None:
    """The record's result on a data set."""
    return next((result for result in record.results if result.dataset == dataset), None)


def compared_detectors(
    cells: Sequence[ScoredRecord], labels: Mapping[str, str], *, by_exposure: bool
) -> list[ComparedDetector]:
    """Group the cells of one protocol.

    Args:
        cells: The cells.
        labels: Labels of detectors by :func:`detector_identity`.
        by_exposure: Whether each exposure of a detector is compared on its own. Otherwise all cells of a detector are
            grouped, each with data sets of its own.
    """
    grouped: dict[tuple[str, tuple[str, ...]], dict[int, dict[str, ScoredRecord]]] = {}
    for scored in cells:
        record = scored.record
        label = labels[detector_identity(record)], tuple(record.exposed) if by_exposure else ()
        by_seed = grouped.setdefault(label, {})
        by_seed.setdefault(record.seed, {}).update({result.dataset: scored for result in record.results})
    return [ComparedDetector(detector, exposed, by_seed) for (detector, exposed), by_seed in grouped.items()]


def detector_identity(record: Record) -> str:
    """A detector with its version and parameters as JSON, without a ``seed`` that equals the seed of the record."""
    params = {key: value for key, value in record.detector.params.items() if (key, value) != ("seed", record.seed)}
    return json.dumps([record.detector.name, params, record.detector.version], sort_keys=True)


def detector_labels(records: Iterable[Record]) -> dict[str, str]:
    """Labels of detectors by :func:`detector_identity`.

    A label is the name with the parameters that a user gave or that differ between records, with the layer if there is
    one, and with the version where there are several.
    """
    by_name: dict[str, set[str]] = {}
    named: dict[str, set[str]] = {}
    for record in records:
        by_name.setdefault(record.detector.name, set()).add(detector_identity(record))
        named.setdefault(record.detector.name, {"layer"}).update(record.detector.given)
    labels: dict[str, str] = {}
    for name, identities in by_name.items():
        param_sets = [json.loads(identity)[1] for identity in identities]
        keys = dict.fromkeys(key for params in param_sets for key in params)
        versions = {json.loads(identity)[2] for identity in identities}
        # A single layer is never the detector that its name alone stands for.
        varying = [
            key
            for key in sorted(keys)
            if key in named[name] or len({json.dumps(params.get(key)) for params in param_sets}) > 1
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
