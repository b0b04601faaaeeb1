"""The detector ``margin`` for oodbench."""

from typing import TYPE_CHECKING

import oodbench

if TYPE_CHECKING:
    from torch import Tensor


@oodbench.detector("margin", needs="logits")
def margin(logits: "Tensor", *, rank: int = 2) -> "Tensor":
    """Minus the distance of the largest logit from the second largest one, or from that of another rank.

    Args:
        logits: float32 (N, C).
        rank: Which logit the largest one is compared with, from 2 (the next one) to C (the least one).

    Returns:
        (N,), from −∞ to 0, where the two are the same.
    """
    classes = logits.shape[1]
    if not 2 <= rank <= classes:
        raise oodbench.OodbenchError(f"the rank is {rank}; expected 2 to {classes}, the number of classes")
    top = logits.topk(rank, dim=1).values
    return top[:, -1] - top[:, 0]
