"""``tuned``: another detector, with the parameters that do best on the suite's validation sets."""

from typing import Literal, NoReturn

from torch import Tensor

from oodbench.detectors.plugin import detector
from oodbench.errors import UsageError
from oodbench.evidence import Evidence

Objective = Literal["auroc", "aupr_unknown", "aupr_known", "fpr95_unknown_positive", "fpr95_known_positive"]


@detector("tuned", needs="logits")
class Tuned:
    """Another detector, with the parameters of its search space that do best on the suite's validation sets.

    Each candidate is fitted as the detector is, and tells the unknown sets of ``[validation]`` from the known meta
    split, which for a known set with a validation list is that list. The mean of the objective over these sets decides,
    and among equals the first. No test sample is looked at. The record has all candidates.
    """

    through = "tuning"

    def __init__(self, detector: str, objective: Objective = "auroc", grid: Literal["own", "openood"] = "own") -> None:
        """Choose what is tuned.

        Args:
            detector: The detector; its parameters are separated by ``;``, and those that are given are not tried.
            objective: The metric that decides.
            grid: The values that are tried: ``own`` ones of the detector, or those of ``openood`` where they differ.
        """
        self.detector, self.objective, self.grid = detector, objective, grid

    def fit(self, evidence: Evidence, labels: Tensor) -> NoReturn:
        """Refuse: a run fits the candidates, by samples that no detector is given.

        Raises:
            UsageError: Always.
        """
        raise UsageError("tuned is fitted by a run, which has the validation sets; call the chosen detector instead")

    def score(self, evidence: Evidence) -> NoReturn:
        """Refuse, likewise.

        Raises:
            UsageError: Always.
        """
        raise UsageError("tuned is scored by a run; call the chosen detector instead")
