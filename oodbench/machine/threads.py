"""Processors, and the number of threads of an operation, on which the rounding of its results depends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def operator_threads(n: int) -> Iterator[None]:
    """Run operations of torch on n threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run operations of torch and of NumPy's linear algebra on a single thread inside the context."""
    with operator_threads(1), threadpool_limits(1):
        yield


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
