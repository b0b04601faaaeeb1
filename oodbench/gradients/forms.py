"""Factorised forms of the per-sample gradient of a parameter, which need not be built to sum over its entries.

The rule of a layer returns a form; the statistics know how to sum over each form. Neither knows the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# Contiguous runs of this many values are copied at full speed.
LONG_RUN = 32


@dataclass(frozen=True)
class Outer:
    """Gradient ``left ⊗ right`` of each sample, an outer product that is never built.

    Attributes:
        left: (N, A).
        right: (N, B).
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Windows:
    """The patches of a convolution: B entries at each of L positions of the kernel. A few are built at a time.

    Attributes:
        padded: (N, G · C, *spatial), or (N, *spatial, C) with the channels last, contiguous.
        channels_last: Whether the channels are the last dimension of ``padded``.
        groups: Number of groups G; 1 with the channels last.
        kernel: Size of the kernel in each spatial dimension; B = C · Π kernel.
        stride: Stride in each spatial dimension.
        dilation: Dilation in each spatial dimension; with the channels last, 1 in the last of them.
    """

    padded: Tensor
    channels_last: bool
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Number of channels in a group, C."""
        return self.padded.shape[-1 if self.channels_last else 1] // self.groups

    @property
    def positions(self) -> tuple[int, ...]:
        """Number of positions of the kernel in each spatial dimension; L is their product."""
        sizes = self.padded.shape[1:-1] if self.channels_last else self.padded.shape[2:]
        return tuple(
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(sizes, self.kernel, self.stride, self.dilation, strict=True)
        )

    @property
    def entries(self) -> int:
        """Number of entries of a patch, B."""
        return self.channels * math.prod(self.kernel)

    def view(self, samples: slice, rows: slice) -> Tensor:
        """A view of the patches of some samples, at some positions in the first spatial dimension.

        Returns:
            (n, G, C, *kernel, *positions). With the channels last (n, *positions, *kernel, C), where the last two
            dimensions are merged so that long runs of memory are copied at once.
        """
        chosen = self.padded[samples]
        first, *rest = self.positions
        start, stop, _ = rows.indices(first)
        positions = (stop - start, *rest)
        if self.channels_last:
            of_sample, *of_space, _ = chosen.stride()
            *kernel, last = self.kernel
            shape = (len(chosen), *positions, *kernel, last * self.channels)
            strides = [of_sample, *_products(of_space, self.stride), *_products(of_space[:-1], self.dilation[:-1]), 1]
        else:
            of_sample, of_channel, *of_space = chosen.stride()
            shape = (len(chosen), self.groups, self.channels, *self.kernel, *positions)
            strides = [
                of_sample,
                of_channel * self.channels,
                of_channel,
                *_products(of_space, self.dilation),
                *_products(of_space, self.stride),
            ]
        return chosen.as_strided(shape, strides, chosen.storage_offset() + start * of_space[0] * self.stride[0])


@dataclass(frozen=True)
class Product:
    """Gradient ``left @ rightᵀ`` of each sample and group: a sum of outer products over L positions.

    Attributes:
        left: (N, G, A, L).
        right: (N, G, B, L), or windows of that shape.
    """

    left: Tensor
    right: Tensor | Windows


@dataclass(frozen=True)
class Vector:
    """The gradient itself, already built.

    Attributes:
        values: (N, K).
        zeros: Number of further entries, which are 0 for every sample.
    """

    values: Tensor
    zeros: int = 0


Form = Outer | Product | Vector


def windows(
    padded: Tensor, groups: int, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Windows:
    """The patches of a padded input (N, G · C, *spatial), in the layout with the longer contiguous runs."""
    plain = Windows(padded, False, groups, kernel, stride, dilation)
    run = plain.positions[-1] if stride[-1] == 1 else 1
    if groups == 1 and dilation[-1] == 1 and run < min(LONG_RUN, kernel[-1] * plain.channels):
        return Windows(padded.movedim(1, -1).contiguous(), True, groups, kernel, stride, dilation)
    return Windows(padded.contiguous(), False, groups, kernel, stride, dilation)


def _products(strides: Sequence[int], factors: Sequence[int]) -> list[int]:
    return [a * b for a, b in zip(strides, factors, strict=True)]
