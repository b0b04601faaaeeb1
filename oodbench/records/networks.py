"""Whether a record is of the same network: told by what the network computes."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from oodbench.errors import UsageError
from oodbench.records.record import Record

# Differences between processors are below this share of the largest number of a probe.
TOLERANCE = 1e-4


def refuse_other_network(records: Iterable[Record], probe: Mapping[str, Sequence[float]]) -> None:
    """Refuse finished records of a network that has the same name, code and weights, and computes something else.

    Args:
        records: Records of the same cells.
        probe: What the classifier at hand computes, as records have it.

    Raises:
        UsageError: A record is of another network.
    """
    for record in records:
        if not same_outputs(record.classifier.probe, probe):
            raise UsageError(
                f"the record {record.cell_id} is of another network than the classifier {record.classifier.name} is "
                "now, although name, code and weights are the same: what else it reads has changed; give another "
                "folder by --out."
            )


def refuse_trusted(records: Iterable[Record]) -> None:
    """Refuse finished records of a classifier that was trusted, for a user who does not.

    Raises:
        UsageError: A record is of such a classifier.
    """
    for record in records:
        if record.classifier.trusted:
            raise UsageError(f"{' '.join(record.classifier.trusted)} To go on all the same, use --trust-model.")


def same_outputs(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> bool:
    """Whether two probes agree within float32 accuracy on the samples that both have; old records have none."""
    return first == second or all(_agree(first[name], second[name]) for name in first.keys() & second.keys())


def _agree(first: Sequence[float], second: Sequence[float]) -> bool:
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape:
        return False
    scale = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return bool((np.abs(a - b) <= TOLERANCE * scale).all())
