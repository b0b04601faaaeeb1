"""Fitting a detector and scoring with it, and the checks of what it returns and leaves behind."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.detectors.plugin import Detector, DetectorPlugin
from oodbench.errors import OodbenchError
from oodbench.evidence import Evidence
from oodbench.machine.device import CPU, synchronise
from oodbench.registry.plain_values import plain

ACCEPTED = (torch.float32, torch.float64)
# Bytes of tensors that are compared at once.
COMPARED = 64 * 2**20
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class FittedDetector:
    """A detector that was fitted.

    Attributes:
        detector: The detector.
        learnt: What it reports to have learnt, as plain values.
        log_odds: Whether its scores are the log-odds of being wrong or unknown.
        seconds: Seconds of fitting.
    """

    detector: Detector
    learnt: dict[str, Any]
    log_odds: bool
    seconds: float


def fit(
    plugin: DetectorPlugin,
    parameters: Mapping[str, Any],
    evidence: Evidence,
    labels: Tensor,
    device: torch.device = CPU,
) -> FittedDetector:
    """Fit a new detector.

    Args:
        plugin: The detector.
        parameters: All its parameters.
        evidence: The evidence that it needs, of the samples that it is fitted on.
        labels: int64 (N,), −1 for unknown samples.
        device: Where the detector gets them.

    Raises:
        CellSkippedError: The detector cannot be fitted on these samples.
        OodbenchError: The detector changed its evidence or labels in place.
    """
    detector = plugin.build(parameters)
    own_evidence, own_labels = evidence.copy(device), labels.clone().to(device)
    synchronise(device)
    start = time.perf_counter()
    detector.fit(own_evidence, own_labels)
    synchronise(device)
    seconds = time.perf_counter() - start
    refuse_changes(evidence, own_evidence)
    if not torch.equal(labels, own_labels.to(CPU)):
        raise OodbenchError("it changed the labels in place; expected it to work on a copy")
    return FittedDetector(detector, _learnt(detector), bool(getattr(detector, "log_odds", False)), seconds)


def _learnt(detector: Detector) -> dict[str, Any]:
    """What a detector reports to have learnt, as plain values for its record.

    Raises:
        OodbenchError: That is no mapping of texts to plain values.
    """
    reported = getattr(detector, "learnt", {})
    if not isinstance(reported, Mapping):
        raise OodbenchError(f"what it reports as `learnt` is a {type(reported).__name__}; expected a dict")
    learnt: dict[str, Any] = plain(reported, "what it reports as `learnt`")
    return learnt


def score(detector: Detector, evidence: Evidence, device: torch.device = CPU) -> NDArray[np.floating]:
    """The scores of all samples, float32 or float64 (N,), finite.

    Args:
        detector: A fitted detector.
        evidence: The evidence that it needs.
        device: Where the detector gets it.

    Raises:
        OodbenchError: The detector returned something else, or changed its evidence in place.
    """
    own_evidence = evidence.copy(device)
    with torch.no_grad():
        scores = detector.score(own_evidence)
    refuse_changes(evidence, own_evidence)
    if not isinstance(scores, Tensor):
        raise OodbenchError(f"its scores are a {type(scores).__name__}; expected a torch.Tensor")
    if scores.dtype not in ACCEPTED:
        raise OodbenchError(f"its scores have dtype {scores.dtype}; expected float32 or float64")
    if scores.shape != (len(evidence),):
        raise OodbenchError(f"its scores have shape {tuple(scores.shape)}; expected ({len(evidence)},), one a sample")
    # Memory of our own: a detector may return the same buffer again and again.
    array: NDArray[np.floating] = scores.detach().cpu().numpy().copy()
    strange = int((~np.isfinite(array)).sum())
    if strange:
        raise OodbenchError(f"{strange} of its {len(array)} scores are NaN or infinite; expected finite numbers")
    return array


def refuse_changes(evidence: Evidence, used: Evidence) -> None:
    """Compare the copy of the evidence that a detector used with the original.

    Raises:
        OodbenchError: A part was changed in place.
    """
    changed = _changed(_tensors(evidence), _tensors(used))
    if changed:
        raise OodbenchError(f"it changed {changed} of the evidence in place; expected it to work on a copy")


def _tensors(evidence: Evidence) -> dict[str, Tensor]:
    """All tensors of the evidence by name; those of a mapping by name and key."""
    tensors: dict[str, Tensor] = {}
    for name, part in evidence.parts.items():
        if isinstance(part, Mapping):
            tensors |= {f"{name}[{key!r}]": tensor for key, tensor in part.items()}
        elif isinstance(part, Tensor):
            tensors[name] = part
    return tensors


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Weights, modes and hooks of a network, for a later comparison."""
    modules = list(network.modules())
    tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return {
        **tensors,
        "training mode": torch.tensor([module.training for module in modules]),
        "requires_grad": torch.tensor([parameter.requires_grad for parameter in network.parameters()]),
        "forward": torch.tensor(["forward" in vars(module) for module in modules]),
        "hooks": torch.tensor([[len(getattr(module, hooks, ())) for hooks in HOOKS] for module in modules]),
    }


def refuse_changed_network(before: Mapping[str, Tensor], network: nn.Module) -> None:
    """Compare a classifier that a detector was given with its state before.

    Raises:
        OodbenchError: Its weights, modes or hooks were changed.
    """
    changed = _changed(before, state_of(network))
    if changed:
        raise OodbenchError(f"it changed {changed} of the classifier; expected it to leave the classifier as it was")


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that was changed, removed or added; None if there is none."""
    different = (name for name in before if name not in after or not _same(before[name], after[name]))
    return next(different, None) or next((name for name in after if name not in before), None)


def _same(before: Tensor, after: Tensor) -> bool:
    """Whether two tensors are equal to the bit, so that NaN equals itself, for some samples at a time."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    if before.dim() == 0:
        return bool(np.array_equal(_bits(before), _bits(after)))
    step = max(1, COMPARED // max(1, before[:1].nbytes))
    pieces = zip(torch.split(before, step), torch.split(after, step), strict=True)
    return all(np.array_equal(_bits(one), _bits(other)) for one, other in pieces)


def _bits(tensor: Tensor) -> NDArray[np.uint8]:
    return tensor.detach().to(CPU).contiguous().reshape(-1).numpy().view(np.uint8)
