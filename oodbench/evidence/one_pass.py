"""A pass over samples that reads, prepares and measures them batch by batch.

Batches are spread over threads, each with a copy of the network and a single operator thread. That keeps all processors
busy although the operations of a small network cannot be split, images are decoded beside the computing, and the
results do not depend on how many threads there are. No more images are in memory than the batches under way.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from torch import nn

from oodbench.gradients.copying import copied
from oodbench.machine.progress import Track
from oodbench.machine.threads import operator_threads, processors

T = TypeVar("T")
Batch = TypeVar("Batch")

# Batches that are begun before their results are taken, for each thread.
AHEAD = 2


def over_batches(
    network: nn.Module,
    batches: Sequence[Batch],
    measure: Callable[[nn.Module, Batch], T],
    track: Track,
    description: str,
) -> Iterator[T]:
    """Apply ``measure`` to a copy of the network and each batch, in parallel on all processors; results in order.

    Args:
        network: The network.
        batches: What ``measure`` reads a batch by.
        measure: Reads a batch and measures it.
        track: Shows progress.
        description: Label of the progress.
    """
    workers = processors()
    replicas: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        replicas.put(copied(network))

    def of_batch(batch: Batch) -> T:
        replica = replicas.get()
        try:
            return measure(replica, batch)
        finally:
            replicas.put(replica)

    def results() -> Iterator[T]:
        left = iter(batches)
        with ThreadPoolExecutor(workers) as pool:
            under_way: deque[Future[T]] = deque()
            try:
                under_way.extend(pool.submit(of_batch, batch) for batch in islice(left, AHEAD * workers))
                while under_way:
                    result = under_way.popleft().result()
                    under_way.extend(pool.submit(of_batch, batch) for batch in islice(left, 1))
                    yield result
            finally:
                for future in under_way:
                    future.cancel()

    with operator_threads(1):
        yield from track(results(), len(batches), description)
