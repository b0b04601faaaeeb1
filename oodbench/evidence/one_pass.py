"""A pass over samples that reads, prepares and measures them batch by batch.

On the processor, batches are spread over threads, each with a copy of the network and a single operator thread. That
keeps all processors busy although the operations of a small network cannot be split, images are decoded beside the
computing, and the results do not depend on how many threads there are. On another device, threads read ahead while it
computes one batch after the other. No more images are in memory than the batches under way.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor

from oodbench.journal.passes import told
from oodbench.machine.progress import Track
from oodbench.machine.threads import in_order, operator_threads, processors

T = TypeVar("T")
Batch = TypeVar("Batch")
Replica = TypeVar("Replica")

# Batches that are begun before their results are taken, for each thread.
AHEAD = 2


def over_batches(
    replica: Callable[[], Replica],
    batches: Sequence[Batch],
    read: Callable[[Batch], Tensor],
    measure: Callable[[Replica, Tensor, Batch], T],
    device: torch.device,
    images: Sequence[int],
    track: Track,
    description: str,
) -> Iterator[T]:
    """Read and measure each batch; results in order.

    Args:
        replica: Makes a copy of the network, which a single thread uses at a time.
        batches: What is read and measured.
        read: Reads a batch as inputs of the network, on the processor.
        measure: Measures the inputs of a batch, which are on the device.
        device: Where the copies of the network are.
        images: Number of images of each batch.
        track: Shows progress.
        description: Label of the progress.
    """
    workers = processors()
    with ThreadPoolExecutor(workers) as pool, operator_threads(1):
        if device.type == "cpu":
            replicas: SimpleQueue[Replica] = SimpleQueue()
            for _ in range(workers):
                replicas.put(replica())

            def of_batch(batch: Batch) -> T:
                copy = replicas.get()
                try:
                    return measure(copy, read(batch), batch)
                finally:
                    replicas.put(copy)

            results = in_order(pool, of_batch, batches, AHEAD * workers)
        else:
            network = replica()

            def read_for_device(batch: Batch) -> tuple[Tensor, Batch]:
                inputs = read(batch)
                return inputs.pin_memory() if device.type == "cuda" else inputs, batch

            results = (
                measure(network, inputs.to(device, non_blocking=True), batch)
                for inputs, batch in in_order(pool, read_for_device, batches, AHEAD * workers)
            )
        yield from told(results, images, track, description)
