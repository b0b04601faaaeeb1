"""The numba kernel of the extra ``fast``: one read of each entry for all sums and extremes."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic
from numpy.typing import NDArray

# Sums of so many entries are kept in the precision of the entries.
BLOCK = 1024
# Allowed to reorder sums, so that they become vector instructions. Entries are finite: infinite ones are refused
# before and NaN after.
REORDER = ("reassoc", "contract", "nsz", "nnan", "ninf")


def _select(comparison: str) -> Any:  # noqa: ANN401
    """The smaller or larger of two numbers, in the one form that LLVM makes vector instructions of in a loop."""

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
            s0, s1, s2, s3, low, high = zero, zero, zero, zero, block[0], block[0]
            for j in range(block.shape[0]):
                value = block[j]
                square = value * value
                s0 += abs(value)
                s1 += value
                s2 += square
                s3 += square * value
                low = _smaller(low, value)
                high = _larger(high, value)
            absolute += s0
            first += s1
            second += s2
            third += s3
            least, largest = min(least, low), max(largest, high)
        sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3] = absolute, first, second, third
        sums[i, 4], sums[i, 5] = least, largest
