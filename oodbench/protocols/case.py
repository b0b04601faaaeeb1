"""A case of a protocol, in names only, so that no protocol can choose samples by looking at them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """What a detector is fitted on beside the known meta split, and tested on beside the known test split.

    Attributes:
        exposed: Unknown sets whose exposed halves join the known meta split in fitting.
        tested: Unknown sets whose test halves join the known test split; without any, wrong predictions are told from
            right ones.
    """

    exposed: tuple[str, ...]
    tested: tuple[str, ...]

    def __post_init__(self) -> None:
        """Any sequences of names will do."""
        object.__setattr__(self, "exposed", tuple(self.exposed))
        object.__setattr__(self, "tested", tuple(self.tested))


Protocol = Callable[[Sequence[str]], list[Case]]
"""Names of the suite's unknown sets to the cases to run."""
