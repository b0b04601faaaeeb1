"""How many threads torch spreads one operation over: fixed where it would change the bits of a result."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def operator_threads(n: int) -> Iterator[None]:
    """Run torch's operations on n threads each, and restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run the operations of torch and of the linear algebra below numpy on one thread each."""
    with operator_threads(1), threadpool_limits(1):
        yield
