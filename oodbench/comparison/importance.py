"""What meta classifiers rely on: the permutation importance of each input, from records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from oodbench.comparison.entrants import detector_identity, detector_labels
from oodbench.records.record import Record


@dataclass(frozen=True)
class Importance:
    """How much the AUROC of a meta classifier falls, on samples it was not fitted on, when one input is shuffled.

    Attributes:
        detector: The meta classifier.
        exposed: Unknown sets it saw other samples of.
        inputs: Mean over the seeds, and the standard deviation over them (None with one seed), by input.
    """

    detector: str
    exposed: tuple[str, ...]
    inputs: Mapping[str, tuple[float, float | None]]


def importances(records: Iterable[Record]) -> list[Importance]:
    """Those that records report, largest input first."""
    reporting = [record for record in records if "importance" in record.detector.learnt]
    labels = detector_labels(reporting)
    # All protocols of an exposure have the same fit.
    fits: dict[tuple[str, tuple[str, ...]], dict[int, Mapping[str, float]]] = {}
    for record in reporting:
        who = labels[detector_identity(record)], tuple(record.exposed)
        fits.setdefault(who, {})[record.seed] = record.detector.learnt["importance"]
    return [Importance(*who, _over_seeds(list(by_seed.values()))) for who, by_seed in fits.items()]


def _over_seeds(found: list[Mapping[str, float]]) -> dict[str, tuple[float, float | None]]:
    every = {name: [one[name] for one in found if name in one] for name in found[0]}
    spread = {name: (mean(falls), stdev(falls) if len(falls) > 1 else None) for name, falls in every.items()}
    return dict(sorted(spread.items(), key=lambda item: -item[1][0]))
