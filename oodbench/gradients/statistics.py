"""The seven statistics of a per-sample gradient, from sums over its entries.

Each form of a gradient is reduced to sums. Sums of parameters add up to sums of layers and of the whole network. Where
entries have to be built, they are built in tiles that fit a processor's cache.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add

import torch
from torch import Tensor

from oodbench.gradients.entries import read_once
from oodbench.gradients.forms import Form, Outer, Product, Vector, Windows

# Number of entries of a product that are built at once: few enough to stay in a processor's cache.
TILE = 512 * 1024
# Number of values in the patches of a convolution that are built at once.
PATCHES = 1024 * 1024
# A sum below the rounding errors of its float32 terms is taken for zero: so the mean over the last layer, which is
# zero in exact arithmetic, is constant and not noise.
ROUNDING = 4 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Sums:
    """Sums over the entries g of each sample's gradient.

    Attributes:
        count: Number of entries.
        values: Σ|g|, Σg, Σg², Σg³, min g, max g, float64 (N, 6).
    """

    count: int
    values: Tensor

    @property
    def absolute(self) -> Tensor:
        """Σ|g|, (N,)."""
        return self.values[:, 0]

    @property
    def first(self) -> Tensor:
        """Σg, (N,)."""
        return self.values[:, 1]

    @property
    def second(self) -> Tensor:
        """Σg², (N,)."""
        return self.values[:, 2]

    @property
    def third(self) -> Tensor:
        """Σg³, (N,)."""
        return self.values[:, 3]

    @property
    def least(self) -> Tensor:
        """Min g, (N,)."""
        return self.values[:, 4]

    @property
    def largest(self) -> Tensor:
        """Max g, (N,)."""
        return self.values[:, 5]

    def __add__(self, other: "Sums") -> "Sums":
        """Sums over the entries of both gradients."""
        added = self.values + other.values
        added[:, 4] = torch.minimum(self.least, other.least)
        added[:, 5] = torch.maximum(self.largest, other.largest)
        return Sums(self.count + other.count, added)

    @staticmethod
    def of_samples(chunks: Sequence["Sums"]) -> "Sums":
        """Concatenate the sums of chunks of samples."""
        return Sums(chunks[0].count, torch.cat([chunk.values for chunk in chunks]))

    @staticmethod
    def of_zeros(n: int, count: int, like: Tensor) -> "Sums":
        """Sums over ``count`` entries of 0, for n samples."""
        return Sums(count, like.new_zeros(n, 6, dtype=torch.float64))


class Workspace:
    """Buffers that are reused to build tiles."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """A buffer of a shape, uninitialised; it overlaps the last buffer of the same name."""
        kept = self._buffers.get(name)
        size = prod(shape)
        if kept is None or kept.numel() < size or kept.dtype != like.dtype or kept.device != like.device:
            kept = self._buffers[name] = like.new_empty(size)
        return kept[:size].view(*shape)


def _mean(sums: Sums) -> Tensor:
    significant = sums.first.abs() > ROUNDING * sums.absolute
    return torch.where(significant, sums.first, 0) / sums.count


def _variance(sums: Sums) -> Tensor:
    """Variance of the entries; 0 where it is below their rounding errors."""
    variance = sums.second / sums.count - (sums.first / sums.count) ** 2
    return variance.where(variance > ROUNDING**2 * sums.second / sums.count, 0)


def _skewness(sums: Sums) -> Tensor:
    """Third standardised moment; 0 where the variance is 0."""
    mean, variance = sums.first / sums.count, _variance(sums)
    third = sums.third / sums.count - 3 * mean * sums.second / sums.count + 2 * mean**3
    return torch.where(variance > 0, third / variance.clamp_min(torch.finfo(torch.float64).tiny) ** 1.5, 0)


METRICS: dict[str, Callable[[Sums], Tensor]] = {
    "l1": lambda sums: sums.absolute,
    "l2": lambda sums: sums.second.sqrt(),
    "min": lambda sums: sums.least,
    "max": lambda sums: sums.largest,
    "mean": _mean,
    "std": lambda sums: _variance(sums).sqrt(),
    "skewness": _skewness,
}
"""The gradient metrics of Oberdiek, Rottmann, Gottschalk 2018, and the skewness; ``std`` is that of the population."""

SCALE_FREE = {"skewness"}


def metrics_of(sums: Sums, scale: Tensor) -> dict[str, Tensor]:
    """All seven metrics, float32 (N,) each.

    Args:
        sums: Sums over the entries of gradients that were divided by ``scale``.
        scale: float64 (N,), the scale of each sample.
    """
    return {
        name: (metric(sums) if name in SCALE_FREE else metric(sums) * scale).float() for name, metric in METRICS.items()
    }


def sums_of(form: Form, workspace: Workspace) -> Sums:
    """Sums over all entries of a gradient in factorised form."""
    match form:
        case Vector(values, zeros):
            return _sums_of_vector(values, zeros)
        case Outer(left, right):
            return _sums_of_outer(left.double(), right.double())
        case Product(left, right):
            return _sums_of_product(left, right, workspace)


def _sums_of_vector(values: Tensor, zeros: int) -> Sums:
    sums = Sums(values.shape[1], read_once(values.contiguous()))
    return sums + Sums.of_zeros(len(values), zeros, sums.values) if zeros else sums


def _sums_of_outer(left: Tensor, right: Tensor) -> Sums:
    """Sums over the entries l·r are products of sums over l and over r; extremes are products of extremes."""
    (l_min, l_max), (r_min, r_max) = left.aminmax(dim=1), right.aminmax(dim=1)
    corners = torch.stack([l_min * r_min, l_min * r_max, l_max * r_min, l_max * r_max])
    values = (
        left.abs().sum(1) * right.abs().sum(1),
        left.sum(1) * right.sum(1),
        left.square().sum(1) * right.square().sum(1),
        (left**3).sum(1) * (right**3).sum(1),
        corners.amin(0),
        corners.amax(0),
    )
    return Sums(left.shape[1] * right.shape[1], torch.stack(values, dim=1))


def _sums_of_product(left: Tensor, right: Tensor | Windows, workspace: Workspace) -> Sums:
    """Build ``left @ rightᵀ`` in tiles of some samples and rows, and read each tile once."""
    n, groups, a, positions = left.shape
    b = right.entries if isinstance(right, Windows) else right.shape[2]
    rows = max(1, min(a, TILE // b))
    samples = max(1, min(TILE // (groups * rows * b), PATCHES // max(1, groups * b * positions)))
    of_samples = []
    for some in _slices(n, samples):
        chunks = _position_chunks(right, some, workspace)
        of_rows = []
        for row in _slices(a, rows):
            chosen = left[some, :, row].flatten(0, 1)
            tile = workspace.take("tile", (len(chosen), chosen.shape[1], b), left)
            for number, (here, patches) in enumerate(chunks()):
                torch.baddbmm(tile, chosen[:, :, here], patches, beta=1 if number else 0, out=tile)
            of_rows.append(Sums(groups * chosen.shape[1] * b, read_once(tile.view(len(chosen) // groups, -1))))
        of_samples.append(reduce(add, of_rows))
    return Sums.of_samples(of_samples)


def _position_chunks(
    right: Tensor | Windows, samples: slice, workspace: Workspace
) -> Callable[[], Iterator[tuple[slice, Tensor]]]:
    """Iterate over the right factor of some samples, (n · G, l, B), in chunks of its positions that fit in memory."""
    if isinstance(right, Tensor):
        whole = right[samples].flatten(0, 1).mT
        return lambda: iter([(slice(None), whole)])
    first, *rest = right.positions
    of_row = prod(rest)
    n = len(range(*samples.indices(len(right.padded)))) * right.groups
    step = max(1, PATCHES // (n * right.entries * of_row))

    def built(rows: slice) -> tuple[slice, Tensor]:
        view = right.view(samples, rows)
        patches = workspace.take("patches", view.shape, right.padded).copy_(view)
        here = slice(rows.start * of_row, rows.stop * of_row)
        if right.channels_last:
            return here, patches.view(n, -1, right.entries)
        return here, patches.view(n, right.entries, -1).mT

    if step >= first:
        once = built(slice(0, first))
        return lambda: iter([once])
    return lambda: (built(rows) for rows in _slices(first, step))


def _slices(n: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
