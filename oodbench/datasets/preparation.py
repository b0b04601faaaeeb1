"""Preprocessing: from a picture of any size and colour to what the classifier gets."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from oodbench.datasets.adapter import Decoded, Decoding, Image
from oodbench.errors import UsageError, blaming
from oodbench.suites.schema import Input

Function = Callable[[Pillow.Image], Any]
"""A transform of the user's or of a library: an RGB picture to float32 (C, H, W)."""
Prepared = NDArray[np.uint8] | NDArray[np.float32]
"""Prepared images (N, C, H, W): of uint8, which are still to be normalised, or as a transform returns them."""

# Width and height of pictures before those of the data are known.
UNKNOWN_SIZE = (32, 32)
# How often a transform is applied to the same picture, to see whether chance is in it.
TRIALS = 6


@dataclass(frozen=True)
class Transform:
    """A function that prepares pictures.

    Attributes:
        name: Name in messages and records.
        function: The function.
        code: Hash of the code that it is defined in; empty for an installed package or a function without a file.
    """

    name: str
    function: Function
    code: str = ""
    _one_at_a_time: "RLock" = field(default_factory=RLock, init=False, repr=False, compare=False)

    def apply(self, picture: Pillow.Image) -> NDArray[np.float32]:
        """The prepared picture, float32 (C, H, W).

        Raises:
            UsageError: The function fails, or returns something else.
        """
        # Code of the user need not expect several threads; that of libraries does.
        with self._one_at_a_time if self.code else nullcontext(), blaming(f"the transform {self.name}"):
            returned = self.function(picture.convert("RGB"))
            # Within, since NumPy has no arrays of some tensors, such as those of bfloat16.
            array = returned.detach().cpu().numpy() if isinstance(returned, torch.Tensor) else returned
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 3 or not array.size:
            found = (
                f"{array.dtype} of shape {array.shape}"
                if isinstance(array, np.ndarray)
                else f"a {type(returned).__name__}"
            )
            raise UsageError(f"the transform {self.name} returned {found}; expected float32 (C, H, W).")
        if not np.isfinite(array).all():
            raise UsageError(f"the transform {self.name} returned NaN or infinite values; expected finite numbers.")
        return array


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become inputs of a classifier; it belongs to the classifier, and all its data sets share it.

    Attributes:
        input: The keys of the suite, with those of a preset filled in.
        transform: A function that stands instead of these keys, except those of decoding.
        picture_size: Width and height of the first known picture: what a transform returns may depend on it.
    """

    input: Input
    transform: Transform | None = None
    picture_size: tuple[int, int] = UNKNOWN_SIZE

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        if self.transform is not None:
            return {"transform": self.transform.name} | ({"code": self.transform.code} if self.transform.code else {})
        chosen = self.input.model_dump(exclude={"preset", "transform", "ground", "orientation", "depth"})
        return {key: value for key, value in chosen.items() if value is not None}

    @property
    def decoding(self) -> Decoding:
        """How pictures become arrays."""
        return Decoding(self.input.ground, self.input.orientation, self.input.depth)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel, which the classifier subtracts and divides by."""
        return self.input.normalisation if self.transform is None else None

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of prepared images.

        Raises:
            UsageError: The transform fails, or is random.
        """
        if self.transform is None:
            return self.input.channels, self.input.size, self.input.size
        width, height = self.picture_size
        pixels = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
        first, *again = [self.transform.apply(Pillow.fromarray(pixels)) for _ in range(TRIALS)]
        if any(not np.array_equal(first, other) for other in again):
            raise UsageError(
                f"the transform {self.transform.name} gives other values for the same picture when it is applied "
                "again; expected one without chance, as in evaluation."
            )
        return first.shape[0], first.shape[1], first.shape[2]

    @property
    def generated(self) -> tuple[int, int]:
        """Number of channels, and height and width, of images that are generated."""
        if self.transform is not None:
            return 3, max(self.picture_size)
        return self.input.channels, self.input.resolution or self.input.size

    def prepare(self, images: "Sequence[Image | Decoded] | Image") -> Prepared:
        """Prepare images.

        Args:
            images: N images of uint8, (H, W) or (H, W, 3).

        Returns:
            (N, C, H, W), of uint8, or of float32 from a transform.

        Raises:
            UsageError: The transform fails, or returns images of different shapes.
        """
        if isinstance(images, np.ndarray) and images.shape[1:] == self.shape[1:] and self._is_native:
            return images[:, None].copy()
        shape = len(images), *self.shape
        prepared: Prepared = (
            np.empty(shape, dtype=np.uint8) if self.transform is None else np.empty(shape, dtype=np.float32)
        )
        for position in range(len(images)):
            image = self.prepare_picture(Pillow.fromarray(np.asarray(images[position])))
            if image.shape != self.shape:
                raise UsageError(
                    f"the transform {self.transform and self.transform.name} returned images of shape {self.shape} "
                    f"and {image.shape}; expected one shape, so resize them."
                )
            prepared[position] = image
        return prepared

    @property
    def _is_native(self) -> bool:
        """Whether grey images of the right size stay as they are."""
        input = self.input
        return self.transform is None and input.channels == 1 and (input.resolution, input.levels) == (None, None)

    def prepare_picture(self, picture: Pillow.Image) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Prepare a single picture: (C, H, W)."""
        if self.transform is not None:
            return self.transform.apply(picture)
        picture = picture.convert("L" if self.input.channels == 1 else "RGB")
        picture = _cut_out(picture, self.input) if self.input.resize is not None else _square(picture, self.input)
        array = np.asarray(picture)
        return array[None] if self.input.channels == 1 else array.transpose(2, 0, 1)


def _cut_out(picture: Pillow.Image, input: Input) -> Pillow.Image:
    """Resize the short side, and cut out the centre, by torchvision's own functions."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    method = InterpolationMode(input.interpolation or "bilinear")
    resized: Pillow.Image = F.center_crop(F.resize(picture, [input.resize], method), [input.size, input.size])
    return resized


def _square(picture: Pillow.Image, input: Input) -> Pillow.Image:
    """Crop the central square, resize it to ``resolution``, reduce it to ``levels``, and resize it to ``size``.

    Without ``interpolation``, images are shrunk by area averaging and enlarged by linear interpolation.
    """
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    if input.resolution is not None:
        picture = _resize(picture, input.resolution, input.interpolation)
    if input.levels is not None:
        picture = picture.point(_of_levels(input.levels) * len(picture.getbands()))
    return _resize(picture, input.size, input.interpolation)


@cache
def _of_levels(levels: int) -> list[int]:
    """The value that each of 256 values is reduced to."""
    steps = levels - 1
    # Round half up, so that the middle value is treated alike for every number of levels.
    return [int(int(value * steps / 255 + 0.5) * 255 / steps + 0.5) for value in range(256)]


def _resize(picture: Pillow.Image, side: int, interpolation: str | None) -> Pillow.Image:
    if picture.width == side:
        return picture
    usual = "box" if side < picture.width else "bilinear"
    return picture.resize((side, side), Pillow.Resampling[(interpolation or usual).upper()])
