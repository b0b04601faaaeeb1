"""Decodes each image of a pool once: its digest, whether it can be read, and what was converted on the way."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.datasets.adapter import Decoded, Image, Pool, UnreadableImageError
from oodbench.datasets.decoding import NARROW, WIDE
from oodbench.datasets.preparation import Prepared, Preprocessing
from oodbench.errors import FROM_OUTSIDE, OodbenchError, UsageError, blaming, described, is_exhausted

Drawing = Literal["source", "prepared"]
"""What splits are drawn by: the images as they are decoded, or as the classifier sees them."""


@dataclass(frozen=True)
class InspectedPool:
    """A pool whose images were decoded once.

    Attributes:
        pool: The pool.
        digests: (N,): hash of each image; empty where it cannot be read.
        unreadable: Why images cannot be read, by position.
        remarks: What was converted or assumed, with the number of images.
        prepared: The prepared images (N, C, H, W), where splits are drawn by them.
    """

    pool: Pool
    digests: NDArray[np.bytes_]
    unreadable: Mapping[int, str]
    remarks: Mapping[str, int]
    prepared: Prepared | None

    def name_of(self, position: int) -> str:
        """What an image is called in messages."""
        names = self.pool.names
        return str(names[position]) if len(names) else f"image {position}"


def inspect_pool(pool: Pool, preprocessing: Preprocessing, drawing: Drawing, dataset: str) -> InspectedPool:
    """Decode all images of a pool.

    Args:
        pool: The pool.
        preprocessing: The classifier's preprocessing.
        drawing: What splits are drawn by.
        dataset: Name of the data set, for messages.

    Raises:
        UsageError: Nobody can say how many bits its images use.
    """
    n = len(pool.images)
    digests: NDArray[np.bytes_] = np.zeros(n, dtype="S32")
    if isinstance(pool.images, np.ndarray) and drawing == "prepared":
        with blaming(f"the data set {dataset}"):
            prepared = preprocessing.prepare(pool.images)
        digests[:] = [_sha256(image) for image in prepared]
        return InspectedPool(pool, digests, {}, {}, prepared)
    kept: Prepared | None = None
    if drawing == "prepared":
        kept = np.zeros((n, *preprocessing.shape), dtype=np.uint8)
    unreadable: dict[int, str] = {}
    remarks: Counter[str] = Counter()
    for position in range(n):
        try:
            decoded = _decoded(pool, position)
        except UnreadableImageError as error:
            unreadable[position] = str(error)
            continue
        remarks.update(decoded.remarks)
        if kept is None:
            digests[position] = source_digest(decoded.pixels)
        else:
            with blaming(f"the data set {dataset}"):
                kept[position] = preprocessing.prepare([decoded.pixels])[0]
            digests[position] = _sha256(kept[position])
    if remarks[NARROW] and remarks[NARROW] == remarks[WIDE]:
        raise UsageError(
            f"{remarks[WIDE]:,} images of {dataset} have 16 bits a channel and no value above 4095, as those of 12 "
            "bits have; say how many bits they use by depth = 12 (or 16) in [input]."
        )
    del remarks[NARROW]
    return InspectedPool(pool, digests, unreadable, dict(remarks), kept)


def source_digest(pixels: Image) -> bytes:
    """Hash of a decoded image: equal for a grey image and the same image with three equal channels."""
    is_grey = pixels.ndim == 3 and bool((pixels == pixels[..., :1]).all())
    plane = pixels[..., 0] if is_grey else pixels
    return _sha256(plane, f"{plane.shape}".encode())


def _sha256(pixels: NDArray[np.generic], before: bytes = b"") -> bytes:
    return hashlib.sha256(before + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32].encode()


def _decoded(pool: Pool, position: int) -> Decoded:
    """An image with what was remarked in decoding it.

    Raises:
        UnreadableImageError: It cannot be read.
    """
    try:
        image = pool.images[position]
    except (OodbenchError, *FROM_OUTSIDE):
        raise
    except Exception as cause:
        if is_exhausted(cause):
            raise
        raise UnreadableImageError(f"image {position} raised {described(cause)}.") from cause
    decoded = image if isinstance(image, Decoded) else Decoded(np.asarray(image))
    pixels = decoded.pixels
    if pixels.dtype != np.uint8 or not pixels.size or not (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        raise UnreadableImageError(
            f"image {position} has dtype {pixels.dtype} and shape {pixels.shape}; expected uint8 (H, W) or (H, W, 3)."
        )
    return decoded
