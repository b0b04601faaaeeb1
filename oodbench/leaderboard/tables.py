"""Records to tables of text, one for each protocol; nothing here knows how a table is drawn."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from oodbench.errors import UsageError
from oodbench.records.record import Record, Result

PROTOCOLS = ("known", "unknown-unknowns", "known-unknowns", "leave-one-out")
"""Those that have a place in the order of tables; others follow by name."""
PRIMARY = "auroc"
KNOWN_COLUMNS = {
    "failure AUROC": "failure_auroc",
    "failure AUPR": "failure_aupr_unknown",
    "failure FPR95 (wrong positive)": "failure_fpr95_unknown_positive",
    "meta accuracy": "failure_meta_accuracy",
}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: The protocol.
        caption: What the figures are.
        header: Names of the columns.
        rows: The best detector first; below them those that lack a figure, with a dash for it.
        notes: One sentence for each cell that failed or was skipped.
    """

    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


@dataclass(frozen=True)
class _Column:
    """A column of a table: the mean of a metric over some data sets. Rows are ranked by the columns that rank."""

    name: str
    metric: str
    datasets: tuple[str, ...]
    ranks: bool = False


@dataclass(frozen=True)
class _Row:
    label: tuple[str, ...]
    exposed: frozenset[str]
    by_seed: dict[int, dict[str, Result]]


def suites_of(records: Iterable[Record]) -> dict[tuple[str, int], list[Record]]:
    """Records by suite and version, which no table may mix."""
    grouped: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        grouped.setdefault((record.suite.name, record.suite.version), []).append(record)
    return dict(sorted(grouped.items()))


def tables(records: Sequence[Record]) -> list[Table]:
    """The tables of one suite, one for each protocol.

    Raises:
        UsageError: Two records are of the same cell under different conditions.
    """
    labels = _labels(records)
    _refuse_conflicts(records, labels)
    # The order of the suite file, as the record that tested most sets has it.
    most = max(records, key=lambda record: len(record.results))
    datasets = dict.fromkeys(result.dataset for record in (most, *records) for result in record.results)
    protocols = sorted({record.protocol for record in records}, key=lambda name: (_place(name), name))
    return [
        _table(protocol, [record for record in records if record.protocol == protocol], labels, list(datasets))
        for protocol in protocols
    ]


def _place(protocol: str) -> int:
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS)


def _refuse_conflicts(records: Sequence[Record], labels: dict[str, str]) -> None:
    """No figure may silently come from one of two records that differ in their data, weights or versions."""
    seen: dict[tuple[str, str, tuple[str, ...], int], str] = {}
    for record in records:
        cell = (record.protocol, labels[_identity(record)], tuple(record.exposed), record.seed)
        other = seen.setdefault(cell, record.cell_id)
        if other != record.cell_id:
            raise UsageError(
                f"the records {other} and {record.cell_id} are both of {cell[1]} under {cell[0]}, seed {cell[3]}, with "
                "other data, weights or versions; keep runs that differ in folders of their own."
            )


def _table(protocol: str, records: list[Record], labels: dict[str, str], datasets: list[str]) -> Table:
    finished = [record for record in records if record.status == "ok"]
    seeds = sorted({record.seed for record in records})
    present = {result.dataset for record in finished for result in record.results}
    tested = [name for name in datasets if name in present]
    roles = {result.role for record in finished for result in record.results}
    columns = _columns(finished, tested)
    # Exposing a detector to one set after the other makes a matrix; otherwise a detector has one row.
    per_exposure = any(
        len({tuple(record.exposed) for record in finished if _covers(record, name)}) > 1 for name in tested
    )
    rows = _rows(records, labels, tested, per_exposure=per_exposure)
    if per_exposure:
        rows = _collapsed(rows, columns)
    ranked = sorted(rows, key=lambda row: _rank(row, columns, seeds))
    spread = f", mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else f", seed {seeds[0]}"
    figures = "Wrong against right predictions" if roles == {"known"} else "AUROC, unknown against known"
    caption = figures + spread if finished else "No cell has a result"
    if per_exposure:
        caption += "; * marks sets that the detector was exposed to (other samples of them)"
    return Table(
        protocol,
        caption,
        ["detector", *(["exposed to"] if per_exposure else []), *(column.name for column in columns)],
        [[*row.label, *(_text(row, column, seeds, mark=per_exposure) for column in columns)] for row in ranked],
        _notes(records, labels),
    )


def _columns(finished: list[Record], tested: list[str]) -> list[_Column]:
    if not finished:
        return []
    roles = {result.role for record in finished for result in record.results}
    return _known_columns(tested) if roles == {"known"} else _unknown_columns(finished, tested)


def _known_columns(tested: list[str]) -> list[_Column]:
    return [
        _Column(name, metric, tuple(tested), ranks=metric == f"failure_{PRIMARY}")
        for name, metric in KNOWN_COLUMNS.items()
    ]


def _unknown_columns(records: list[Record], tested: list[str]) -> list[_Column]:
    groups = {result.dataset: result.group for record in records for result in record.results}
    means = {f"{group} mean": tuple(name for name in tested if groups[name] == group) for group in ("near", "far")}
    return [
        *(_Column(name, PRIMARY, (name,), ranks=True) for name in tested),
        *(_Column(name, PRIMARY, members) for name, members in means.items() if members),
        _Column("failure AUROC mean", f"failure_{PRIMARY}", tuple(tested)),
    ]


def _value(column: _Column, results: dict[str, Result]) -> float | None:
    """Mean over data sets; None if one of them is missing: an average over what happens to be there is no figure."""
    values = [results[name].metrics[column.metric].value if name in results else None for name in column.datasets]
    present = [value for value in values if value is not None]
    return mean(present) if present and len(present) == len(values) else None


def _rows(records: list[Record], labels: dict[str, str], tested: list[str], *, per_exposure: bool) -> list[_Row]:
    rows: dict[tuple[str, ...], _Row] = {}
    for record in records:
        detector, exposed = labels[_identity(record)], frozenset(record.exposed) if per_exposure else frozenset()
        everything = len(exposed) > 1 and exposed == set(tested)
        label = (
            (detector, "all" if everything else " + ".join(record.exposed) or "nothing")
            if per_exposure
            else (detector,)
        )
        row = rows.setdefault(label, _Row(label, exposed, {}))
        row.by_seed.setdefault(record.seed, {}).update({result.dataset: result for result in record.results})
    return list(rows.values())


def _collapsed(rows: list[_Row], columns: list[_Column]) -> list[_Row]:
    """One row for a detector that exposure does not change."""
    by_detector: dict[str, list[_Row]] = {}
    for row in rows:
        by_detector.setdefault(row.label[0], []).append(row)
    kept: list[_Row] = []
    for detector, same in by_detector.items():
        figures = [
            {seed: [_value(column, results) for column in columns] for seed, results in row.by_seed.items()}
            for row in same
        ]
        if len(same) > 1 and all(figure == figures[0] for figure in figures) and any(same[0].by_seed.values()):
            kept.append(_Row((detector, "(no effect)"), frozenset(), same[0].by_seed))
        else:
            kept += same
    return kept


def _rank(row: _Row, columns: list[_Column], seeds: list[int]) -> tuple[bool, float, tuple[str, ...]]:
    """Complete rows first, then by the columns that rank, then by name."""
    values = [_over_seeds(row, column, seeds) for column in columns if column.ranks]
    complete = all(values)
    return (not complete, -mean(mean(seen) for seen in values) if complete and values else 0.0, row.label)


def _over_seeds(row: _Row, column: _Column, seeds: list[int]) -> list[float]:
    """The column's value for each seed; nothing at all if one is missing."""
    values = [_value(column, row.by_seed.get(seed, {})) for seed in seeds]
    present = [value for value in values if value is not None]
    return present if len(present) == len(seeds) else []


def _text(row: _Row, column: _Column, seeds: list[int], *, mark: bool) -> str:
    values = _over_seeds(row, column, seeds)
    if not values:
        return "—"
    text = f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
    return f"{text} *" if mark and column.name in row.exposed else text


def _covers(record: Record, name: str) -> bool:
    return any(result.dataset == name for result in record.results)


def _notes(records: list[Record], labels: dict[str, str]) -> list[str]:
    return [
        f"{labels[_identity(record)]}, seed {record.seed}"
        + (f", exposed to {' + '.join(record.exposed)}" if record.exposed else "")
        + f": {record.status}: {record.error}"
        for record in records
        if record.status != "ok"
    ]


def _identity(record: Record) -> str:
    """A detector with its parameters, but for a seed that is the run's own."""
    params = {key: value for key, value in record.detector.params.items() if (key, value) != ("seed", record.seed)}
    return json.dumps([record.detector.name, params], sort_keys=True)


def _labels(records: Iterable[Record]) -> dict[str, str]:
    """Names of detectors; with parameters where one occurs with several."""
    by_name: dict[str, set[str]] = {}
    for record in records:
        by_name.setdefault(record.detector.name, set()).add(_identity(record))
    labels: dict[str, str] = {}
    for name, identities in by_name.items():
        every = [json.loads(identity)[1] for identity in identities]
        varying = [key for key in every[0] if len({json.dumps(params.get(key)) for params in every}) > 1]
        for identity in identities:
            params = json.loads(identity)[1]
            shown = ",".join(f"{key}={params.get(key)}" for key in varying if params.get(key) is not None)
            labels[identity] = f"{name}:{shown}" if shown else name
    return labels
