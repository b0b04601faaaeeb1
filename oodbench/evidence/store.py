"""Evidence by content of weights, images and engine, as safetensors under the cache folder."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from oodbench.atomic import write_atomically
from oodbench.classifiers.store import Classifier
from oodbench.datasets.splits import Split
from oodbench.evidence.collection import BATCH, collect
from oodbench.evidence.evidence import Evidence
from oodbench.progress import Track

# Raised whenever the gradient engine gives other numbers.
ENGINE_VERSION = 1


def evidence_of(classifier: Classifier, split: Split, cache: Path, track: Track) -> Evidence:
    """The evidence of a split, from the cache if it was collected before."""
    identity = {
        "weights": classifier.weights_sha256,
        "architecture": _architecture(classifier.network),
        "images": hashlib.sha256(split.digests.tobytes()).hexdigest(),
        "batch": BATCH,
        "engine": ENGINE_VERSION,
        "torch": version("torch"),
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    file = cache / "evidence" / f"{key}.safetensors"
    if file.exists():
        return _read(file)
    evidence = collect(classifier.network, split.images, track, f"evidence of {split.dataset} ({split.part})")
    write_atomically(file, lambda path: _write(evidence, path))
    return evidence


def _architecture(network: nn.Module) -> str:
    return f"{type(network).__module__} {network}"


def _write(evidence: Evidence, path: str) -> None:
    names = list(evidence.gradients)
    tensors = {
        "logits": evidence.logits.contiguous(),
        "features": evidence.features.contiguous(),
        "gradients": torch.stack([evidence.gradients[name] for name in names]),
        "confounding": evidence.confounding,
    }
    save_file(tensors, path, metadata={"gradients": json.dumps(names)})


def _read(file: Path) -> Evidence:
    with safe_open(file, framework="pt") as kept:
        names = json.loads(kept.metadata()["gradients"])
        columns = kept.get_tensor("gradients")
        return Evidence(
            kept.get_tensor("logits"),
            kept.get_tensor("features"),
            dict(zip(names, columns, strict=True)),
            kept.get_tensor("confounding"),
        )
