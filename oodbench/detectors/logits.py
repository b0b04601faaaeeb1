"""Detectors that need the logits only."""

import math

from torch import Tensor

from oodbench.detectors.plugin import detector


@detector("entropy", needs="logits")
def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax, divided by log C: from 0 to 1."""
    log_p = logits.double().log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1) / math.log(logits.shape[1])


@detector("max-softmax", needs="logits")
def max_softmax(logits: Tensor) -> Tensor:
    """1 minus the largest softmax probability (Hendrycks, Gimpel 2017, arXiv 1610.02136).

    Summed over the other classes, which keeps apart what is rounded to 1 otherwise.
    """
    p = logits.double().softmax(dim=1)
    return p.sort(dim=1).values[:, :-1].sum(dim=1)


@detector("max-logit", needs="logits")
def max_logit(logits: Tensor) -> Tensor:
    """Minus the largest logit (Hendrycks et al. 2022, arXiv 1911.11132)."""
    return -logits.amax(dim=1)


@detector("energy", needs="logits")
def energy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Free energy −T log Σ exp(z/T) (Liu et al. 2020, arXiv 2010.03759, eq. 4)."""
    return -temperature * (logits.double() / temperature).logsumexp(dim=1)
