"""The numba kernel of the extra ``fast``, which reads each entry once for all sums and extremes."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic
from numpy.typing import NDArray

# Sums of this many entries are kept in the precision of the entries.
BLOCK = 1024
# Allow LLVM to reorder sums, so that they become vector instructions. Entries are finite: infinite entries are refused
# before, NaN after.
REORDER = ("reassoc", "contract", "nsz", "nnan", "ninf")


def _select(comparison: str) -> Any:  # noqa: ANN401
    """The smaller or larger of two numbers, in the only form that LLVM vectorises in a loop."""

    @intrinsic
    def select(_context: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
        def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            holds = builder.fcmp_ordered(comparison, *arguments, flags=REORDER)
            return builder.select(holds, *arguments, flags=REORDER)

        return one(one, other), generate

    return select


_smaller, _larger = _select("<"), _select(">")


@njit(nogil=True, fastmath=set(REORDER))
def read_rows(entries: NDArray[np.floating], sums: NDArray[np.float64]) -> None:
    """Write Σ|g|, Σg, Σg², Σg³, min and max of each row of entries (N, K) into sums (N, 6)."""
    n, k = entries.shape
    for i in range(n):
        row = entries[i]
        zero = row[0] - row[0]
        absolute, first, second, third = 0.0, 0.0, 0.0, 0.0
        least, largest = row[0], row[0]
        for start in range(0, k, BLOCK):
            block = row[start : min(start + BLOCK, k)]
            size, total, s0, low, high = block.shape[0], zero, zero, block[0], block[0]
            for j in range(size):
                value = block[j]
                s0 += abs(value)
                total += value
                low = _smaller(low, value)
                high = _larger(high, value)
            # Powers are summed about the block's mean, so that a spread far below it is not lost.
            mean = total / np.float32(size)
            u1, u2, u3 = zero, zero, zero
            for j in range(size):
                offset = block[j] - mean
                square = offset * offset
                u1 += offset
                u2 += square
                u3 += square * offset
            m = float(mean)
            absolute += s0
            first += u1 + size * m
            second += u2 + 2 * m * u1 + size * m * m
            third += u3 + 3 * m * u2 + 3 * m * m * u1 + size * m * m * m
            least, largest = min(least, low), max(largest, high)
        sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3] = absolute, first, second, third
        sums[i, 4], sums[i, 5] = least, largest
