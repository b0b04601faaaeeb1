"""``ensemble``: a detector of logits on the mean of the networks of all seeds of a suite."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from oodbench.detectors.plugin import detector
from oodbench.detectors.selection import load_one
from oodbench.errors import UsageError
from oodbench.evidence import Evidence

# Samples at once, so that the float64 values of a large split are never there together.
ROWS = 4096

Combine = Literal["probabilities", "logits"]


@detector("ensemble", needs="member_logits")
class Ensemble:
    """A detector of logits on a deep ensemble: the mean over the networks of all seeds of the suite.

    Lakshminarayanan, Pritzel, Blundell 2017, arXiv 1612.01474. The networks are trained on the same samples from other
    seeds. Which predictions are wrong is still told by the network of the cell's own seed, as for all other detectors.
    There is one ensemble: its scores are the same in the cells of all seeds, so that a spread over seeds says nothing
    of it. A detector that takes a seed gets 0.
    """

    through = "members"

    def __init__(self, detector: str, combine: Combine = "probabilities") -> None:
        """Choose the detector.

        Args:
            detector: A detector that needs the logits alone; its parameters are separated by ``;``.
            combine: What the mean is of: ``probabilities``, or ``logits`` as in OpenOOD.

        Raises:
            UsageError: There is no such detector, it needs more than the logits, or it learns from errors.
        """
        self.combine = combine
        inner = load_one("ensemble", detector)
        if set(inner.plugin.needs) != {"logits"}:
            needed = ", ".join(inner.plugin.needs)
            raise UsageError(f"ensemble takes a detector that needs the logits alone, and {detector} needs {needed}.")
        if inner.plugin.fitted_on == "exposed":
            raise UsageError(f"ensemble takes a detector that does not learn from errors, and {detector} does.")
        self._detector = inner.plugin.build(inner.parameters(seed=0))

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Fit the detector on the mean over the networks."""
        self._detector.fit(self._combined(evidence), labels)
        self.learnt = getattr(self._detector, "learnt", {})

    def score(self, evidence: Evidence) -> Tensor:
        """The detector's scores of the mean over the networks."""
        return self._detector.score(self._combined(evidence))

    def _combined(self, evidence: Evidence) -> Evidence:
        members = list(evidence.member_logits.values())
        mean = mean_probabilities if self.combine == "probabilities" else mean_logits
        rows = range(0, len(evidence), ROWS)
        return Evidence(logits=torch.cat([mean([member[i : i + ROWS] for member in members]) for i in rows]))


def mean_probabilities(members: Sequence[Tensor]) -> Tensor:
    """Logits whose softmax is the mean of the members' softmax, and whose log-sum-exp is the mean of theirs.

    The mean probabilities leave open a constant of each sample, on which energies depend; with this one, the energy of
    the ensemble is the mean of its members' energies, and equal members give their own logits.

    Args:
        members: Logits of each member, (N, C).

    Returns:
        float32 (N, C).
    """
    energies = torch.stack([logits.double().logsumexp(dim=1, keepdim=True) for logits in members])
    log_p = torch.stack([logits.double() for logits in members]) - energies
    return (log_p.logsumexp(dim=0) - math.log(len(members)) + energies.mean(dim=0)).float()


def mean_logits(members: Sequence[Tensor]) -> Tensor:
    """The mean of the members' logits, (N, C) each; float32 (N, C)."""
    return torch.stack([logits.double() for logits in members]).mean(dim=0).float()
