"""Scores of one file: what readers of all formats return, checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oodbench.errors import UsageError, printable
from oodbench.suites.schema import Group

MORE_UNKNOWN = "larger = more unknown"


@dataclass(frozen=True)
class ScoredSet:
    """The scores on the n samples of a data set.

    Attributes:
        name: Name of the set.
        group: ``near`` or ``far`` for unknown sets, else ``-``.
        indices: int64 (n,), positions in the set.
        labels: int64 (n,), −1 in unknown sets.
        predictions: int64 (n,), −1 where they are not known, which only those of unknown sets may be.
        scores: (n,), float32 or float64, finite; larger = more unknown.
    """

    name: str
    group: Group
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    scores: NDArray[np.floating]


@dataclass(frozen=True)
class ImportedScores:
    """The scores of one seed.

    Attributes:
        known: The known test set.
        unknown: The unknown sets.
        meta: Other known samples, to choose a threshold by; None without.
        convention: What larger scores mean in the file, and what was done with them.
        left_out: What the file has beside that, a sentence each.
    """

    known: ScoredSet
    unknown: Sequence[ScoredSet]
    meta: ScoredSet | None = None
    convention: str = MORE_UNKNOWN
    left_out: Sequence[str] = ()


def scored_set(
    where: str,
    name: str,
    group: Group,
    scores: NDArray[np.generic],
    labels: NDArray[np.generic] | None,
    predictions: NDArray[np.generic] | None,
    indices: NDArray[np.generic] | None = None,
) -> ScoredSet:
    """A set of scores, in the order of its indices.

    Args:
        where: The file and the place in it, to begin a sentence with.
        name: Name of the set.
        group: Its group.
        scores: Larger = more unknown.
        labels: None for an unknown set.
        predictions: None where they are not known.
        indices: None counts from 0.

    Raises:
        UsageError: The scores cannot be used.
    """
    if not name or name != printable(name) or name.endswith(")"):
        raise UsageError(f"{where} has a set of the name {printable(name)!r}; expected a printable one, such as svhn.")
    if scores.ndim != 1 or not len(scores):
        raise UsageError(f"{where} has scores of shape {scores.shape}; expected (n,) with n from 1.")
    if scores.dtype.kind not in "fiu":
        raise UsageError(f"{where} has scores of {scores.dtype}; expected floats.")
    precision = np.float32 if scores.dtype in (np.float16, np.float32) else np.float64
    wide: NDArray[np.floating] = scores.astype(precision, copy=False)
    strange = int((~np.isfinite(wide)).sum())
    if strange:
        raise UsageError(
            f"{where} has {strange:,} of {len(wide):,} scores that are NaN or infinite; expected finite ones, so look "
            "into the method that computed them."
        )
    n = len(wide)
    known = labels is not None
    whole = _integers(where, "labels", np.full(n, -1) if labels is None else labels, n, 0 if known else -1)
    predicted = np.full(n, -1) if predictions is None else predictions
    checked = _integers(where, "predictions", predicted, n, 0 if known else -1)
    places = _integers(where, "indices", np.arange(n) if indices is None else indices, n, 0)
    order = np.argsort(places, kind="stable")
    repeated = np.flatnonzero(np.diff(places[order]) == 0)
    if len(repeated):
        raise UsageError(f"{where} has the index {places[order][repeated[0]]} twice; expected each sample once.")
    return ScoredSet(name, group, places[order], whole[order], checked[order], wide[order])


def _integers(where: str, what: str, values: NDArray[np.generic], n: int, least: int) -> NDArray[np.int64]:
    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise UsageError(
            f"{where} has {what} of shape {values.shape} and {values.dtype}; expected ({n},) whole numbers, one for "
            "each score."
        )
    low, high = int(values.min()), int(values.max())
    if low < least or high > np.iinfo(np.int64).max:
        raise UsageError(f"{where} has {what} from {low} to {high}; expected numbers from {least} on.")
    return values.astype(np.int64)


def imported_scores(file: Path, known: Sequence[ScoredSet], unknown: Sequence[ScoredSet], hint: str) -> ImportedScores:
    """The scores of a file that has one known and at least one unknown set.

    Args:
        file: The file.
        known: Its sets with labels.
        unknown: Its sets without.
        hint: How the file says which set is known, for messages.

    Raises:
        UsageError: It has other sets.
    """
    if len(known) != 1:
        names = ", ".join(one.name for one in known) or "none"
        raise UsageError(f"{file} has {len(known)} known sets ({names}); expected one, the known test set: {hint}.")
    if not unknown:
        raise UsageError(f"{file} has no unknown set; expected at least one beside {known[0].name}.")
    return ImportedScores(known[0], tuple(unknown))
