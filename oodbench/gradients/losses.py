"""Losses, given by their derivative by the logits."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from oodbench.errors import UsageError

Loss = Literal["predicted", "uniform", "confounding", "logsumexp", "exgrad"] | Callable[[Tensor], Tensor]
"""A loss. ``exgrad`` is the expectation of a metric over labels drawn from the softmax, by C backward passes."""


def logit_gradient(loss: Loss, logits: Tensor) -> Tensor:
    """Derivative of each sample's loss by its logits, in float64.

    float64 keeps the relative accuracy of confident samples, where 1 − p is far below the resolution of float32.

    Args:
        loss: ``predicted``: cross-entropy at the predicted label (Oberdiek, Rottmann, Gottschalk 2018, eq. 2).
            ``uniform``: cross-entropy with the uniform distribution (GradNorm; Huang, Geng, Li 2021, eq. 4).
            ``confounding``: cross-entropy with the all-ones label (after Lee, AlRegib 2020).
            ``logsumexp``: the log-sum-exp of the logits, minus the energy (Wu et al. 2024, arXiv 2310.17163).
            A callable maps logits (N, C) to losses (N,).
        logits: (N, C).

    Returns:
        float64 (N, C).

    Raises:
        UsageError: The loss is unknown, or does not return a number for each sample.
    """
    z = logits.detach().double()
    c = z.shape[1]
    if callable(loss):
        return _by_autograd(loss, z)
    p = z.softmax(dim=1)
    if loss == "predicted":
        return label_gradient(p, logits.argmax(dim=1))
    if loss == "uniform":
        return p - 1 / c
    if loss == "confounding":
        return c * p - 1
    if loss == "logsumexp":
        return p
    raise UsageError(
        f"the loss {loss!r} is unknown; expected 'predicted', 'uniform', 'confounding', 'logsumexp', 'exgrad' or a "
        "callable."
    )


def label_gradient(p: Tensor, labels: Tensor) -> Tensor:
    """Derivative of the cross-entropy at given labels by the logits, (N, C): p − 1 at the label and p elsewhere.

    Args:
        p: Softmax, float64 (N, C).
        labels: int64 (N,).
    """
    at = labels[:, None]
    d = p.scatter(1, at, 0.0)
    # p − 1 as the sum of the others: no cancellation where p is almost 1.
    return d.scatter(1, at, -d.sum(dim=1, keepdim=True))


def _by_autograd(loss: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = z.requires_grad_()
        losses = loss(leaf)
        if not isinstance(losses, Tensor) or losses.shape != z.shape[:1]:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise UsageError(f"the loss returned {shape} for logits {tuple(z.shape)}; expected ({len(z)},).")
        (d,) = torch.autograd.grad(losses.sum(), leaf)
    return d
