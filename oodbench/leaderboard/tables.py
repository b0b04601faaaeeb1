"""Makes the tables of a suite, one for each protocol, from records with their scores."""

from collections.abc import Sequence
from statistics import mean, stdev

from oodbench.comparison.compared import ComparedDetector, compared_detectors, detector_identity, detector_labels
from oodbench.comparison.estimates import Estimate
from oodbench.comparison.estimator import FAILURE, Estimator
from oodbench.comparison.merging import refuse_conflicts
from oodbench.comparison.ranking import Rank, ranks, tied_with_best
from oodbench.evaluation.metrics import SMALLER_IS_BETTER
from oodbench.evaluation.results import AREAS
from oodbench.evaluation.risk import JOINT
from oodbench.leaderboard.board import Column, Figure, Row, Table
from oodbench.records.record import Record
from oodbench.records.scored import ScoredRecord

PROTOCOLS = ("known", "unknown-unknowns", "known-unknowns", "leave-one-out", "covariate", "full-spectrum")
"""The order of the tables; other protocols follow by name."""
UNEXPOSED = "unknown-unknowns"
PRIMARY = "auroc"
FAILURE_PRIMARY = "failure_auroc"
JOINT_PRIMARY = JOINT[0]


def _known_column(name: str, metric: str, *, ranks: bool = False) -> Column:
    ascending = metric.removeprefix(FAILURE) in SMALLER_IS_BETTER
    return Column(name=name, metric=metric, datasets=(), ranks=ranks, ascending=ascending)


KNOWN_COLUMNS = (
    _known_column("failure AUROC", FAILURE_PRIMARY, ranks=True),
    _known_column("failure AUPR", "failure_aupr_unknown"),
    _known_column("failure FPR95 (wrong positive)", "failure_fpr95_unknown_positive"),
    _known_column("meta accuracy", "failure_meta_accuracy"),
    _known_column("AURC", "aurc"),
    _known_column("AUGRC", "augrc"),
    _known_column("ECE", "ece"),
)
# A good classifier makes the areas under risk–coverage curves so small that four decimals leave nothing to compare.
DIGITS, MORE_DIGITS = 4, 6
TITLES = {
    "known": "Known samples: wrong against right predictions",
    "unknown-unknowns": "Unknown unknowns: detectors that saw known samples only",
    "known-unknowns": "Known unknowns: detectors that saw other samples of some unknown sets",
    "covariate": "Covariate shift: wrong against right predictions on known classes, as they are and under a shift",
    "full-spectrum": "Full spectrum: unknown against known samples together with those under a covariate shift",
    "leave-one-out": "Leave one out: detectors that saw all unknown sets but the one they are tested on",
}


def tables(cells: Sequence[ScoredRecord]) -> list[Table]:
    """The tables of one suite, one for each protocol; the order of the cells does not matter.

    Raises:
        UsageError: Two records are of the same cell under different conditions.
    """
    ordered = sorted(cells, key=lambda scored: (scored.record.protocol, scored.record.cell_id))
    labels = detector_labels(scored.record for scored in ordered)
    refuse_conflicts(ordered)
    by_protocol: dict[str, list[ScoredRecord]] = {}
    for scored in ordered:
        by_protocol.setdefault(scored.record.protocol, []).append(scored)
    datasets = datasets_of(ordered)
    unmoved = _unmoved(ordered, labels) & _complete(by_protocol.get(UNEXPOSED, []), labels)
    estimator = Estimator(ordered)
    return [
        _table(protocol, by_protocol[protocol], labels, datasets, unmoved, estimator)
        for protocol in sorted(by_protocol, key=lambda name: (_place(name), name))
    ]


def datasets_of(cells: Sequence[ScoredRecord]) -> list[str]:
    """All data sets with results, in the order of the record that tested most of them: that of the suite file."""
    most = max(cells, key=lambda scored: len(scored.record.results))
    return list(dict.fromkeys(result.dataset for scored in (most, *cells) for result in scored.record.results))


def _place(protocol: str) -> int:
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS)


def _unmoved(cells: Sequence[ScoredRecord], labels: dict[str, str]) -> set[str]:
    """Detectors that no exposure changes: each AUROC is the same under all of them."""
    aurocs: dict[tuple[str, int, str], set[tuple[float | None, ...]]] = {}
    exposures: dict[str, set[tuple[str, ...]]] = {}
    failed = set()
    for record in (scored.record for scored in cells):
        label = labels[detector_identity(record)]
        exposures.setdefault(label, set()).add(tuple(record.exposed))
        if record.status != "ok":
            failed.add(label)
        for result in record.results:
            # The rounding of scores to float32 may tie a few more or fewer of them.
            values = tuple(
                None if metric.value is None else round(metric.value, 5)
                for name in (PRIMARY, FAILURE_PRIMARY)
                if (metric := result.metrics.get(name)) is not None
            )
            # Against other known samples it is another figure.
            aurocs.setdefault((label, record.seed, f"{result.dataset} {result.n_known}"), set()).add(values)
    moved = {label for (label, _, _), distinct in aurocs.items() if len(distinct) > 1}
    return {label for label, seen in exposures.items() if len(seen) > 1} - moved - failed


def _complete(cells: Sequence[ScoredRecord], labels: dict[str, str]) -> set[str]:
    """Detectors that lack no cell of a protocol, so that another table can refer to theirs."""
    seen: dict[str, set[tuple[int, str]]] = {}
    for record in (scored.record for scored in cells):
        figures = seen.setdefault(labels[detector_identity(record)], set())
        figures.update((record.seed, result.dataset) for result in record.results)
    everything = set().union(*seen.values())
    return {label for label, figures in seen.items() if figures == everything and figures}


def _table(
    protocol: str,
    cells: list[ScoredRecord],
    labels: dict[str, str],
    datasets: list[str],
    unmoved: set[str],
    estimator: Estimator,
) -> Table:
    seeds = sorted({scored.record.seed for scored in cells})
    finished = [scored for scored in cells if scored.record.status == "ok"]
    present = {result.dataset for scored in finished for result in scored.record.results}
    unknown = {result.dataset for scored in finished for result in scored.record.results if result.role == "unknown"}
    # Where a protocol tests known and unknown sets, its table shows the unknown ones.
    tested = [name for name in datasets if name in (unknown or present)]
    columns = _columns(finished, tested)
    # Exposing a detector to one set after the other makes a matrix; otherwise a detector has one row.
    by_exposure = any(
        len({tuple(scored.record.exposed) for scored in finished if _covers(scored.record, name)}) > 1
        for name in tested
    )
    exposes = any(scored.record.exposed for scored in cells)
    detectors = compared_detectors(cells, labels, by_exposure=by_exposure)
    left_out = sorted({compared.detector for compared in detectors} & unmoved) if exposes else []
    rows = _rows([compared for compared in detectors if compared.detector not in left_out], columns, seeds, estimator)
    notes = [f"Exposure changes no AUROC of: {', '.join(left_out)}; see {UNEXPOSED}."] if left_out else []
    return Table(
        protocol=protocol,
        title=TITLES.get(protocol, protocol),
        caption=_caption(finished, seeds),
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(notes + _failures([scored.record for scored in cells], labels)),
    )


def _caption(finished: list[ScoredRecord], seeds: list[int]) -> str:
    if not finished:
        return "No cell has a result"
    roles = {result.role for scored in finished for result in scored.record.results}
    what = "Wrong against right predictions" if "unknown" not in roles else "AUROC, unknown against known"
    listed = ", ".join(str(seed) for seed in seeds)
    return f"{what}; {'mean over seeds' if len(seeds) > 1 else 'seed'} {listed}{_accuracies(finished)}"


def _accuracies(finished: list[ScoredRecord]) -> str:
    """The classifier's accuracy on known sets, where there are several of them; the mean over the seeds."""
    by_set: dict[str, dict[int, float]] = {}
    for record in (scored.record for scored in finished):
        for result in record.results:
            if result.role == "known":
                by_set.setdefault(result.dataset, {})[record.seed] = 1 - result.n_wrong / result.n_known
    if len(by_set) < 2:
        return ""
    return "; accuracy: " + ", ".join(f"{mean(of_seed.values()):.4f} on {name}" for name, of_seed in by_set.items())


def _columns(finished: list[ScoredRecord], tested: list[str]) -> list[Column]:
    results = [result for scored in finished for result in scored.record.results if result.dataset in tested]
    if not results:
        return []
    groups = {result.dataset: result.group for result in results}
    if all(result.role == "known" for result in results) and len(tested) > 1:
        return [
            *(Column(name=name, metric=FAILURE_PRIMARY, datasets=(name,), group=groups[name]) for name in tested),
            Column(name="mean failure AUROC", metric=FAILURE_PRIMARY, datasets=tuple(tested), ranks=True),
            Column(name="mean AURC", metric="aurc", datasets=tuple(tested), ascending=True),
        ]
    if all(result.role == "known" for result in results):
        available = {name for result in results for name in result.metrics}
        return [
            column.model_copy(update={"datasets": tuple(tested)})
            for column in KNOWN_COLUMNS
            if column.metric in available
        ]
    joint = Column(name="joint AURC mean", metric=JOINT_PRIMARY, datasets=tuple(tested), ascending=True)
    columns = [Column(name=name, metric=PRIMARY, datasets=(name,), group=groups[name]) for name in tested]
    if len(tested) > 1:
        for group in ("near", "far"):
            members = tuple(name for name in tested if groups[name] == group)
            if members:
                columns.append(Column(name=f"{group} mean", metric=PRIMARY, datasets=members, group=group))
    return [
        *columns,
        Column(name="mean", metric=PRIMARY, datasets=tuple(tested), ranks=True),
        Column(name="failure AUROC mean", metric=FAILURE_PRIMARY, datasets=tuple(tested)),
        *([joint] if all(JOINT_PRIMARY in result.metrics for result in results) else []),
    ]


def _rows(
    detectors: list[ComparedDetector], columns: list[Column], seeds: list[int], estimator: Estimator
) -> list[Row]:
    """Complete rows by rank, then the others by name."""
    detectors = sorted(detectors, key=lambda compared: (compared.detector, compared.exposed))
    by_column = [_figures(detectors, column, seeds, estimator) for column in columns]
    ranking = next((i for i, column in enumerate(columns) if column.ranks), None)
    places: dict[int, Rank] = {}
    if ranking is not None:
        complete = [i for i, figure in enumerate(by_column[ranking]) if figure.value is not None]
        estimates = [_estimate(detectors[i], columns[ranking], seeds, estimator) for i in complete]
        ranked = ranks([estimate for estimate in estimates if estimate is not None])
        places = dict(zip(complete, ranked, strict=True))
        # The column that ranks takes its ties from the ranks, so that the two cannot contradict each other.
        by_column[ranking] = [
            figure.model_copy(update={"tied": places[i].low == 1}) if i in places else figure
            for i, figure in enumerate(by_column[ranking])
        ]
    rows = []
    for index, compared in enumerate(detectors):
        rank = places.get(index)
        rows.append(
            Row(
                detector=compared.detector,
                exposed=compared.exposed,
                rank=rank.place if rank else None,
                rank_low=rank.low if rank else None,
                rank_high=rank.high if rank else None,
                tied=bool(rank and rank.tied),
                cost_ms=_cost(compared),
                price=_price(compared),
                figures=tuple(figures[index] for figures in by_column),
            )
        )
    rows = _with_front(rows, ranking)
    return sorted(rows, key=lambda row: (row.rank is None, row.rank or 0))


def _estimate(compared: ComparedDetector, column: Column, seeds: list[int], estimator: Estimator) -> Estimate | None:
    return estimator.estimate(compared, column.metric, column.datasets, seeds)


def _figures(detectors: list[ComparedDetector], column: Column, seeds: list[int], estimator: Estimator) -> list[Figure]:
    """The figures of one column, one for each detector."""
    if not column.metric.endswith((PRIMARY, "meta_accuracy")):
        return [_from_records(compared, column, seeds) for compared in detectors]
    estimates = [_estimate(compared, column, seeds, estimator) for compared in detectors]
    tied = iter(tied_with_best([estimate for estimate in estimates if estimate is not None]))
    return [
        Figure(value=None)
        if estimate is None
        else _from_estimate(estimate).model_copy(
            update={
                "tied": next(tied),
                "exposed": len(column.datasets) == 1 and column.datasets[0] in compared.exposed,
            }
        )
        if column.metric.endswith(PRIMARY)
        else _from_records(compared, column, seeds).model_copy(update={"tied": next(tied)})
        for compared, estimate in zip(detectors, estimates, strict=True)
    ]


def _from_estimate(estimate: Estimate) -> Figure:
    return Figure(value=estimate.value, low=estimate.interval.low, high=estimate.interval.high, spread=estimate.spread)


def _from_records(compared: ComparedDetector, column: Column, seeds: list[int]) -> Figure:
    """The mean of a metric over data sets as the records have it.

    The interval of the mean over seeds and sets goes from the mean of the lower ends to that of the upper ends: seeds
    have the same test samples, sets the same known ones, and their errors add up at most.
    """
    places = [(dataset, seed) for seed in seeds for dataset in column.datasets]
    values = [compared.value(column.metric, *place) for place in places]
    ends = [compared.ends(column.metric, *place) for place in places]
    each = [value for value in values if value is not None]
    inside = [pair for pair in ends if pair is not None]
    if len(each) < len(places) or len(inside) < len(places):
        return Figure(value=None)
    width = len(column.datasets)
    present = [mean(each[start : start + width]) for start in range(0, len(each), width)]
    return Figure(
        value=mean(present),
        low=mean(low for low, _ in inside),
        high=mean(high for _, high in inside),
        digits=MORE_DIGITS if column.metric in (*AREAS, *JOINT) else DIGITS,
        spread=stdev(present) if len(present) > 1 else None,
    )


def _cost(compared: ComparedDetector) -> float | None:
    """Milliseconds for each image, evidence and scoring, mean over the cells."""
    timings = [scored.record.timing for of_seed in compared.cells.values() for scored in of_seed.values()]
    known = [
        timing.evidence_ms_per_sample + timing.score_ms_per_sample
        for timing in timings
        if timing is not None and timing.evidence_ms_per_sample is not None
    ]
    return mean(known) if known else None


def _price(compared: ComparedDetector) -> float | None:
    """Cost of an image in forward passes, mean over the cells."""
    timings = [scored.record.timing for of_seed in compared.cells.values() for scored in of_seed.values()]
    known = [
        (timing.evidence_ms_per_sample + timing.score_ms_per_sample) / timing.forward_ms_per_sample
        for timing in timings
        if timing is not None and timing.evidence_ms_per_sample is not None and timing.forward_ms_per_sample
    ]
    return mean(known) if known else None


def _with_front(rows: list[Row], ranking: int | None) -> list[Row]:
    """The rows, with those marked that nothing cheaper beats in the column that ranks."""
    if ranking is None:
        return rows
    priced = [(row.price, value) for row in rows if row.price is not None and (value := row.figures[ranking].value)]

    def beaten(row: Row) -> bool:
        own = row.figures[ranking].value
        return own is None or row.price is None or any(price < row.price and value >= own for price, value in priced)

    return [row.model_copy(update={"on_front": not beaten(row)}) for row in rows]


def _covers(record: Record, name: str) -> bool:
    return any(result.dataset == name for result in record.results)


def _failures(records: list[Record], labels: dict[str, str]) -> list[str]:
    """A sentence for each detector and each reason why its cells failed or were skipped."""
    exposures = {tuple(record.exposed) for record in records}
    reasons: dict[tuple[str, str, str | None], list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.detector.name, record.exposed, record.seed)):
        if record.status != "ok":
            reasons.setdefault((labels[detector_identity(record)], record.status, record.error), []).append(record)
    sentences = []
    for (label, status, error), cells in reasons.items():
        seeds = sorted({record.seed for record in cells})
        exposed = dict.fromkeys(tuple(record.exposed) for record in cells)
        everywhere = set(exposed) == exposures and len(exposures) > 1
        where = "; ".join(" + ".join(names) for names in exposed if names and not everywhere)
        sentences.append(
            f"{label}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            + (f", exposed to {where}" if where else "")
            + f": {status}: {error}"
        )
    return sentences
