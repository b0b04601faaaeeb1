"""Baselines that every detector has to beat."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.detectors.plugin import detector


@detector("random", needs="logits")
def random(logits: Tensor, *, seed: int = 0) -> Tensor:
    """Uniform random numbers: a hash of the logits and the seed, so that order and batch do not matter."""
    bits = np.ascontiguousarray(logits.float().numpy()).view(np.uint32).astype(np.uint64)
    state = np.full(len(bits), np.uint64(seed % 2**63), dtype=np.uint64)
    for position in range(bits.shape[1]):
        state = _mix(state ^ bits[:, position])
    return torch.from_numpy((_mix(state) >> np.uint64(11)).astype(np.float64) / 2**53)


@detector("constant", needs="logits")
def constant(logits: Tensor) -> Tensor:
    """The same score for every sample."""
    return logits.new_zeros(len(logits))


@detector("feature-norm", needs="features")
def feature_norm(features: Tensor, *, norm: Literal["l1", "l2", "max"] = "l1") -> Tensor:
    """Minus a norm of the penultimate features: all that last-layer gradients add to the softmax (Igoe 2022)."""
    sizes = features.double().abs()
    if norm == "max":
        return -sizes.amax(dim=1)
    return -(sizes.sum(dim=1) if norm == "l1" else sizes.square().sum(dim=1).sqrt())


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64 (Steele, Lea, Flood 2014), modulo 2⁶⁴."""
    with np.errstate(over="ignore"):
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
