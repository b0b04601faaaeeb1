"""Evidence by content of weights, images and engine, as safetensors under the cache folder."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.cache.entries import kept_or_made
from oodbench.cache.tensor_files import Kept
from oodbench.classifiers.store import Classifier
from oodbench.datasets.splits import Split
from oodbench.evidence.batches import batch_of, halving
from oodbench.evidence.collection import collect
from oodbench.evidence.evidence import OF_ONE_PASS, Evidence
from oodbench.gradients.entries import path
from oodbench.progress import Track

# Raised whenever the gradient engine gives other numbers.
ENGINE_VERSION = 2


def engine() -> str:
    """What decides the last bits of gradient metrics: the engine's version and the way it reads entries."""
    return f"{ENGINE_VERSION}, {path()}"


def evidence_of(
    classifier: Classifier, split: Split, parts: Sequence[str], cache: Path, track: Track
) -> tuple[Evidence, int]:
    """The evidence of a split, from the cache if it was collected before, and how many images were taken at once.

    Args:
        classifier: The trained classifier.
        split: The samples.
        parts: Those of one pass, or logits and features alone.
        cache: The cache folder.
        track: Shows progress.
    """
    identity: dict[str, Any] = {
        "weights": classifier.weights_sha256,
        "architecture": _architecture(classifier.network),
        "images": hashlib.sha256(split.digests.tobytes()).hexdigest(),
        "engine": engine(),
        "torch": version("torch"),
    }
    if tuple(parts) != OF_ONE_PASS:
        identity["parts"] = list(parts)
    if classifier.normalisation is not None:
        identity["normalisation"] = classifier.normalisation
    if classifier.penultimate is not None:
        identity["penultimate"] = classifier.penultimate
    if classifier.code:
        identity["code"] = classifier.code

    what = f"evidence of {split.dataset} ({split.part})"

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
        return _to_tensors(collected)

    def in_batches_of(batch: int) -> Evidence:
        kept = kept_or_made(cache, "evidence", {**identity, "batch": batch}, partial(make, batch))
        return _from_tensors(*kept)

    return halving(batch_of(split.images), what, in_batches_of)


def _architecture(network: nn.Module) -> str:
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
