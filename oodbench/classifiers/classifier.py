"""A classifier with its weights."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.classifiers.training import to_input
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.splits import Split
from oodbench.machine.device import FLOAT32, Computing


@dataclass(frozen=True)
class Classifier:
    """A trained network, and what else its evidence depends on.

    Attributes:
        name: The name that the user typed.
        network: The network, in eval mode.
        weights_sha256: Hash of the state dict: names, shapes and values.
        preprocessing: How pictures become its inputs.
        penultimate: Name of the Linear layer whose input is the penultimate features; None finds the layer.
        code: Hash of what defines the network beside its weights; empty for code of an installed package.
        computing: How it computes; the network is on that device.
    """

    name: str
    network: nn.Module
    weights_sha256: str
    preprocessing: Preprocessing
    penultimate: str | None = None
    code: str = ""
    computing: Computing = FLOAT32

    def to_input(self, images: Tensor) -> Tensor:
        """Convert prepared images (N, C, H, W), of uint8 or float32, to the network's input, float32."""
        return to_input(images, self.preprocessing.normalisation)

    def read_inputs(self, split: Split, positions: slice | NDArray[np.int64]) -> Tensor:
        """Read and prepare some samples of a split: the network's input, float32 (N, C, H, W), on the processor."""
        return self.to_input(torch.from_numpy(split.read(split.indices[positions])))
