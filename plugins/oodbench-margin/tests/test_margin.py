"""The contract of oodbench, and the margin by sorting in numpy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from oodbench_margin import margin

import oodbench
from oodbench.testing import parametrize_with_checks

LOGITS = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))


@parametrize_with_checks([margin])
def test_conformance(plugin: object, check: Callable[[object], None]) -> None:
    """One test for each thing that the contract asks for."""
    check(plugin)


@pytest.mark.parametrize("rank", range(2, 8))
def test_it_is_the_difference_of_two_sorted_logits(rank: int) -> None:
    """Exactly, as both are one float32 subtraction."""
    falling = -np.sort(-LOGITS.numpy(), axis=1)
    assert np.array_equal(margin(LOGITS, rank=rank).numpy(), falling[:, rank - 1] - falling[:, 0])


def test_the_next_logit_is_the_default() -> None:
    """And equal logits have no margin."""
    assert torch.equal(margin(LOGITS), margin(LOGITS, rank=2))
    assert margin(torch.tensor([[3.0, 3.0, -1.0]])).item() == 0


@pytest.mark.parametrize("rank", [-1, 1, 8])
def test_a_rank_that_there_is_not_is_told(rank: int) -> None:
    """In a sentence that ends up in the record of the cell."""
    with pytest.raises(oodbench.OodbenchError, match=f"the rank is {rank}; expected 2 to 7"):
        margin(LOGITS, rank=rank)
