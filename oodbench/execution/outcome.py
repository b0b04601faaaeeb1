"""What a run comes to, whoever ran it: records, and what kept it from others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oodbench.errors import OodbenchError
from oodbench.records.record import Record
from oodbench.records.store import Store


@dataclass(frozen=True)
class SeedFailed:
    """A seed whose classifier cannot be had: without its weights, its cells have no identity and so no records."""

    seed: int
    error: OodbenchError


@dataclass(frozen=True)
class Outcome:
    """What a run comes to.

    Attributes:
        records: One for each cell.
        problem: What there is to be said beside them, if the run is not whole.
    """

    records: Sequence[Record]
    problem: OodbenchError | None


def outcome(found: Iterable[Record | SeedFailed], store: Store) -> Outcome:
    """All records, when they are there.

    Raises:
        OodbenchError: Not a single seed has a classifier.
    """
    every = list(found)
    failed = [one for one in every if isinstance(one, SeedFailed)]
    if failed and len(failed) == len(every):
        raise failed[0].error
    return Outcome([one for one in every if isinstance(one, Record)], _problem(failed, store))


def _problem(failed: Sequence[SeedFailed], store: Store) -> OodbenchError | None:
    sentences = [f"seed {one.seed} has no classifier: {one.error}" for one in failed]
    if store.conflicts:
        sentences.append(
            f"{len(store.conflicts)} of the cells gave other scores than their finished records, which are kept: "
            f"{', '.join(store.conflicts)}."
        )
    return OodbenchError(" ".join(sentences)) if sentences else None
