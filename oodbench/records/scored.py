"""Records with the scores that their results are computed from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oodbench.errors import printable
from oodbench.evaluation.results import Samples
from oodbench.records.files import InvalidRecordError, ScoreSets, read_scores, scores_path
from oodbench.records.record import Record

# The two implementations of resampling agree to float32 accuracy; smaller differences change no figure on a board.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class ScoredRecord:
    """A record with the scores that its results are computed from.

    Attributes:
        record: The record.
        file: The record's file.
        samples: Its test sets by name, the known one first; empty if the cell has no results.
        known: The sets of known samples among them: the known test split, and those under a shift.
    """

    record: Record
    file: Path
    samples: Mapping[str, Samples]
    known: tuple[str, ...] = ()

    def sets_of(self, dataset: str) -> list[str]:
        """The test sets that the result on a data set is computed from: known ones, then it; or a known one alone."""
        return [dataset] if dataset in self.known else [*self.known, dataset]


@dataclass(frozen=True)
class Rejected:
    """A file that is no valid record, or whose results do not follow from its scores.

    Attributes:
        file: The file.
        reason: What is wrong with it, without a full stop.
        unscored: The record, if all that is wrong is that the file of its scores is not there.
    """

    file: Path
    reason: str
    unscored: Record | None = None

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.reason}.")


def with_scores(folder: Path, records: Iterable[Record]) -> list[ScoredRecord]:
    """The records of a run with their scores, read from its results folder."""
    files: dict[Path, ScoreSets] = {}
    return [scored_record(record, folder / "records" / f"{record.cell_id}.json", files) for record in records]


def scored_record(
    record: Record, file: Path, files: dict[Path, ScoreSets], further: Path | None = None
) -> ScoredRecord:
    """Read the scores of a record.

    Args:
        record: The record.
        file: Its file.
        files: The files of scores that were read before, to which this one's is added.
        further: Folder of files of scores that are not in the results folder.

    Raises:
        ScoresAbsentError: Its scores are not there.
        InvalidRecordError: They contradict the record.
    """
    if record.status != "ok":
        if record.results or record.scores is not None:
            raise InvalidRecordError(f"it is of a cell that {record.status}, and has results or scores")
        return ScoredRecord(record, file, {})
    if record.scores is None:
        raise InvalidRecordError("it has results and names no scores")
    path = file.parents[1] / record.scores.path
    if path not in files:
        own = scores_path(record.scores.path, file.parents[1])
        elsewhere = [] if further is None else [further / own.name, further / "scores" / own.name]
        files[path] = read_scores(next((file for file in (own, *elsewhere) if file.is_file()), own))
    tested = _samples(record, files[path])
    return ScoredRecord(record, file, tested, tuple(name for name in tested if files[path].is_labelled(name)))


def _samples(record: Record, file: ScoreSets) -> dict[str, Samples]:
    """The samples of the record's test sets, the known one first."""
    if record.scores is None or (record.scores.sha256, record.scores.n) != (file.sha256, file.n):
        raise InvalidRecordError("the SHA-256 of its scores is not that of the file, so one of them was changed")
    groups = {name: dataset.group for name, dataset in record.datasets.items()}
    labelled = {name for name in file.sets if file.is_labelled(name)}
    # Sets that only other records test may be shifted ones.
    known = [name for name in file.sets if name in labelled & groups.keys() and groups[name] != "covariate"]
    if len(known) != 1:
        raise InvalidRecordError(f"its scores hold {len(known)} sets with labels; expected one, the known test split")
    for result in record.results:
        if (result.role == "known") != (result.dataset in labelled):
            raise InvalidRecordError(
                f"its result on {result.dataset} is of {result.role} samples, and their labels are not"
            )
    found = {}
    tested = [name for name in record.datasets if name in file.sets]
    for name in dict.fromkeys([*known, *tested, *(result.dataset for result in record.results)]):
        if name not in tested:
            raise InvalidRecordError(f"its scores or its data sets lack {name}, which it has results of")
        of_set = samples(*file.sets[name])
        if record.datasets[name].n != len(of_set.scores):
            raise InvalidRecordError(
                f"of {name} it has {len(of_set.scores)} scores; expected {record.datasets[name].n}"
            )
        found[name] = of_set
    if not abs(1 - found[known[0]].wrong.mean() - record.classifier.accuracy) <= TOLERANCE:
        raise InvalidRecordError(
            f"the classifier's accuracy is {record.classifier.accuracy}, and its predictions give "
            f"{1 - found[known[0]].wrong.mean():.6f}"
        )
    return found


def samples(labels: NDArray[np.int64], predictions: NDArray[np.int64], scores: NDArray[np.floating]) -> Samples:
    """The samples of a test set, all (n,); unknown ones, of label −1, are always wrong."""
    # Of imported scores, predictions on unknown samples may be missing, which is −1, too.
    return Samples(scores, (predictions != labels) | (labels < 0))
