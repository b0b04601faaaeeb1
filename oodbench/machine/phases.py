"""Cost of the phases of a cell: seconds, and the peak memory of the process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from oodbench.errors import Phase
from oodbench.machine.memory import forget_peak, peak_mib


class PhaseCost(BaseModel):
    """Seconds that a phase took, and the peak resident memory of the process meanwhile in MiB, if known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float
    peak_mib: float | None = None


@dataclass(frozen=True)
class Meter:
    """Measures phases. If a phase runs several times, its seconds add up and its peak memory is the maximum."""

    costs: dict[Phase, PhaseCost] = field(default_factory=dict)

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Measure a phase inside the context."""
        tells = forget_peak()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, PhaseCost(seconds=time.perf_counter() - start, peak_mib=peak_mib() if tells else None))

    def add(self, phase: Phase, cost: PhaseCost) -> None:
        """Add a cost that was measured before."""
        before = self.costs.get(phase)
        self.costs[phase] = cost if before is None else _sum(before, cost)


def _sum(before: PhaseCost, cost: PhaseCost) -> PhaseCost:
    peaks = [value for value in (before.peak_mib, cost.peak_mib) if value is not None]
    return PhaseCost(seconds=before.seconds + cost.seconds, peak_mib=max(peaks, default=None))
