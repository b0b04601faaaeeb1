"""The records that figures may be made of: verified, merged, and of runs without ``--limit``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oodbench.comparison.merging import merged
from oodbench.errors import UsageError
from oodbench.machine.progress import Track, silent
from oodbench.records.scored import Rejected, ScoredRecord
from oodbench.records.verification import read_verified


@dataclass(frozen=True)
class UsableRecords:
    """The usable records of some results folders.

    Attributes:
        records: The records that figures may be made of.
        rejected: Records that were left out for a fault.
        limited: How many records were left out since they are of runs with ``--limit``.
    """

    records: Sequence[ScoredRecord]
    rejected: Sequence[Rejected]
    limited: int

    def require_some(self, what: str) -> None:
        """Refuse to go on without records.

        Args:
            what: The beginning of the sentence, such as: no record is left to compare.

        Raises:
            UsageError: All records were left out.
        """
        if self.records:
            return
        reasons = [f"{len(self.rejected)} were left out for the faults named above"] if self.rejected else []
        if self.limited:
            reasons.append(f"{self.limited} are of runs with --limit, of which no figure may be made; run without it")
        raise UsageError(f"{what}: {', and '.join(reasons)}.")


def read_usable(
    folders: Iterable[Path], track: Track = silent, *, resample: bool = True, further: Path | None = None
) -> UsableRecords:
    """Read the records of results folders that boards, comparisons and plots may use.

    Args:
        folders: Results folders.
        track: Shows progress.
        resample: Whether intervals from resampling are computed again, too.
        further: Folder of files of scores that are not in the results folders.

    Raises:
        MissingPrerequisiteError: A folder holds no records.
    """
    verified, rejected = read_verified(folders, track, resample=resample, further=further)
    whole = [scored for scored in verified if scored.record.suite.limit is None]
    kept, left_out = merged(whole)
    return UsableRecords(kept, [*rejected, *left_out], len(verified) - len(whole))


def suites_of(records: Iterable[ScoredRecord]) -> dict[tuple[str, int], list[ScoredRecord]]:
    """Records by suite and version, which no table may mix."""
    grouped: dict[tuple[str, int], list[ScoredRecord]] = {}
    for scored in records:
        suite = scored.record.suite
        grouped.setdefault((suite.name, suite.version), []).append(scored)
    return dict(sorted(grouped.items()))
