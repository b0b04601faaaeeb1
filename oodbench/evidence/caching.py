"""Cache of evidence, by the content of weights and images and by the version of the gradient engine."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.cache.entries import Cache, kept_of_same_network
from oodbench.cache.tensor_files import Kept
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.probe import Probe, without_probe
from oodbench.datasets.splits import Split
from oodbench.evidence.batches import batch_of, halving
from oodbench.evidence.evidence import OF_ONE_PASS, Evidence
from oodbench.evidence.one_pass import collect
from oodbench.gradients.entries import path
from oodbench.machine.progress import Track

# To be raised whenever the gradient engine gives other numbers.
ENGINE_VERSION = 2


def engine() -> str:
    """Identifies the gradient engine to the last bit: its version and the implementation of its sums."""
    return f"{ENGINE_VERSION}, {path()}"


def evidence_of(
    classifier: Classifier, split: Split, parts: Sequence[str], cache: Cache, track: Track, outputs: Probe
) -> tuple[Evidence, int]:
    """The evidence of a split, from the cache or else newly collected, and the batch size it was collected with.

    Args:
        classifier: The trained classifier.
        split: The samples.
        parts: Parts of the evidence: ``OF_ONE_PASS``, or logits and features alone.
        cache: Where evidence is kept.
        track: Shows progress.
        outputs: What the classifier computes on the fixed pictures and on samples of the split.
    """
    identity: dict[str, Any] = {
        "weights": classifier.weights_sha256,
        "architecture": architecture(classifier.network),
        "images": hashlib.sha256(split.digests.tobytes()).hexdigest(),
        "preprocessing": classifier.preprocessing.identity,
        "engine": engine(),
        "torch": version("torch"),
    }
    if tuple(parts) != OF_ONE_PASS:
        identity["parts"] = list(parts)
    if classifier.penultimate is not None:
        identity["penultimate"] = classifier.penultimate
    if classifier.code:
        identity["code"] = classifier.code

    what = f"evidence of {split.dataset} ({split.use})"

    def make(batch: int) -> Kept:
        collected = collect(
            classifier.network,
            split.images,
            track,
            what,
            parts=parts,
            to_input=classifier.to_input,
            penultimate=classifier.penultimate,
            batch=batch,
        )
        tensors, metadata = _to_tensors(collected)
        return tensors | outputs.tensors(), metadata

    def in_batches_of(batch: int) -> Evidence:
        kept, _ = kept_of_same_network(
            cache, "evidence", {**identity, "batch": batch}, partial(make, batch), outputs.is_of
        )
        return _from_tensors(*without_probe(kept))

    return halving(batch_of(split.images), what, in_batches_of)


def network_number(classifier: Classifier, test: Split, cache: Cache, outputs: Probe) -> int:
    """Which of the networks that share name, code and weights a classifier is, told by what it computes.

    Args:
        classifier: The classifier.
        test: The known test split.
        cache: Where outputs of networks are kept.
        outputs: What the classifier computes on the fixed pictures and on samples of the test split.

    Returns:
        The number, 0 for the first network of its kind.
    """
    identity = {
        "weights": classifier.weights_sha256,
        "architecture": architecture(classifier.network),
        "code": classifier.code,
        "penultimate": classifier.penultimate,
        "preprocessing": classifier.preprocessing.identity,
        "images": test.sha256,
    }
    _, number = kept_of_same_network(cache, "networks", identity, lambda: (outputs.tensors(), {}), outputs.is_of)
    return number


def architecture(network: nn.Module) -> str:
    """The network's class and layers, as they print."""
    return f"{type(network).__module__} {network}"


def _to_tensors(evidence: Evidence) -> Kept:
    tensors = {name: part for name, part in evidence.parts.items() if name != "gradients"}
    if "gradients" not in evidence.parts:
        return tensors, {}
    tensors["gradients"] = torch.stack(list(evidence.gradients.values()))
    return tensors, {"gradients": json.dumps(list(evidence.gradients))}


def _from_tensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Evidence:
    parts: dict[str, Any] = dict(tensors)
    if "gradients" in parts:
        parts["gradients"] = dict(zip(json.loads(metadata["gradients"]), tensors["gradients"], strict=True))
    return Evidence(**parts)
