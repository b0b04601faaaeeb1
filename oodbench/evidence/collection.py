"""The one pass over a split that collects all evidence.

Batches are spread over threads, each with a copy of the network and one operator thread, so that the numbers do not
depend on how many processors there are.
"""

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.classifiers.training import to_input
from oodbench.evidence.evidence import Evidence
from oodbench.gradients.engine import forward, metrics_by_layer, squared_norm
from oodbench.progress import Track
from oodbench.threads import operator_threads

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
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    networks: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        networks.put(copy.deepcopy(network))

    def of_batch(batch: Tensor) -> Evidence:
        one = networks.get()
        try:
            return _of_batch(one, to_input(batch))
        finally:
            networks.put(one)

    batches = torch.split(torch.from_numpy(images), BATCH)
    with operator_threads(1), ThreadPoolExecutor(workers) as pool:
        return Evidence.concatenate(list(track(pool.map(of_batch, batches), len(batches), description)))


def _of_batch(network: nn.Module, inputs: Tensor) -> Evidence:
    with forward(network, inputs) as run:
        return Evidence(
            run.logits.detach().float(),
            run.last_linear().input.float(),
            metrics_by_layer(run, "predicted"),
            squared_norm(run, "confounding"),
        )
