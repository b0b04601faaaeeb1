"""Detectors on derivatives inside the network: attributions of channels, and smoothness between stages."""

from typing import Literal

from torch import Tensor

from oodbench.detectors.plugin import detector
from oodbench.errors import CellSkippedError


@detector("gaia-z", needs="gaia_z")
def gaia_z(gaia_z: Tensor) -> Tensor:
    """Density of non-zero attributions of the largest logit (GAIA-Z; Chen et al. 2023, arXiv 2311.09620).

    Attributions of unknown samples are zero at fewer positions.

    Raises:
        CellSkippedError: All samples have the same density, as in a network whose activations pass a gradient
            everywhere.
    """
    if len(gaia_z) > 1 and bool((gaia_z == gaia_z[0]).all()):
        raise CellSkippedError(
            f"all {len(gaia_z)} samples have the same density of attributions that are not zero ({gaia_z[0]:.4g}), as "
            "without ReLU; expected a classifier in which some are zero"
        )
    return gaia_z


@detector("gaia-a", needs="gaia_a")
def gaia_a(gaia_a: Tensor) -> Tensor:
    """Mean squared ratio of inner to outer attributions of channels (GAIA-A; Chen et al. 2023, arXiv 2311.09620)."""
    return gaia_a


@detector("blood", needs=lambda parameters: (f"blood:n={parameters['n']}",))
def blood(blood: Tensor, *, reduce: Literal["mean", "last"] = "mean", n: int = 10) -> Tensor:
    """Squared Frobenius norm of the Jacobians between stages (BLOOD; Jelenić et al. 2024, arXiv 2310.02832).

    The mean over all stages, or that of the last one to the logits alone; estimated by ``n`` random vectors.
    """
    return blood.mean(dim=1) if reduce == "mean" else blood[:, -1]
