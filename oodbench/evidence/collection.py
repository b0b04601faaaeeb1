"""The one pass over a split that collects all evidence.

Batches are spread over threads, each with a copy of the network and one operator thread: that keeps all processors
busy where a small network's operations cannot be split, and the numbers do not depend on how many there are.
"""

import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.classifiers.training import to_input
from oodbench.evidence.evidence import Evidence
from oodbench.gradients import forward
from oodbench.progress import Track
from oodbench.threads import operator_threads

T = TypeVar("T")

# Fixed: the shape of a batch decides how matrix products are blocked, and so the last bits.
BATCH = 256


def collect(network: nn.Module, images: NDArray[np.uint8], track: Track, description: str) -> Evidence:
    """Collect the evidence of all images.

    Args:
        network: The trained classifier.
        images: uint8 (N, C, H, W), N at least 1.
        track: Shows progress.
        description: What progress is called.
    """
    batches = torch.split(torch.from_numpy(images), BATCH)
    return Evidence.concatenate(over_batches(network, batches, _of_batch, track, description))


def over_batches(
    network: nn.Module,
    batches: Sequence[Tensor],
    measure: Callable[[nn.Module, Tensor], T],
    track: Track,
    description: str,
) -> list[T]:
    """Measure a network on several batches at the same time, as many as there are processors."""
    workers = processors()
    networks: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        networks.put(copy.deepcopy(network))

    def of_batch(batch: Tensor) -> T:
        one = networks.get()
        try:
            return measure(one, batch)
        finally:
            networks.put(one)

    with operator_threads(1), ThreadPoolExecutor(workers) as pool:
        return list(track(pool.map(of_batch, batches), len(batches), description))


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _of_batch(network: nn.Module, images: Tensor) -> Evidence:
    with forward(network, to_input(images)) as run:
        return Evidence(
            run.logits.float(),
            run.features.float(),
            run.metrics("predicted"),
            run.squared_norm("confounding"),
        )
