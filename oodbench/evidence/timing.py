"""Measures what parts of the evidence cost for each sample."""

import logging
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from oodbench.classifiers.classifier import Classifier
from oodbench.datasets.splits import Split
from oodbench.errors import OodbenchError
from oodbench.evidence.batches import halving
from oodbench.gradients import forward

logger = logging.getLogger(__name__)

SAMPLES = 64
ENOUGH_S = 0.5
REPEATS = 5


def evidence_ms(classifier: Classifier, split: Split) -> Callable[[tuple[str, ...]], float | None]:
    """A function from parts of the evidence to the milliseconds that they take for each sample, on a single thread.

    Logits and features come with the forward pass. Each set of parts is measured when it is first asked for: the best
    of up to five passes over 64 samples, fewer if they take long. None if the memory does not suffice.

    Args:
        classifier: The trained classifier.
        split: The samples.
    """

    @cache
    def milliseconds(backward: tuple[str, ...]) -> float | None:
        inputs = classifier.read_inputs(split, slice(SAMPLES))
        try:
            seconds, batch = halving(
                len(inputs),
                "cost of evidence",
                lambda batch: min(_passes(classifier.network, inputs[:batch], backward)),
            )
        except OodbenchError as error:
            logger.warning("what evidence costs is not known: %s", error)
            return None
        return 1e3 * seconds / batch

    def of_needs(needs: tuple[str, ...]) -> float | None:
        return milliseconds(tuple(part for part in ("gradients", "confounding") if part in needs))

    return of_needs


def _passes(network: nn.Module, batch: torch.Tensor, backward: tuple[str, ...]) -> list[float]:
    _pass(network, batch[:2], backward)
    seconds = [_pass(network, batch, backward)]
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH_S:
        seconds.append(_pass(network, batch, backward))
    return seconds


def _pass(network: nn.Module, batch: torch.Tensor, backward: tuple[str, ...]) -> float:
    start = time.perf_counter()
    if not backward:
        with torch.no_grad():
            network(batch)
    else:
        with forward(network, batch) as run:
            if "gradients" in backward:
                run.metrics("predicted")
            if "confounding" in backward:
                run.squared_norm("confounding")
    return time.perf_counter() - start
