"""A case of a protocol. It has names of data sets only, so that no protocol can select samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Case:
    """Unknown sets that a detector is fitted and tested on, beside the known meta split and tested known samples.

    Attributes:
        exposed: Unknown sets whose exposed split is added to the known meta split in fitting.
        tested: Unknown sets whose unknown split is added to the tested known samples. If there are none, the detector
            is tested on telling wrong from right predictions.
        known: Which known samples are tested on: those of the ``test`` split; or those of the suite's covariate sets,
            too, ``with-covariate``, as one set together where there are unknown sets, and each alone where there are
            none. Such a case is left out where a suite has no covariate sets.
    """

    exposed: tuple[str, ...]
    tested: tuple[str, ...]
    known: Literal["test", "with-covariate"] = "test"

    def __post_init__(self) -> None:
        """Accept any sequences of names."""
        object.__setattr__(self, "exposed", tuple(self.exposed))
        object.__setattr__(self, "tested", tuple(self.tested))


Protocol = Callable[[Sequence[str]], list[Case]]
"""A function from the names of the suite's unknown sets to the cases to run."""
