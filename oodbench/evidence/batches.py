"""How many images are taken at once: always as many, or fewer where memory does not suffice."""

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from oodbench.errors import MORE_MEMORY, OodbenchError
from oodbench.memory import is_exhausted

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Fixed: the shape of a batch decides how matrix products are blocked, and so the last bits.
BATCH = 256
# Numbers of a batch's images at most, so that what the network makes of large images stays in memory.
BATCH_NUMBERS = 256 * 3 * 64 * 64


def batch_of(images: NDArray[np.uint8]) -> int:
    """How many of the images (N, C, H, W) are taken at once."""
    return max(1, min(BATCH, BATCH_NUMBERS // int(images[0].size)))


def halving(batch: int, what: str, take: Callable[[int], T]) -> tuple[T, int]:
    """What is taken in batches, which are halved until memory suffices.

    Args:
        batch: The size to begin with.
        what: What is taken, for messages.
        take: Takes it, in batches of a size.

    Returns:
        It, and the size of its batches.

    Raises:
        OodbenchError: The memory does not suffice for a single image.
    """
    while True:
        try:
            return take(batch), batch
        except Exception as cause:
            if not is_exhausted(cause):
                raise
            if batch == 1:
                raise OodbenchError(
                    f"the memory does not suffice for the {what} of a single image; {MORE_MEMORY}"
                ) from None
        # Outside of the handler, whose exception holds on to what the failed batches have taken.
        batch //= 2
        logger.warning("out of memory: %d images at a time are tried for the %s.", batch, what)
