"""Sums and extremes of gradient entries, from which all seven statistics follow.

There are two implementations with equal results: with the extra ``fast``, a numba kernel that reads each entry once;
otherwise torch operations, which read it several times.
"""

import logging
from functools import cache
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

COLUMNS = 6
"""Σ|g|, Σg, Σg², Σg³, min g, max g."""


@cache
def path() -> str:
    """The implementation that is used on CPUs, with its version; logged once at INFO level."""
    try:
        import numba  # noqa: F401
    except ImportError:
        logger.info("gradient statistics by torch operations; pip install 'oodbench[fast]' makes them faster.")
        return "torch"
    logger.info("gradient statistics by a numba kernel.")
    return f"numba {version('numba')}"


def read_once(entries: Tensor) -> Tensor:
    """Σ|g|, Σg, Σg², Σg³, min and max of each row, float64 (N, 6).

    Args:
        entries: Contiguous float32 or float64 (N, K), K at least 1. Sums over at most a thousand entries are kept in
            that precision, sums of these in float64.
    """
    if path() != "torch" and entries.device.type == "cpu":
        from oodbench.gradients.fused import read_rows

        sums = np.empty((len(entries), COLUMNS))
        read_rows(entries.numpy(), sums)
        return torch.from_numpy(sums)
    return _by_operations(entries)


def _by_operations(entries: Tensor) -> Tensor:
    k, mean = entries.shape[1], entries.mean(dim=1, keepdim=True)
    least, largest = entries.aminmax(dim=1)
    # Powers are summed about the mean, so that a spread far below it is not lost.
    offsets = entries - mean
    squares = offsets.square()
    u1, u2 = offsets.sum(1).double(), squares.sum(1).double()
    u3, m = squares.mul_(offsets).sum(1).double(), mean[:, 0].double()
    sums = (
        entries.abs().sum(1).double(),
        u1 + k * m,
        u2 + 2 * m * u1 + k * m**2,
        u3 + 3 * m * u2 + 3 * m**2 * u1 + k * m**3,
        least.double(),
        largest.double(),
    )
    return torch.stack(sums, dim=1)
