"""What the phases of a cell cost: seconds, and the most memory that the process had meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from oodbench.errors import Phase
from oodbench.memory import forget_peak, peak_mib


@dataclass(frozen=True)
class Cost:
    """Seconds, and MiB of resident memory of the whole process at its peak; None where the system does not tell."""

    seconds: float
    peak_mib: float | None


@dataclass(frozen=True)
class Meter:
    """Measures phases, one after the other; one that is gone through several times costs the sum and the maximum."""

    costs: dict[Phase, Cost] = field(default_factory=dict)

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Measure what is done inside."""
        tells = forget_peak()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.costs[phase] = _sum(self.costs.get(phase), time.perf_counter() - start, peak_mib() if tells else None)


def _sum(before: Cost | None, seconds: float, peak: float | None) -> Cost:
    if before is None:
        return Cost(seconds, peak)
    peaks = [one for one in (before.peak_mib, peak) if one is not None]
    return Cost(before.seconds + seconds, max(peaks, default=None))
