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

from oodbench.classifiers.pieces import Pieces
from oodbench.classifiers.training import to_input
from oodbench.evidence.batches import batch_of
from oodbench.evidence.evidence import OF_ONE_PASS, Evidence
from oodbench.gradients import forward
from oodbench.progress import Track
from oodbench.threads import operator_threads

T = TypeVar("T")


def collect(
    network: nn.Module,
    images: NDArray[np.uint8],
    track: Track,
    description: str,
    *,
    parts: Sequence[str] = OF_ONE_PASS,
    to_input: Callable[[Tensor], Tensor] = to_input,
    penultimate: str | None = None,
    batch: int | None = None,
) -> Evidence:
    """Collect the evidence of all images.

    Args:
        network: The trained classifier.
        images: uint8 (N, C, H, W), N at least 1.
        track: Shows progress.
        description: What progress is called.
        parts: All of one pass, or logits and features alone, which need no backward pass.
        to_input: Images to what the network is given.
        penultimate: Name of the Linear layer whose input are the features; None finds it.
        batch: How many images are taken at once, if not as many as usual.
    """
    measure = _whole if "gradients" in parts else _light
    batches = torch.split(torch.from_numpy(images), batch or batch_of(images))

    def of_batch(one: nn.Module, some: Tensor) -> Evidence:
        return measure(one, to_input(some), penultimate)

    return Evidence.concatenate(over_batches(network, batches, of_batch, track, description))


def feature_maps(
    backbone: nn.Module,
    images: NDArray[np.uint8],
    to_input: Callable[[Tensor], Tensor],
    track: Track,
    description: str,
    *,
    batch: int,
) -> Tensor:
    """The feature maps of all images, float32 (N, K, H, W)."""

    def measure(one: nn.Module, some: Tensor) -> Tensor:
        with torch.no_grad():
            maps: Tensor = one(to_input(some)).float()
        return maps

    batches = torch.split(torch.from_numpy(images), batch)
    return torch.cat(over_batches(backbone, batches, measure, track, description))


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


def _light(network: nn.Module, inputs: Tensor, penultimate: str | None) -> Evidence:
    with torch.no_grad():
        features, logits = Pieces(network, inputs[:1], penultimate).encoder.features_and_logits(inputs)
    return Evidence(logits.float(), features.float())


def _whole(network: nn.Module, inputs: Tensor, penultimate: str | None) -> Evidence:
    with forward(network, inputs, last_layer=penultimate) as run:
        return Evidence(
            run.logits.float(),
            run.features.float(),
            run.metrics("predicted"),
            run.squared_norm("confounding"),
        )
