"""Evidence by content of weights, images and engine, as safetensors under the cache folder."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from oodbench.classifiers.store import Classifier
from oodbench.datasets.splits import Split
from oodbench.evidence.collection import BATCH, collect
from oodbench.evidence.evidence import Evidence
from oodbench.gradients.entries import path
from oodbench.progress import Track
from oodbench.tensor_files import read_tensors, write_tensors

# Raised whenever the gradient engine gives other numbers.
ENGINE_VERSION = 2


def engine() -> str:
    """What decides the last bits of gradient metrics: the engine's version and the way it reads entries."""
    return f"{ENGINE_VERSION}, {path()}"


def evidence_of(classifier: Classifier, split: Split, cache: Path, track: Track) -> Evidence:
    """The evidence of a split, from the cache if it was collected before."""
    identity = {
        "weights": classifier.weights_sha256,
        "architecture": _architecture(classifier.network),
        "images": hashlib.sha256(split.digests.tobytes()).hexdigest(),
        "batch": BATCH,
        "engine": engine(),
        "torch": version("torch"),
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    file = cache / "evidence" / f"{key}.safetensors"
    kept = read_tensors(file)
    if kept is not None:
        return _from_tensors(*kept)
    evidence = collect(classifier.network, split.images, track, f"evidence of {split.dataset} ({split.part})")
    write_tensors(file, *_to_tensors(evidence))
    return evidence


def _architecture(network: nn.Module) -> str:
    return f"{type(network).__module__} {network}"


def _to_tensors(evidence: Evidence) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {
        "logits": evidence.logits,
        "features": evidence.features,
        "gradients": torch.stack(list(evidence.gradients.values())),
        "confounding": evidence.confounding,
    }
    return tensors, {"gradients": json.dumps(list(evidence.gradients))}


def _from_tensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Evidence:
    names = json.loads(metadata["gradients"])
    gradients = dict(zip(names, tensors["gradients"], strict=True))
    return Evidence(tensors["logits"], tensors["features"], gradients, tensors["confounding"])
