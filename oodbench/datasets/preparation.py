"""Conversion of images of any size and colour to the suite's input."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from oodbench.datasets.adapter import Image
from oodbench.suites.schema import Input


def prepare(images: Sequence[Image] | Image, input: Input) -> NDArray[np.uint8]:
    """Crop the central square, convert the colours, and resize.

    Images are shrunk by area averaging and enlarged by linear interpolation. They are first resized to
    ``input.resolution`` and reduced to ``input.levels`` grey values, where these are set, then resized to
    ``input.size``.

    Args:
        images: N images of uint8, (H, W) or (H, W, 3).
        input: The suite's input.

    Returns:
        uint8 (N, C, size, size).
    """
    prepared = np.empty((len(images), input.channels, input.size, input.size), dtype=np.uint8)
    native = isinstance(images, np.ndarray) and images.shape[1:] == (input.size, input.size)
    if native and input.channels == 1 and input.resolution is None and input.levels is None:
        prepared[:, 0] = images
        return prepared
    for position in range(len(images)):
        prepared[position] = _prepare_image(images[position], input)
    return prepared


def _prepare_image(image: Image, input: Input) -> NDArray[np.uint8]:
    picture = Pillow.fromarray(image).convert("L" if input.channels == 1 else "RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    if input.resolution is not None:
        picture = _resize(picture, input.resolution)
    if input.levels is not None:
        steps = input.levels - 1
        # Round half up, so that the middle value is treated alike for every number of levels.
        picture = picture.point(lambda value: int(int(value * steps / 255 + 0.5) * 255 / steps + 0.5))
    picture = _resize(picture, input.size)
    array = np.asarray(picture)
    return array[None] if input.channels == 1 else array.transpose(2, 0, 1)


def _resize(picture: Pillow.Image, side: int) -> Pillow.Image:
    if picture.width == side:
        return picture
    method = Pillow.Resampling.BOX if side < picture.width else Pillow.Resampling.BILINEAR
    return picture.resize((side, side), method)
