"""``oodbench.evaluation.sweep`` as a numba kernel of the extra ``fast``, which reads each count once."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from oodbench.evaluation.sweep import averaged


def sweep(
    of_positives: NDArray[np.uint8],
    of_negatives: NDArray[np.uint8],
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
    ends: NDArray[np.int64],
    lanes: slice,
) -> NDArray[np.float64]:
    """The metrics of some resamples, with the arguments and result of ``oodbench.evaluation.sweep.sweep``."""
    sums = np.zeros((6, lanes.stop - lanes.start))
    m = of_positives[:, lanes].sum(axis=0, dtype=np.float32)
    n = of_negatives[:, lanes].sum(axis=0, dtype=np.float32)
    _sweep(of_positives, of_negatives, rows, truth, ends, lanes.start, m, n, sums)
    return averaged(sums, m.astype(np.float64), n.astype(np.float64))


# This many groups are summed in float32 before they are added in float64.
_BLOCK = 64
_REORDER = {"reassoc", "contract", "nsz", "arcp"}


@njit(nogil=True, error_model="numpy", fastmath=_REORDER)
def _sweep(
    of_positives: NDArray[np.uint8],
    of_negatives: NDArray[np.uint8],
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
    ends: NDArray[np.int64],
    offset: int,
    m: NDArray[np.float32],
    n: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    width = sums.shape[1]
    one, nothing = np.float32(1), np.float32(0)
    half = np.float32(0.5)
    needed_positives, needed_negatives = (
        np.ceil(m * np.float32(95) / np.float32(100)),
        np.ceil(n * np.float32(95) / np.float32(100)),
    )
    tp, fp = np.zeros(width, np.float32), np.zeros(width, np.float32)
    p, q = np.zeros(width, np.float32), np.zeros(width, np.float32)
    partial = np.zeros((6, width), np.float32)
    start = 0
    for group in range(ends.size):
        end = ends[group]
        p[:] = 0
        q[:] = 0
        positives = 0
        for i in range(start, end):
            if truth[i]:
                positives += 1
                drawn = of_positives[rows[i], offset : offset + width]
                for b in range(width):
                    p[b] += np.float32(drawn[b])
            else:
                drawn = of_negatives[rows[i], offset : offset + width]
                for b in range(width):
                    q[b] += np.float32(drawn[b])
        negatives = end - start - positives
        start = end
        for b in range(width):
            below, missed = n[b] - fp[b], m[b] - tp[b]
            drawn_below = below + missed
            precision = below / (drawn_below if drawn_below > nothing else one)
            partial[1, b] += q[b] * precision
            partial[4, b] += (p[b] + q[b]) * precision
            partial[5, b] += (p[b] + q[b]) * (missed - half * p[b])
        if negatives:
            for b in range(width):
                partial[2, b] += q[b] if tp[b] < needed_positives[b] else nothing
                fp[b] += q[b]
        if positives:
            for b in range(width):
                # `fp` holds this group already, and without it are fewer negatives below than with it.
                partial[3, b] += p[b] if n[b] - fp[b] < needed_negatives[b] else nothing
                tp[b] += p[b]
                drawn_above = tp[b] + fp[b]
                partial[0, b] += p[b] * tp[b] / (drawn_above if drawn_above > nothing else one)
        if group % _BLOCK == _BLOCK - 1 or group == ends.size - 1:
            sums += partial
            partial[:] = 0
