"""Batch size: fixed for images of a shape, and halved where memory does not suffice."""

import logging
from collections.abc import Callable, Sequence
from math import prod
from typing import TypeVar

from oodbench.errors import MORE_MEMORY, OodbenchError, is_exhausted
from oodbench.machine.device import Computing

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Fixed, since the shape of a batch decides how matrix products are blocked, and so their rounding.
BATCH = 256
# Largest number of values in a batch of images, so that activations for large images fit in memory: of a processor,
# where each has a batch of its own, and of a GPU, which needs more to do at once.
BATCH_NUMBERS = 256 * 3 * 64 * 64
GPU_BATCH_NUMBERS = 4 * BATCH_NUMBERS


def batch_of(shape: Sequence[int], computing: Computing) -> int:
    """The batch size: that which is asked for, else one for prepared images of a shape, (C, H, W)."""
    if computing.batch is not None:
        return computing.batch
    numbers = BATCH_NUMBERS if computing.device.type == "cpu" else GPU_BATCH_NUMBERS
    return max(1, min(BATCH, numbers // prod(shape)))


def halving(batch: int, what: str, take: Callable[[int], T]) -> tuple[T, int]:
    """Compute something in batches, and halve the batch size while memory does not suffice.

    Args:
        batch: The batch size to begin with.
        what: What is computed, for messages.
        take: Computes it with a batch size.

    Returns:
        The result, and the batch size that it was computed with.

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
        # Outside of the handler, since its exception keeps the memory of the failed batches alive.
        batch //= 2
        logger.warning("out of memory: %d images at a time are tried for the %s.", batch, what)
