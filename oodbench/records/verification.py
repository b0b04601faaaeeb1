"""Verification: whether the results of a record follow from its scores."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from oodbench.evaluation.results import CALIBRATED, Memo, Metric, Result, results
from oodbench.machine.progress import Track, silent
from oodbench.records.files import InvalidRecordError, RecordFile, ScoresAbsentError, ScoreSets, record_files
from oodbench.records.record import Record, identity, samples_of
from oodbench.records.scored import TOLERANCE, Rejected, ScoredRecord, scored_record


def read_verified(
    folders: Iterable[Path], track: Track = silent, *, resample: bool = True, further: Path | None = None
) -> tuple[list[ScoredRecord], list[Rejected]]:
    """Read and verify the records of some results folders, each cell once.

    Args:
        folders: Results folders.
        track: Shows progress.
        resample: Whether intervals from resampling are computed again, too, which takes as long as in the run. All else
            is computed again from the scores in any case.
        further: Folder of files of scores that are not in the results folders.

    Returns:
        The records with their scores, and the files that were rejected.

    Raises:
        MissingPrerequisiteError: A folder holds no records.
    """
    by_cell: dict[str, ScoredRecord] = {}
    rejected: list[Rejected] = []
    scores: dict[Path, ScoreSets] = {}
    memo: Memo = {}
    orders: dict[str, tuple[str, Path]] = {}
    files = [one for folder in folders for one in _by_seed(record_files(folder))]
    for file, record in track(files, len(files), "verifying records"):
        try:
            if isinstance(record, InvalidRecordError):
                raise record
            scored = _verified(record, file, scores, memo, resample=resample, further=further)
            _refuse_other_order(scored, scores, orders)
        except ScoresAbsentError as error:
            rejected.append(Rejected(file, str(error), record if isinstance(record, Record) else None))
        except InvalidRecordError as error:
            rejected.append(Rejected(file, str(error)))
        else:
            kept = by_cell.setdefault(scored.record.cell_id, scored)
            if scored.samples and not kept.samples:
                by_cell[scored.record.cell_id] = scored
            elif scored.samples and not _is_same(scored, kept):
                rejected.append(Rejected(file, f"its cell is already there from {kept.file}, with other scores"))
    return list(by_cell.values()), rejected


def _is_same(scored: ScoredRecord, other: ScoredRecord) -> bool:
    """Whether two records of a cell are of the same scores, in whichever files."""
    return scored.samples.keys() == other.samples.keys() and all(
        np.array_equal(samples.scores, other.samples[name].scores) for name, samples in scored.samples.items()
    )


def _by_seed(files: Sequence[RecordFile]) -> list[tuple[Path, Record | InvalidRecordError]]:
    """Records, or why there are none, by seed: those of a seed share their resamples, which are costly to draw."""

    def read(file: RecordFile) -> Record | InvalidRecordError:
        try:
            return file.read()
        except InvalidRecordError as error:
            return error

    found = [(file.path, read(file)) for file in files]
    return sorted(found, key=lambda one: one[1].seed if isinstance(one[1], Record) else -1)


def _verified(
    record: Record,
    file: Path,
    files: dict[Path, ScoreSets],
    memo: Memo,
    *,
    resample: bool,
    further: Path | None,
) -> ScoredRecord:
    try:
        expected = identity(record)
    except KeyError as cause:
        raise InvalidRecordError(f"it lacks the version of {cause.args[0]}") from cause
    if expected != record.cell_id or file.stem != record.cell_id:
        raise InvalidRecordError(
            f"its name and cell_id are {file.stem} and {record.cell_id}, and what it says of suite, detector, weights, "
            f"data and versions gives {expected}, so one of them was changed"
        )
    scored = scored_record(record, file, files, further)
    if record.status == "ok":
        refuse_differences(record.results, _results_again(scored, memo, resample=resample), resample=resample)
    return scored


def _refuse_other_order(
    scored: ScoredRecord, files: dict[Path, ScoreSets], orders: dict[str, tuple[str, Path]]
) -> None:
    """Refuse scores in another order than that of earlier files, since samples are paired by their place in the file.

    Raises:
        InvalidRecordError: The samples of a data set have another order or other labels.
    """
    record = scored.record
    if record.scores is None:
        return
    file = files[scored.file.parents[1] / record.scores.path]
    for name in scored.samples:
        digest = file.orders[name]
        if record.imported is not None and record.imported.orders.get(name) != digest:
            raise InvalidRecordError(f"its samples of {name} have another order or other labels than it says")
        first, where = orders.setdefault(f"{record.suite.name} {samples_of(record, name)}", (digest, scored.file))
        if first != digest:
            raise InvalidRecordError(f"its samples of {name} have another order or other labels than those of {where}")


def _results_again(scored: ScoredRecord, memo: Memo, *, resample: bool) -> list[Result]:
    record = scored.record
    sets = [(name, record.datasets[name].group, samples) for name, samples in scored.samples.items()]
    known = [one for one in sets if one[0] in scored.known]
    unknown = [one for one in sets if one[0] not in scored.known]
    stated = any(CALIBRATED in result.metrics for result in record.results)
    return results(known, unknown, record.threshold, memo, log_odds=stated, resample=resample)


def refuse_differences(stated: list[Result], expected: list[Result], *, resample: bool) -> None:
    """Compare the results that a record states with those computed from its scores.

    Raises:
        InvalidRecordError: They differ; the message names the first difference.
    """
    if len(stated) != len(expected):
        raise InvalidRecordError(f"it has {len(stated)} results; expected {len(expected)}")
    for result, computed in zip(stated, expected, strict=True):
        counts = ("dataset", "role", "group", "n_known", "n_wrong", "n_unknown")
        for key in counts:
            if getattr(result, key) != getattr(computed, key):
                raise InvalidRecordError(
                    f"{result.dataset}: {key} is {getattr(result, key)}, and its scores give {getattr(computed, key)}"
                )
        if result.metrics.keys() != computed.metrics.keys():
            strange = sorted(result.metrics.keys() ^ computed.metrics.keys())
            raise InvalidRecordError(f"{result.dataset}: it lacks or adds the metric {strange[0]}")
        for name, metric in result.metrics.items():
            _refuse_other(f"{result.dataset}: {name}", metric, computed.metrics[name], resample=resample)


def _refuse_other(what: str, stated: Metric, expected: Metric, *, resample: bool) -> None:
    resampled = not resample and expected.ci_low is None
    for key in ("value",) if resampled else ("value", "ci_low", "ci_high"):
        said, computed = getattr(stated, key), getattr(expected, key)
        if (said is None) != (computed is None) or (said is not None and not abs(said - computed) <= TOLERANCE):
            raise InvalidRecordError(f"{what}.{key} is {said}, and its scores give {computed}")
