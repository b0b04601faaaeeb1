"""Inputs of the classifier that are read when they are asked for, so that no detector holds those of a split."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.machine.device import CPU

Read = Callable[[NDArray[np.int64]], Tensor]
"""Reads and prepares the samples at some positions: float32 (N, C, H, W)."""


class Inputs:
    """The inputs of N samples, float32 (N, C, H, W); ``inputs[a:b]``, or a mask or positions, is a tensor of some.

    Args:
        read: Reads samples.
        n: Number of samples.
        device: Where the tensors that are read come to.
    """

    def __init__(self, read: Read, n: int, device: torch.device = CPU) -> None:
        self._read = read
        self._n = n
        self.device = device

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, samples: Any) -> Tensor:  # noqa: ANN401
        chosen = samples.cpu().numpy() if isinstance(samples, Tensor) else samples
        return self._read(np.arange(self._n)[chosen]).to(self.device)

    def to(self, device: torch.device) -> "Inputs":
        """The same inputs on another device."""
        return Inputs(self._read, self._n, device)

    def clone(self) -> "Inputs":
        """These inputs, as what is read is new each time."""
        return self

    @staticmethod
    def concatenate(chunks: "Sequence[Inputs]") -> "Inputs":
        """The inputs of all chunks, in their order."""
        if len(chunks) == 1:
            return chunks[0]
        starts = np.cumsum([0] + [len(chunk) for chunk in chunks])

        def read(positions: NDArray[np.int64]) -> Tensor:
            of_chunk = np.searchsorted(starts, positions, side="right") - 1
            pieces = [chunks[i][positions[of_chunk == i] - starts[i]] for i in np.unique(of_chunk)]
            # Where each position went, since pieces are sorted by chunk.
            places = np.argsort(np.argsort(of_chunk, kind="stable"))
            return torch.cat(pieces)[torch.from_numpy(places).to(pieces[0].device)]

        return Inputs(read, int(starts[-1]), chunks[0].device)
