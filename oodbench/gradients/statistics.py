"""The seven statistics of a per-sample gradient, from sums over its entries.

One accumulator turns each of the three forms of a gradient into sums; sums of parameters add up to sums of layers and
of the whole network. Entries are summed in the tensor's own precision along one axis and in float64 across.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from oodbench.gradients.rules import Form, Outer, Product, Vector

# Entries of a product that are built at once: few enough to stay in a processor's second-level cache.
TILE = 128 * 1024
# A sum that is smaller than the rounding errors of its float32 terms is zero: so the mean over the last layer, which
# is identically zero, is a constant and not noise.
ROUNDING = 4 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Sums:
    """Sums over the entries g of each sample's gradient, float64 (N,).

    Attributes:
        count: Number of entries.
        absolute: Σ|g|.
        first: Σg.
        second: Σg².
        third: Σg³.
        least: min g.
        largest: max g.
    """

    count: int
    absolute: Tensor
    first: Tensor
    second: Tensor
    third: Tensor
    least: Tensor
    largest: Tensor

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.count + other.count,
            self.absolute + other.absolute,
            self.first + other.first,
            self.second + other.second,
            self.third + other.third,
            torch.minimum(self.least, other.least),
            torch.maximum(self.largest, other.largest),
        )


def _mean(sums: Sums) -> Tensor:
    significant = sums.first.abs() > ROUNDING * sums.absolute
    return torch.where(significant, sums.first, 0) / sums.count


def _variance(sums: Sums) -> Tensor:
    return (sums.second / sums.count - (sums.first / sums.count) ** 2).clamp_min(0)


def _skewness(sums: Sums) -> Tensor:
    mean = sums.first / sums.count
    variance = _variance(sums)
    third = sums.third / sums.count - 3 * mean * sums.second / sums.count + 2 * mean**3
    # A spread below the rounding errors of the entries has no shape.
    spread = variance > ROUNDING**2 * sums.second / sums.count
    return torch.where(spread, third / variance.clamp_min(torch.finfo(torch.float64).tiny) ** 1.5, 0)


METRICS: dict[str, Callable[[Sums], Tensor]] = {
    "l1": lambda sums: sums.absolute,
    "l2": lambda sums: sums.second.sqrt(),
    "min": lambda sums: sums.least,
    "max": lambda sums: sums.largest,
    "mean": _mean,
    "std": lambda sums: _variance(sums).sqrt(),
    "skewness": _skewness,
}
"""The gradient metrics of Oberdiek, Rottmann, Gottschalk 2018 and the skewness; std is the population's."""

SCALE_FREE = {"skewness"}


def metrics_of(sums: Sums, scale: Tensor) -> dict[str, Tensor]:
    """All seven metrics, float32 (N,) each.

    Args:
        sums: Sums over the entries of gradients that were divided by ``scale``.
        scale: float64 (N,), what to multiply with.
    """
    return {
        name: (metric(sums) if name in SCALE_FREE else metric(sums) * scale).float() for name, metric in METRICS.items()
    }


def sums_of(form: Form) -> Sums:
    """Sums over all entries of a gradient."""
    match form:
        case Vector(values):
            return _sums_of_entries(values[:, None])
        case Outer(left, right):
            return _sums_of_outer(left.double(), right.double())
        case Product(left, right):
            return _sums_of_product(left, right)


def _sums_of_outer(left: Tensor, right: Tensor) -> Sums:
    """Every sum over the entries l·r is a product of sums over l and over r; the extremes are products of extremes."""
    (l_min, l_max), (r_min, r_max) = left.aminmax(dim=1), right.aminmax(dim=1)
    corners = torch.stack([l_min * r_min, l_min * r_max, l_max * r_min, l_max * r_max])
    return Sums(
        left.shape[1] * right.shape[1],
        left.abs().sum(1) * right.abs().sum(1),
        left.sum(1) * right.sum(1),
        left.square().sum(1) * right.square().sum(1),
        (left**3).sum(1) * (right**3).sum(1),
        corners.amin(0),
        corners.amax(0),
    )


def _sums_of_product(left: Tensor, right: Tensor) -> Sums:
    n, groups, a, _ = left.shape
    b = right.shape[3]
    if n == 0:
        return _sums_of_entries(left.new_zeros(0, a, b))
    rows = max(1, min(a, TILE // b))
    samples = max(1, TILE // (groups * rows * b))
    tiles = []
    for start in range(0, n, samples):
        chunk = slice(start, start + samples)
        by_rows = [
            _sums_of_entries(torch.matmul(left[chunk, :, row : row + rows], right[chunk]).flatten(1, 2))
            for row in range(0, a, rows)
        ]
        tiles.append(reduce(lambda one, other: one + other, by_rows))
    return Sums(
        groups * a * b,
        *(
            torch.cat([getattr(tile, name) for tile in tiles])
            for name in ("absolute", "first", "second", "third", "least", "largest")
        ),
    )


def _sums_of_entries(entries: Tensor) -> Sums:
    """Sums over entries (N, A, B) that were built."""
    squares = entries.square()
    least, largest = entries.flatten(1).aminmax(dim=1)

    def total(values: Tensor) -> Tensor:
        return values.sum(dim=2).double().sum(dim=1)

    return Sums(
        entries.shape[1] * entries.shape[2],
        total(entries.abs()),
        total(entries),
        total(squares),
        total(squares * entries),
        least.double(),
        largest.double(),
    )


def squares_of(form: Form) -> Tensor:
    """Σg² over all entries of a gradient, float64 (N,), without building what need not be built."""
    match form:
        case Vector(values):
            return values.double().square().sum(1)
        case Outer(left, right):
            return left.double().square().sum(1) * right.double().square().sum(1)
        case Product(left, right):
            n, _, a, positions = left.shape
            if positions**2 < a * right.shape[3]:
                # ‖L R‖² = Σ (LᵀL) ∘ (R Rᵀ), over pairs of positions
                grams = torch.matmul(left.transpose(2, 3), left) * torch.matmul(right, right.transpose(2, 3))
                return grams.sum(dim=3).double().flatten(1).sum(1)
            return _sums_of_product(left, right).second if n else left.new_zeros(0, dtype=torch.float64)
