"""Several classifiers side by side: the figures of each detector, and how far classifiers rank detectors alike."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from oodbench.comparison.agreement import agreements
from oodbench.comparison.compared import ComparedDetector, compared_detectors, detector_labels
from oodbench.comparison.estimates import Estimate
from oodbench.comparison.estimator import Estimator
from oodbench.comparison.ranking import ranks, tied_with_best
from oodbench.leaderboard.board import Across, AcrossRow, AcrossTable, Agreement, Column, Figure
from oodbench.leaderboard.layers import of_single_layer
from oodbench.leaderboard.tables import FAILURE_PRIMARY, PRIMARY, UNEXPOSED, datasets_of
from oodbench.records.scored import ScoredRecord

KNOWN = "known"


def across(families: Mapping[str, Sequence[ScoredRecord]]) -> Across:
    """Compare classifiers on the same samples, by detectors that saw known samples only.

    Args:
        families: Records of one suite for each classifier, by its label.
    """
    whole = [scored for cells in families.values() for scored in cells if not of_single_layer(scored.record)]
    labels = detector_labels(scored.record for scored in whole)
    estimator = Estimator(whole)
    columns, notes = _columns(families)
    tables = []
    for column in columns:
        protocol = KNOWN if column.metric == FAILURE_PRIMARY else UNEXPOSED
        by_classifier = [
            _estimates([scored for scored in cells if scored.record.protocol == protocol], labels, column, estimator)
            for cells in families.values()
        ]
        tables.append(_table(column, list(families), by_classifier))
    return Across(
        classifiers=tuple(families),
        seeds=tuple(tuple(sorted({scored.record.seed for scored in cells})) for cells in families.values()),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _columns(families: Mapping[str, Sequence[ScoredRecord]]) -> tuple[list[Column], list[str]]:
    """The figures that can be compared, and sentences on sets that some classifier was not tested on."""
    columns, notes = [], []
    by_protocol = {
        protocol: [_tested(cells, protocol) for cells in families.values()] for protocol in (UNEXPOSED, KNOWN)
    }
    shared = {
        protocol: {name: group for name, group in tested[0].items() if all(name in other for other in tested)}
        for protocol, tested in by_protocol.items()
    }
    unknown = shared[UNEXPOSED]
    left_out = sorted({name for tested in by_protocol[UNEXPOSED] for name in tested} - unknown.keys())
    if left_out:
        notes.append(f"Left out, since not all classifiers were tested on them: {', '.join(left_out)}.")
    if unknown:
        columns.append(
            Column(name="mean AUROC over all unknown sets", metric=PRIMARY, datasets=tuple(unknown), ranks=True)
        )
    for group in ("near", "far"):
        members = tuple(name for name, of_set in unknown.items() if of_set == group)
        if members and len(members) < len(unknown):
            columns.append(Column(name=f"mean AUROC over {group} sets", metric=PRIMARY, datasets=members, group=group))
    if shared[KNOWN]:
        columns.append(Column(name="failure AUROC", metric=FAILURE_PRIMARY, datasets=tuple(shared[KNOWN]), ranks=True))
    return columns, notes


def _tested(cells: Sequence[ScoredRecord], protocol: str) -> dict[str, str]:
    """The sets that a protocol tests, with their groups."""
    own = [scored for scored in cells if scored.record.protocol == protocol]
    role = "known" if protocol == KNOWN else "unknown"
    groups = {result.dataset: result.group for scored in own for result in scored.record.results if result.role == role}
    return {name: groups[name] for name in datasets_of(own) if name in groups} if own else {}


def _estimates(
    cells: Sequence[ScoredRecord], labels: Mapping[str, str], column: Column, estimator: Estimator
) -> dict[str, Estimate | None]:
    """The figure of each detector with one classifier; None where it is missing."""
    whole = [scored for scored in cells if not of_single_layer(scored.record)]
    seeds = sorted({scored.record.seed for scored in whole})

    def estimate(compared: ComparedDetector) -> Estimate | None:
        return estimator.estimate(compared, column.metric, column.datasets, seeds)

    return {compared.detector: estimate(compared) for compared in compared_detectors(whole, labels, by_exposure=False)}


def _table(
    column: Column, classifiers: Sequence[str], by_classifier: Sequence[Mapping[str, Estimate | None]]
) -> AcrossTable:
    entered = {name for of_classifier in by_classifier for name in of_classifier}
    complete = {
        name: present
        for name in entered
        if len(present := [found for own in by_classifier if (found := own.get(name)) is not None]) == len(classifiers)
    }
    order = sorted(complete, key=lambda name: (-fmean(found.value for found in complete[name]), name))
    by_place = [[complete[name][place] for name in order] for place in range(len(classifiers))]
    tied = [
        [rank.low == 1 for rank in ranks(estimates)] if column.ranks else tied_with_best(estimates)
        for estimates in by_place
    ]
    compares = column.ranks and len(order) > 1
    return AcrossTable(
        title=column.name,
        metric=column.metric,
        datasets=column.datasets,
        ranks=column.ranks,
        rows=tuple(
            AcrossRow(
                detector=name,
                figures=tuple(
                    _figure(found, tied=of_classifier[i])
                    for found, of_classifier in zip(complete[name], tied, strict=True)
                ),
            )
            for i, name in enumerate(order)
        ),
        missing=tuple(sorted(entered - complete.keys())),
        best=tuple(name for name, *of_detector in zip(order, *tied, strict=True) if all(of_detector))
        if column.ranks
        else (),
        agreements=tuple(
            Agreement(
                first=classifiers[one], second=classifiers[other], value=found.value, low=found.low, high=found.high
            )
            for (one, other), found in agreements(by_place).items()
        )
        if compares
        else (),
    )


def _figure(estimate: Estimate, *, tied: bool) -> Figure:
    interval = estimate.interval
    return Figure(value=estimate.value, low=interval.low, high=interval.high, spread=estimate.spread, tied=tied)
