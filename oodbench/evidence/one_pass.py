"""The forward and backward pass over a split that collects its evidence.

Batches are spread over threads, each with a copy of the network and a single operator thread. That keeps all processors
busy although the operations of a small network cannot be split, and the results do not depend on how many there are.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from oodbench.classifiers.network_parts import NetworkParts
from oodbench.classifiers.training import to_input
from oodbench.datasets.preparation import Prepared
from oodbench.evidence.batches import batch_of
from oodbench.evidence.evidence import OF_ONE_PASS, Evidence
from oodbench.gradients import forward
from oodbench.gradients.copying import copied
from oodbench.machine.progress import Track
from oodbench.machine.threads import operator_threads, processors

T = TypeVar("T")


def collect(
    network: nn.Module,
    images: Prepared,
    track: Track,
    description: str,
    *,
    parts: Sequence[str] = OF_ONE_PASS,
    to_input: Callable[[Tensor], Tensor] = to_input,
    penultimate: str | None = None,
    batch: int | None = None,
) -> Evidence:
    """Collect the evidence of all images; without features, if the classifier has no Linear layer after any.

    Args:
        network: The trained classifier.
        images: prepared (N, C, H, W), N at least 1.
        track: Shows progress.
        description: Label of the progress.
        parts: ``OF_ONE_PASS``, or logits and features alone, which need no backward pass.
        to_input: Converts images to the network's input.
        penultimate: Name of the Linear layer whose input is the penultimate features; None finds the layer.
        batch: Batch size; None takes the usual size.
    """
    measure = _full_evidence if "gradients" in parts else _forward_evidence
    batches = torch.split(torch.from_numpy(images), batch or batch_of(images))

    def of_batch(replica: nn.Module, chunk: Tensor) -> Evidence:
        return measure(replica, to_input(chunk), penultimate)

    return Evidence.concatenate(over_batches(network, batches, of_batch, track, description))


def feature_maps(
    backbone: nn.Module,
    images: Prepared,
    to_input: Callable[[Tensor], Tensor],
    track: Track,
    description: str,
    *,
    batch: int,
) -> Tensor:
    """The feature maps of all images, float32 (N, K, H, W).

    Args:
        backbone: Maps inputs to feature maps.
        images: prepared (N, C, H, W), N at least 1.
        to_input: Converts images to the network's input.
        track: Shows progress.
        description: Label of the progress.
        batch: Batch size.
    """

    def measure(replica: nn.Module, chunk: Tensor) -> Tensor:
        with torch.no_grad():
            maps: Tensor = replica(to_input(chunk)).float()
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
    """Apply ``measure`` to a copy of the network and each batch, in parallel on all processors; results in order."""
    workers = processors()
    replicas: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        replicas.put(copied(network))

    def of_batch(batch: Tensor) -> T:
        replica = replicas.get()
        try:
            return measure(replica, batch)
        finally:
            replicas.put(replica)

    with operator_threads(1), ThreadPoolExecutor(workers) as pool:
        return list(track(pool.map(of_batch, batches), len(batches), description))


def _forward_evidence(network: nn.Module, inputs: Tensor, penultimate: str | None) -> Evidence:
    with torch.no_grad():
        parts = NetworkParts(network, inputs[:1], penultimate)
        if not parts.has_features:
            return Evidence(network(inputs).float())
        features, logits = parts.encoder.features_and_logits(inputs)
    return Evidence(logits.float(), features.float())


def _full_evidence(network: nn.Module, inputs: Tensor, penultimate: str | None) -> Evidence:
    with forward(network, inputs, last_layer=penultimate) as run:
        return Evidence(
            run.logits.float(),
            run.features.float() if run.has_features else None,
            run.metrics("predicted"),
            run.squared_norm("confounding"),
        )
