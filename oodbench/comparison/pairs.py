"""Two detectors on the same samples: the paired difference on each data set, and whether it separates them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, variance
from typing import Literal

import numpy as np

from oodbench.comparison.entrants import (
    FAILURE,
    INFLUENCED,
    Entrant,
    Estimator,
    detector_identity,
    detector_labels,
    result_on,
    target_of,
)
from oodbench.comparison.estimates import Difference, difference, holm, of_error
from oodbench.errors import UsageError
from oodbench.evaluation.bootstrap import RESAMPLED, replicates
from oodbench.evaluation.influence import unseen
from oodbench.evaluation.interval import LEVEL
from oodbench.records.results import AREAS
from oodbench.records.verification import Measured

SMALLER_IS_BETTER = ("fpr95_unknown_positive", "fpr95_known_positive", *AREAS)
Outcome = Literal["better", "worse", "not separable", "not comparable"]


@dataclass(frozen=True)
class Pair:
    """Two detectors under one protocol and exposure on one data set.

    Attributes:
        suite: Suite and version.
        protocol: The protocol.
        exposed: Unknown sets that both saw other samples of.
        dataset: The data set.
        metric: What is compared.
        seeds: The seeds that both have.
        one: Figure of the first detector, mean over the seeds; None where it has none.
        other: Figure of the second.
        difference: The first less the second; None where they are not comparable.
        p: Its p value, adjusted for all pairs of the table (Holm).
        outcome: Of the first detector.
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


def compare(cells: Sequence[Measured], one: str, other: str, metric: str | None = None) -> list[Pair]:
    """Compare two detectors wherever one of them was run.

    Args:
        cells: Records with their scores.
        one: Name of a detector, with parameters where it occurs with several.
        other: Name of another.
        metric: A metric; AUROC by default. Where only known samples are tested it is that of failure.

    Raises:
        UsageError: A name or the metric is unknown.
    """
    name = metric or "auroc"
    if name.removeprefix(FAILURE) not in (*INFLUENCED, *RESAMPLED):
        raise UsageError(
            f"there is no metric {name!r} to compare; expected one of: {', '.join((*INFLUENCED, *RESAMPLED))}."
        )
    labels = detector_labels(measured.record for measured in cells)
    for label in (one, other):
        if label not in labels.values():
            raise UsageError(f"no record is of {label!r}; there are: {', '.join(sorted(set(labels.values())))}.")
    by_detector = {label: _cells(cells, labels, label) for label in (one, other)}
    keys = dict.fromkeys([*by_detector[one], *by_detector[other]])
    pairs = [_pair(key, by_detector[one], by_detector[other], one, other, name) for key in sorted(keys)]
    return _adjusted(pairs)


_Key = tuple[str, int, str, tuple[str, ...], str]
"""Suite, version, protocol, exposure, data set."""
_Cells = dict[_Key, dict[int, Measured]]
"""Cells by key and seed."""


def _cells(cells: Sequence[Measured], labels: Mapping[str, str], label: str) -> _Cells:
    found: _Cells = {}
    for measured in cells:
        record = measured.record
        if labels[detector_identity(record)] == label:
            for result in record.results:
                key = (record.suite.name, record.suite.version, record.protocol, tuple(record.exposed), result.dataset)
                found.setdefault(key, {}).setdefault(record.seed, measured)
    return found


def _pair(key: _Key, mine: _Cells, theirs: _Cells, one: str, other: str, name: str) -> Pair:
    suite, version, protocol, exposed, dataset = key
    first, second = mine.get(key, {}), theirs.get(key, {})
    result = result_on(next(iter((first or second).values())).record, dataset)
    metric = name
    if result is not None and result.role == "known" and name not in AREAS and not name.startswith(FAILURE):
        metric = FAILURE + name
    shared = sorted(first.keys() & second.keys())
    entered = [
        Entrant(label, exposed, {seed: {dataset: cells[seed]} for seed in shared or sorted(cells)})
        for label, cells in ((one, first), (other, second))
    ]
    values = [_mean(entrant, metric, dataset) for entrant in entered]
    reason = _reason(key, mine, theirs, one, other)
    if not reason and None in values:
        reason = f"{metric} is missing in a record"
    if not reason and metric.removeprefix(FAILURE) not in INFLUENCED:
        reason = _unpaired(entered[0], entered[1], metric, dataset, shared)
    found = None if reason else _difference(entered[0], entered[1], metric, dataset, shared)
    return Pair(
        suite=f"{suite} {version}",
        protocol=protocol,
        exposed=exposed,
        dataset=dataset,
        metric=metric,
        seeds=tuple(shared),
        one=values[0],
        other=values[1],
        difference=found,
        p=None,
        outcome="not comparable" if found is None else "not separable",
        reason=reason,
    )


def _mean(entrant: Entrant, metric: str, dataset: str) -> float | None:
    values = [entrant.value(metric, dataset, seed) for seed in entrant.cells]
    present = [value for value in values if value is not None]
    return mean(present) if present and len(present) == len(values) else None


def _reason(key: _Key, mine: _Cells, theirs: _Cells, one: str, other: str) -> str:
    """Why two detectors are not comparable; empty if they are."""
    first, second = mine.get(key, {}), theirs.get(key, {})
    if not first or not second:
        present, lacking, cells = (one, other, theirs) if first else (other, one, mine)
        return f"{_elsewhere(key, cells, present, lacking)}"
    seeds = first.keys() & second.keys()
    if not seeds:
        return f"other seeds: {one} has {_listed(first)}, {other} has {_listed(second)}"
    records = [cells[seed].record for cells in (first, second) for seed in sorted(seeds)]
    for split in dict.fromkeys(name for record in records for name in record.datasets):
        hashes = {part.sha256 if (part := record.datasets.get(split)) is not None else "" for record in records}
        if len(hashes) > 1:
            return f"other data: they have other samples of {split}"
    return ""


def _unpaired(one: Entrant, other: Entrant, metric: str, dataset: str, seeds: Sequence[int]) -> str:
    """Why a resampled metric cannot be compared: the classes are not the same samples."""
    for seed in seeds:
        mine, theirs = (target_of(entrant.cells[seed][dataset], metric, dataset) for entrant in (one, other))
        if (mine.positive != theirs.positive).any():
            return f"other classifiers with seed {seed}, and so other wrong predictions; compare auroc or meta_accuracy"
    return ""


def _elsewhere(key: _Key, cells: _Cells, present: str, lacking: str) -> str:
    """Where the detector that lacks a cell has one that is nearest to it."""
    suite, version, protocol, exposed, dataset = key
    for other in cells:
        if (other[0], *other[2:]) == (suite, protocol, exposed, dataset):
            return f"other suite version: {present} is of {suite} {version}, {lacking} of {suite} {other[1]}"
    for other in cells:
        if (other[0], other[1], other[2], other[4]) == (suite, version, protocol, dataset):
            return f"other exposure: {present} saw {_shown(exposed)}, {lacking} saw {_shown(other[3])}"
    return f"{lacking} was not run on it under {protocol}"


def _shown(exposed: Sequence[str]) -> str:
    return " + ".join(exposed) or "nothing"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds))


def _difference(one: Entrant, other: Entrant, metric: str, dataset: str, seeds: Sequence[int]) -> Difference | None:
    if metric.removeprefix(FAILURE) in INFLUENCED:
        estimator = Estimator(entrant.cells[seed][dataset] for entrant in (one, other) for seed in seeds)
        first = estimator.estimate(one, metric, [dataset], seeds)
        second = estimator.estimate(other, metric, [dataset], seeds)
        return None if first is None or second is None else difference(first, second)
    return _resampled(one, other, metric, dataset, seeds)


def _resampled(one: Entrant, other: Entrant, metric: str, dataset: str, seeds: Sequence[int]) -> Difference:
    """From the standard error of the difference on shared resamples.

    All seeds have the same test samples: the error of the mean over seeds is at most the mean of their errors.
    """
    row = RESAMPLED.index(metric.removeprefix(FAILURE))
    differences, errors = [], []
    for seed in seeds:
        mine, theirs = (target_of(entrant.cells[seed][dataset], metric, dataset) for entrant in (one, other))
        values = [entrant.value(metric, dataset, seed) or 0.0 for entrant in (one, other)]
        differences.append(values[0] - values[1])
        known = dataset == next(iter(one.cells[seed][dataset].samples))
        draws = [replicates(*target, stratified=not known)[row] for target in (mine, theirs)]
        spread = float(np.nanstd(draws[0] - draws[1], ddof=1))
        sizes = int(mine.positive.sum()), int((~mine.positive).sum())
        errors.append(math.sqrt(spread**2 + sum(unseen(value, *sizes) for value in values)))
    between = variance(differences) / len(seeds) if len(seeds) > 1 else 0.0
    return of_error(mean(differences), mean(errors) ** 2, between, len(seeds))


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with p values and outcomes that hold for all of them together."""
    comparable = [pair for pair in pairs if pair.difference is not None]
    adjusted = iter(holm([pair.difference.p for pair in comparable if pair.difference is not None]))
    return [pair if pair.difference is None else _decided(pair, pair.difference, next(adjusted)) for pair in pairs]


def _decided(pair: Pair, found: Difference, p: float) -> Pair:
    if p >= 1 - LEVEL:
        return replace(pair, p=p)
    smaller = pair.metric.removeprefix(FAILURE) in SMALLER_IS_BETTER
    return replace(pair, p=p, outcome="better" if (found.value > 0) != smaller else "worse")
