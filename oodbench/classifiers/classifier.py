"""A classifier with its weights."""

from dataclasses import dataclass

from torch import Tensor, nn

from oodbench.classifiers.training import Normalisation, to_input


@dataclass(frozen=True)
class Classifier:
    """A trained network, and what else its evidence depends on.

    Attributes:
        name: The name that the user typed.
        network: The network, in eval mode.
        weights_sha256: Hash of the state dict: names, shapes and values.
        normalisation: Mean and standard deviation of each channel for normalising inputs; None for no normalisation.
        penultimate: Name of the Linear layer whose input is the penultimate features; None finds the layer.
        code: Hash of the user's own file that defines the network; empty for code of an installed package.
    """

    name: str
    network: nn.Module
    weights_sha256: str
    normalisation: Normalisation | None = None
    penultimate: str | None = None
    code: str = ""

    def to_input(self, images: Tensor) -> Tensor:
        """Convert uint8 images (N, C, H, W) to the network's input, float32."""
        return to_input(images, self.normalisation)
