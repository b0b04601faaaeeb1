"""What the phases of a cell cost: seconds, and the most memory that the process had meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from oodbench.errors import Phase
from oodbench.memory import forget_peak, peak_mib


class PhaseCost(BaseModel):
    """Seconds of a phase, and MiB of resident memory that the process had at the most meanwhile, if that is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float
    peak_mib: float | None = None


@dataclass(frozen=True)
class Meter:
    """Measures phases, one after the other; one that is gone through several times costs the sum and the maximum."""

    costs: dict[Phase, PhaseCost] = field(default_factory=dict)

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Measure what is done inside."""
        tells = forget_peak()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.costs[phase] = _sum(self.costs.get(phase), time.perf_counter() - start, peak_mib() if tells else None)


def _sum(before: PhaseCost | None, seconds: float, peak: float | None) -> PhaseCost:
    if before is None:
        return PhaseCost(seconds=seconds, peak_mib=peak)
    peaks = [one for one in (before.peak_mib, peak) if one is not None]
    return PhaseCost(seconds=before.seconds + seconds, peak_mib=max(peaks, default=None))
