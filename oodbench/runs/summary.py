"""The result of a run: its records, and why others are missing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from oodbench.errors import OodbenchError
from oodbench.records.record import Record
from oodbench.records.store import Store

Lacks = Literal["classifier", "evidence", "records"]
"""What a seed that failed has none of, so that nothing more can be done for it."""


@dataclass(frozen=True)
class SeedFailed:
    """A seed without a classifier or without evidence: its cells have no records."""

    seed: int
    error: OodbenchError
    lacks: Lacks = "classifier"


@dataclass(frozen=True)
class RunSummary:
    """The result of a run.

    Attributes:
        records: The records, one for each cell.
        failed: The seeds that failed.
        problem: What is missing or in conflict, as an error to be raised; None if the run is complete.
    """

    records: Sequence[Record]
    problem: OodbenchError | None
    failed: frozenset[int] = frozenset()


def summarize(results: Iterable[Record | SeedFailed], store: Store) -> RunSummary:
    """Collect the results of all jobs.

    Raises:
        OodbenchError: All seeds failed.
    """
    all_results = list(results)
    failed = [result for result in all_results if isinstance(result, SeedFailed)]
    if failed and len(failed) == len(all_results):
        raise failed[0].error
    return RunSummary(
        [result for result in all_results if isinstance(result, Record)],
        _problem(failed, store),
        frozenset(seed.seed for seed in failed),
    )


def _problem(failed: Sequence[SeedFailed], store: Store) -> OodbenchError | None:
    sentences = [f"seed {seed.seed} has no {seed.lacks}: {seed.error}" for seed in failed]
    if store.conflicts:
        sentences.append(
            f"{len(store.conflicts)} of the cells gave other scores than their finished records, which are kept: "
            f"{', '.join(store.conflicts)}."
        )
    return OodbenchError(" ".join(sentences)) if sentences else None
