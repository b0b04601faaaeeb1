"""Two detectors on the same samples: the paired difference on each data set, and whether it separates them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, variance
from typing import Literal

import numpy as np

from oodbench.comparison.compared import ComparedDetector, detector_identity, detector_labels, result_on
from oodbench.comparison.estimates import Difference, difference, holm, of_error
from oodbench.comparison.estimator import FAILURE, INFLUENCED, Estimator, target_of
from oodbench.comparison.merging import other_samples
from oodbench.errors import UsageError
from oodbench.evaluation.bootstrap import RESAMPLED, replicates
from oodbench.evaluation.influence import unseen
from oodbench.evaluation.interval import LEVEL
from oodbench.evaluation.metrics import SMALLER_IS_BETTER
from oodbench.evaluation.results import AREAS
from oodbench.records.record import NO_VERSION, samples_of
from oodbench.records.scored import ScoredRecord

Outcome = Literal["better", "worse", "not separable", "not comparable"]


@dataclass(frozen=True)
class Pair:
    """Two detectors under one protocol and exposure on one data set.

    Attributes:
        suite: Suite and version.
        protocol: The protocol.
        exposed: Unknown sets that both saw other samples of.
        dataset: The data set.
        metric: The metric that is compared.
        seeds: The seeds that both have.
        one: Figure of the first detector, mean over the seeds; None where it has none.
        other: Figure of the second detector.
        difference: The first less the second; None where they are not comparable.
        p: The p value of no difference, adjusted for all pairs of the table (Holm).
        outcome: The outcome for the first detector.
        reason: Why they are not comparable.
    """

    suite: str
    protocol: str
    exposed: tuple[str, ...]
    dataset: str
    metric: str
    seeds: tuple[int, ...]
    one: float | None
    other: float | None
    difference: Difference | None
    p: float | None
    outcome: Outcome
    reason: str = ""


def compare(cells: Sequence[ScoredRecord], first: str, second: str, metric: str | None = None) -> list[Pair]:
    """Compare two detectors on all data sets where one of them was run.

    Args:
        cells: Records with their scores.
        first: Name of a detector, with parameters where it occurs with several.
        second: Name of another detector.
        metric: A metric; AUROC by default. On a known set, the metric of the failure target takes its place.

    Raises:
        UsageError: A name or the metric is unknown.
    """
    name = metric or "auroc"
    if name.removeprefix(FAILURE) not in (*INFLUENCED, *RESAMPLED):
        raise UsageError(
            f"there is no metric {name!r} to compare; expected one of: {', '.join((*INFLUENCED, *RESAMPLED))}."
        )
    labels = detector_labels(scored.record for scored in cells)
    for label in (first, second):
        if label not in labels.values():
            raise UsageError(f"no record is of {label!r}; there are: {', '.join(sorted(set(labels.values())))}.")
    by_detector = {label: _cells(cells, labels, label) for label in (first, second)}
    keys = dict.fromkeys([*by_detector[first], *by_detector[second]])
    pairs = [_pair(key, by_detector[first], by_detector[second], first, second, name) for key in sorted(keys)]
    return _adjusted(pairs)


_Key = tuple[str, int, str, tuple[str, ...], str]
"""Suite, version, protocol, exposure, data set."""
_Cells = dict[_Key, dict[int, ScoredRecord]]
"""Cells by key and seed."""


def _cells(cells: Sequence[ScoredRecord], labels: Mapping[str, str], label: str) -> _Cells:
    by_key: _Cells = {}
    for scored in cells:
        record = scored.record
        if labels[detector_identity(record)] == label:
            for result in record.results:
                key = (record.suite.name, record.suite.version, record.protocol, tuple(record.exposed), result.dataset)
                by_key.setdefault(key, {}).setdefault(record.seed, scored)
    return by_key


def _pair(key: _Key, first_cells: _Cells, second_cells: _Cells, first: str, second: str, name: str) -> Pair:
    suite, version, protocol, exposed, dataset = key
    of_first, of_second = first_cells.get(key, {}), second_cells.get(key, {})
    result = result_on(next(iter((of_first or of_second).values())).record, dataset)
    metric = name
    if result is not None and result.role == "known" and name not in AREAS and not name.startswith(FAILURE):
        metric = FAILURE + name
    shared = sorted(of_first.keys() & of_second.keys())
    entered = [
        ComparedDetector(label, exposed, {seed: {dataset: cells[seed]} for seed in shared or sorted(cells)})
        for label, cells in ((first, of_first), (second, of_second))
    ]
    values = [_mean(compared, metric, dataset) for compared in entered]
    reason = _reason(key, first_cells, second_cells, first, second)
    if not reason and None in values:
        reason = f"{metric} is missing in a record"
    if not reason and metric.removeprefix(FAILURE) not in INFLUENCED:
        reason = _unpaired(entered[0], entered[1], metric, dataset, shared)
    paired = None if reason else _difference(entered[0], entered[1], metric, dataset, shared)
    return Pair(
        suite=f"{suite} {version}",
        protocol=protocol,
        exposed=exposed,
        dataset=dataset,
        metric=metric,
        seeds=tuple(shared),
        one=values[0],
        other=values[1],
        difference=paired,
        p=None,
        outcome="not comparable" if paired is None else "not separable",
        reason=reason,
    )


def _mean(compared: ComparedDetector, metric: str, dataset: str) -> float | None:
    values = [compared.value(metric, dataset, seed) for seed in compared.cells]
    present = [value for value in values if value is not None]
    return mean(present) if present and len(present) == len(values) else None


def _reason(key: _Key, first_cells: _Cells, second_cells: _Cells, first: str, second: str) -> str:
    """Why two detectors are not comparable; empty if they are."""
    of_first, of_second = first_cells.get(key, {}), second_cells.get(key, {})
    if not of_first or not of_second:
        present, lacking, cells = (first, second, second_cells) if of_first else (second, first, first_cells)
        return f"{_elsewhere(key, cells, present, lacking)}"
    seeds = of_first.keys() & of_second.keys()
    if not seeds:
        return f"other seeds: {first} has {_listed(of_first)}, {second} has {_listed(of_second)}"
    records = [cells[seed].record for cells in (of_first, of_second) for seed in sorted(seeds)]
    imported = any(record.imported for record in records)
    unknown = {result.dataset for record in records for result in record.results if result.role == "unknown"}
    for split in dict.fromkeys(name for record in records for name in record.datasets):
        # Imported scores are fitted on nothing here, so that sets beside the known and the compared one do not matter.
        if imported and split != key[-1] and (split in unknown or split.endswith(")")):
            continue
        if len({samples_of(record, split) for record in records}) > 1:
            return f"other data: they have {other_samples(records)} of {split}"
    return ""


def _unpaired(
    first: ComparedDetector, second: ComparedDetector, metric: str, dataset: str, seeds: Sequence[int]
) -> str:
    """Why a resampled metric cannot be compared, if the classes are not the same samples; empty if they are."""
    for seed in seeds:
        mine, theirs = (target_of(compared.cells[seed][dataset], metric, dataset) for compared in (first, second))
        if (mine.positive != theirs.positive).any():
            return f"other classifiers with seed {seed}, and so other wrong predictions; compare auroc or meta_accuracy"
    return ""


def _elsewhere(key: _Key, cells: _Cells, present: str, lacking: str) -> str:
    """Where the detector that lacks a cell was run instead, as a reason."""
    suite, version, protocol, exposed, dataset = key
    for candidate in cells:
        if (candidate[0], *candidate[2:]) == (suite, protocol, exposed, dataset):
            if NO_VERSION in (version, candidate[1]):
                imported = present if version == NO_VERSION else lacking
                return f"{imported} is imported, and whether it is of the same samples is not known"
            return f"other suite version: {present} is of {suite} {version}, {lacking} of {suite} {candidate[1]}"
    for candidate in cells:
        if (candidate[0], candidate[1], candidate[2], candidate[4]) == (suite, version, protocol, dataset):
            return f"other exposure: {present} saw {_shown(exposed)}, {lacking} saw {_shown(candidate[3])}"
    return f"{lacking} was not run on it under {protocol}"


def _shown(exposed: Sequence[str]) -> str:
    return " + ".join(exposed) or "nothing"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds))


def _difference(
    first: ComparedDetector, second: ComparedDetector, metric: str, dataset: str, seeds: Sequence[int]
) -> Difference | None:
    if metric.removeprefix(FAILURE) in INFLUENCED:
        estimator = Estimator(compared.cells[seed][dataset] for compared in (first, second) for seed in seeds)
        first_estimate = estimator.estimate(first, metric, [dataset], seeds)
        second_estimate = estimator.estimate(second, metric, [dataset], seeds)
        return (
            None if first_estimate is None or second_estimate is None else difference(first_estimate, second_estimate)
        )
    return _resampled(first, second, metric, dataset, seeds)


def _resampled(
    first: ComparedDetector, second: ComparedDetector, metric: str, dataset: str, seeds: Sequence[int]
) -> Difference:
    """The difference, with its standard error from resamples that both detectors share.

    All seeds have the same test samples: the error of the mean over seeds is at most the mean of their errors.
    """
    row = RESAMPLED.index(metric.removeprefix(FAILURE))
    differences, errors = [], []
    for seed in seeds:
        mine, theirs = (target_of(compared.cells[seed][dataset], metric, dataset) for compared in (first, second))
        values = [compared.value(metric, dataset, seed) or 0.0 for compared in (first, second)]
        differences.append(values[0] - values[1])
        known = dataset == next(iter(first.cells[seed][dataset].samples))
        draws = [replicates(*target, stratified=not known)[row] for target in (mine, theirs)]
        spread = float(np.nanstd(draws[0] - draws[1], ddof=1))
        sizes = int(mine.positive.sum()), int((~mine.positive).sum())
        errors.append(math.sqrt(spread**2 + sum(unseen(value, *sizes) for value in values)))
    between = variance(differences) / len(seeds) if len(seeds) > 1 else 0.0
    return of_error(mean(differences), mean(errors) ** 2, between, len(seeds))


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with p values and outcomes that are adjusted for all of them together."""
    comparable = [pair for pair in pairs if pair.difference is not None]
    adjusted = iter(holm([pair.difference.p for pair in comparable if pair.difference is not None]))
    return [pair if pair.difference is None else _decided(pair, pair.difference, next(adjusted)) for pair in pairs]


def _decided(pair: Pair, paired: Difference, p: float) -> Pair:
    if p >= 1 - LEVEL:
        return replace(pair, p=p)
    smaller = pair.metric.removeprefix(FAILURE) in SMALLER_IS_BETTER
    return replace(pair, p=p, outcome="better" if (paired.value > 0) != smaller else "worse")
