"""What a network computes on fixed pictures: a part of what it is, whatever its files and names say.

Outputs are compared within float32 accuracy and never hashed, since another processor rounds otherwise.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.cache.tensor_files import Kept
from oodbench.classifiers.network_parts import NetworkParts
from oodbench.classifiers.training import to_input
from oodbench.datasets.adapter import Image
from oodbench.datasets.preparation import Preprocessing
from oodbench.errors import CellSkippedError
from oodbench.machine.device import CPU, device_of

# Differences between processors are below this share of the largest output of a sample.
TOLERANCE = 5e-5
# Number of pictures, and their width and height.
PICTURES, SIZE = 12, (96, 72)
_PROBE = "probe"


@dataclass(frozen=True)
class Probe:
    """The outputs of a network on the fixed pictures and some samples.

    Attributes:
        logits: float32 (N, C).
        features: The penultimate features, float32 (N, D); None if the network has none.
    """

    logits: Tensor
    features: Tensor | None

    def followed_by(self, other: "Probe") -> "Probe":
        """The outputs on the samples of both."""
        both = self.features, other.features
        features = None if both[0] is None or both[1] is None else torch.cat([both[0], both[1]])
        return Probe(torch.cat([self.logits, other.logits]), features)

    def tensors(self, when: str = "") -> dict[str, Tensor]:
        """Its tensors by name, to be kept beside those of a cache entry.

        Args:
            when: What the network was then, where an entry has several probes.
        """
        parts = {"logits": self.logits, "features": self.features}
        return {f"{_PROBE} {when}{name}": part for name, part in parts.items() if part is not None}

    def is_of(self, kept: Kept, when: str = "") -> bool:
        """Whether an entry of the cache was kept with the same outputs."""
        mine, whole = self.tensors(when), kept[0]
        return {f"{_PROBE} {when}features"} & whole.keys() <= mine.keys() and all(
            name in whole and _close(whole[name], tensor) for name, tensor in mine.items()
        )

    def summary(self, what: str, first: int = 0) -> dict[str, list[float]]:
        """A number for each sample that stands for its outputs: a sum over them with fixed random signs.

        Args:
            what: What the samples are called.
            first: The first sample that counts.
        """
        parts = {"logits": self.logits, "features": self.features}
        return {
            f"{name} of {what}": [float(f"{value:.7g}") for value in _signed_sums(part[first:])]
            for name, part in parts.items()
            if part is not None
        }


def without_probe(kept: Kept) -> Kept:
    """An entry of the cache without the outputs that were kept beside it."""
    tensors, metadata = kept
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{_PROBE} ")}, metadata


def picture_inputs(preprocessing: Preprocessing) -> Tensor:
    """The fixed pictures as inputs of a network, float32 (N, C, H, W)."""
    # Those who resize pictures do so with any; a transform may rely on the size that all of the data have.
    size = preprocessing.picture_size if preprocessing.transform is not None else SIZE
    return to_input(torch.from_numpy(preprocessing.prepare(pictures(*size))), preprocessing.normalisation)


def sample_inputs(preprocessing: Preprocessing, images: NDArray[np.generic]) -> Tensor:
    """Prepared images as inputs of a network, float32 (N, C, H, W)."""
    return to_input(torch.from_numpy(images), preprocessing.normalisation)


def outputs_of(network: nn.Module, inputs: Tensor, penultimate: str | None) -> Probe:
    """The outputs of a network.

    Args:
        network: The network, in eval mode.
        inputs: (N, C, H, W).
        penultimate: Name of the Linear layer whose input is the penultimate features; None finds the layer.

    Returns:
        Its outputs, on the processor.
    """
    samples = torch.split(inputs.to(device_of(network)), 1)  # one at a time, which needs the least memory
    with torch.no_grad():
        try:
            encoder = NetworkParts(network, samples[0], penultimate).encoder
        except CellSkippedError:
            return Probe(torch.cat([network(sample) for sample in samples]).float().to(CPU), None)
        outputs = [encoder.features_and_logits(sample) for sample in samples]
    features, logits = (torch.cat(parts).float().to(CPU) for parts in zip(*outputs, strict=True))
    return Probe(logits, features)


def training_outputs(network: nn.Module, inputs: Tensor, seed: int) -> Tensor:
    """The logits (N, C) of a network in training mode, where dropout and the like act; the network is changed.

    Args:
        network: The network.
        inputs: (N, C, H, W).
        seed: Seed of what is random in training.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        logits: Tensor = network.train()(inputs)
    return logits.float()


@cache
def pictures(width: int, height: int) -> list[Image]:
    """Pictures of noise, ramps, edges and plain colours, at high and low contrast: uint8 (H, W, 3)."""
    random = np.random.RandomState(0)  # its stream is the same in all versions of numpy
    rows, columns = np.mgrid[:height, :width]

    def blocks(side: int, low: int, high: int) -> NDArray[np.int64]:
        shape = -(-height // side), -(-width // side), 3
        coarse = random.randint(low, high + 1, shape)
        return coarse.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]

    def grey(plane: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.repeat(plane[..., None], 3, axis=2)

    distance = (rows - height // 2) ** 2 + (columns - width // 2) ** 2
    drawn = [
        blocks(1, 0, 255),
        blocks(4, 0, 255),
        blocks(16, 0, 255),
        blocks(8, 110, 140),
        grey(columns * 255 // width),
        np.stack([rows * 255 // height, 255 - columns * 255 // width, 0 * rows + 128], axis=2),
        grey((rows // 8 + columns // 8) % 2 * 255),
        grey((distance * 64 // (height * width)) % 2 * 255),
        grey((distance * 16 < height * width) * 255),
        np.zeros((height, width, 3), dtype=np.int64),
        np.full((height, width, 3), 255),
        np.broadcast_to(np.array([200, 60, 30]), (height, width, 3)),
    ]
    return [picture.astype(np.uint8) for picture in drawn]


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    a, b = first.flatten(1), second.flatten(1)
    scale = torch.maximum(a.abs().amax(dim=1), b.abs().amax(dim=1))
    alike = (a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= TOLERANCE * scale[:, None])
    return bool(alike.all())


def _signed_sums(part: Tensor) -> NDArray[np.float64]:
    values = part.flatten(1).double().numpy()
    signs = np.random.RandomState(1).randint(0, 2, values.shape[1]) * 2.0 - 1
    sums: NDArray[np.float64] = values @ signs / np.sqrt(values.shape[1])
    return sums
