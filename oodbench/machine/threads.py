"""Processors, the threads that use them, and the number of an operation's, on which its rounding depends."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def in_order(
    pool: ThreadPoolExecutor, do: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """What ``do`` makes of each item, in order; never more than ``ahead`` of them are begun or wait to be taken."""
    left = iter(items)
    under_way: deque[Future[Result]] = deque()
    try:
        under_way.extend(pool.submit(do, item) for item in islice(left, ahead))
        while under_way:
            result = under_way.popleft().result()
            under_way.extend(pool.submit(do, item) for item in islice(left, 1))
            yield result
    finally:
        for future in under_way:
            future.cancel()
