"""Measures what parts of the evidence cost for each sample."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor

from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.network_parts import NetworkParts
from oodbench.datasets.splits import Split
from oodbench.errors import OodbenchError
from oodbench.evidence.batches import halving
from oodbench.evidence.parts import EvidencePart, collected, parts_of_batch, pass_device
from oodbench.gradients.copying import copied
from oodbench.machine.device import Computing, synchronise

logger = logging.getLogger(__name__)

SAMPLES = 64
ENOUGH_S = 0.5
REPEATS = 5


def evidence_ms(classifier: Classifier, split: Split) -> Callable[[tuple[str, ...]], float | None]:
    """A function from parts of the evidence to the milliseconds that they take for each sample, on a single thread.

    Logits and features come with the forward pass. Each set of parts is measured when it is first asked for: the best
    of up to five passes over 64 samples, or fewer of both if they take long. None if the memory does not suffice.

    Args:
        classifier: The trained classifier.
        split: The samples.
    """

    @cache
    def milliseconds(names: frozenset[str]) -> float | None:
        parts = collected(names)
        device = pass_device(parts, classifier.computing)
        inputs = classifier.read_inputs(split, slice(SAMPLES)).to(device)
        network = NetworkParts(copied(classifier.network).to(device), inputs[:1], classifier.penultimate)
        try:
            seconds, _ = halving(
                len(inputs), "cost of evidence", lambda n: _seconds(network, inputs[:n], parts, classifier.computing)
            )
        except OodbenchError as error:
            logger.warning("what evidence costs is not known: %s", error)
            return None
        return 1e3 * seconds

    return lambda needs: milliseconds(frozenset({"logits", *needs}) - {"features"})


def _seconds(network: NetworkParts, inputs: Tensor, parts: Sequence[EvidencePart], computing: Computing) -> float:
    """Seconds for each sample."""
    few = inputs[:2]
    _pass(network, few, parts, computing)
    of_few = _pass(network, few, parts, computing) / len(few)
    batch = inputs[: max(len(few), int(ENOUGH_S / of_few))]
    seconds = [_pass(network, batch, parts, computing)]
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH_S:
        seconds.append(_pass(network, batch, parts, computing))
    return min(seconds) / len(batch)


def _pass(network: NetworkParts, batch: Tensor, parts: Sequence[EvidencePart], computing: Computing) -> float:
    synchronise(batch.device)
    start = time.perf_counter()
    parts_of_batch(network, batch, parts, computing)
    synchronise(batch.device)
    return time.perf_counter() - start
