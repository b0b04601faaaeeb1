"""The shapes that the per-sample gradient of a parameter can have, short of being built.

A rule for a layer says which of them it is; the statistics know how to sum over each. Neither knows the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# Runs of so many numbers are copied at full speed.
LONG_RUN = 32


@dataclass(frozen=True)
class Outer:
    """Gradient ``left ⊗ right`` of each sample; it is never built.

    Attributes:
        left: (N, A).
        right: (N, B).
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Windows:
    """The patches that a convolution sees, B entries at each of L positions, of which a few are built at a time.

    Attributes:
        padded: (N, G · C, *spatial), or (N, *spatial, C) with the channels last, contiguous.
        channels_last: Which of the two.
        groups: G; 1 with the channels last.
        kernel: Size of the kernel in each spatial dimension; B = C · Π kernel.
        stride: In each spatial dimension.
        dilation: In each spatial dimension; 1 in the last with the channels last.
    """

    padded: Tensor
    channels_last: bool
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def channels(self) -> int:
        """C."""
        return self.padded.shape[-1 if self.channels_last else 1] // self.groups

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the kernel in each spatial dimension; L is their product."""
        sizes = self.padded.shape[1:-1] if self.channels_last else self.padded.shape[2:]
        return tuple(
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(sizes, self.kernel, self.stride, self.dilation, strict=True)
        )

    @property
    def entries(self) -> int:
        """B."""
        return self.channels * math.prod(self.kernel)

    def view(self, samples: slice, rows: slice) -> Tensor:
        """The patches of some samples, at some rows of the first spatial dimension, without a copy.

        Returns:
            (n, G, C, *kernel, *positions); with the channels last (n, *positions, *kernel, C), in which the last two
            dimensions are one, so that long runs of memory are copied at once.
        """
        chosen = self.padded[samples]
        first, *others = self.positions
        start, stop, _ = rows.indices(first)
        positions = (stop - start, *others)
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
    """The gradient itself.

    Attributes:
        values: (N, K).
        zeros: How many further entries are 0 for every sample.
    """

    values: Tensor
    zeros: int = 0


Form = Outer | Product | Vector


def windows(
    padded: Tensor, groups: int, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Windows:
    """The patches of a padded input (N, G · C, *spatial), in the layout that is copied in the longer runs."""
    plain = Windows(padded, False, groups, kernel, stride, dilation)
    run = plain.positions[-1] if stride[-1] == 1 else 1
    if groups == 1 and dilation[-1] == 1 and run < min(LONG_RUN, kernel[-1] * plain.channels):
        return Windows(padded.movedim(1, -1).contiguous(), True, groups, kernel, stride, dilation)
    return Windows(padded.contiguous(), False, groups, kernel, stride, dilation)


def _products(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a * b for a, b in zip(one, other, strict=True)]
