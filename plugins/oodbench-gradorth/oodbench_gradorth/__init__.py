"""The detector ``gradorth`` for oodbench."""

from typing import TYPE_CHECKING

import torch

import oodbench
from oodbench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from oodbench.evidence import Evidence


@oodbench.detector("gradorth", needs=("logits", "features"), fitted_on="training")
class GradOrth:
    """Minus the norm of the last layer's gradient in the subspace of the known data (after GradOrth, arXiv 2308.00310).

    Behpour, Doan, Li, He, Gou, Ren 2023: GradOrth. With the features H (N, D) of the known training data, H = U Σ Vᵀ
    without centring, let V_k be the fewest right singular vectors whose squared singular values sum up to the share
    ``energy`` of all. With h the features of a sample, p its softmax and u = 1/C, the gradient of the cross-entropy at
    the uniform label by the weights of the last layer is G = (p − u) hᵀ (C, D), and the score is

        −‖G V_k V_kᵀ‖_F = −‖p − u‖₂ ‖V_kᵀ h‖₂.

    The bias is left out. Known samples have larger projections in the paper, hence the sign.

    What was checked: that the paper computes the norm of the gradient's projection on a low-rank subspace of the known
    data, and that a small norm says unknown (its abstract); that the subspace comes from a singular value decomposition
    (a summary by others). What was not, since its full text and code were not at hand: the label (uniform is assumed,
    as in GradNorm: at the predicted label the gradient grows with uncertainty, which is the other direction), the norm,
    centring, the default of ``energy`` (other people's implementations have 0.97 and 0.9), and on how many samples the
    subspace is computed (all of the training split here).

    Args:
        energy: Share of the sum of squared features that the subspace keeps, above 0 and up to 1.
    """

    def __init__(self, energy: float = 0.97) -> None:
        if not 0 < energy <= 1:
            raise UsageError(f"the energy of gradorth is {energy}; expected a share above 0 and up to 1.")
        self.energy = energy
        self.learnt: dict[str, int] = {}

    def fit(self, evidence: "Evidence", labels: "Tensor") -> None:
        """Find the subspace of the features; labels are of no use."""
        _, singular, basis = torch.linalg.svd(evidence.features.double(), full_matrices=False)
        kept = singular.square().cumsum(dim=0)
        if kept[-1] == 0:
            raise oodbench.CellSkippedError("it needs features of the training data, and all of them are 0")
        rank = int((kept < self.energy * kept[-1]).sum()) + 1
        self._basis = basis[:rank]  # (k, D)
        self.learnt = {"rank": rank}

    def score(self, evidence: "Evidence") -> "Tensor":
        """Minus the norm of the projected gradient, float64 (N,)."""
        p = evidence.logits.double().softmax(dim=1)
        inside = evidence.features.double() @ self._basis.T
        norms: Tensor = (p - 1 / p.shape[1]).norm(dim=1) * inside.norm(dim=1)
        return -norms
