"""The permutation importance of each input of meta classifiers, from records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from oodbench.comparison.compared import detector_identity, detector_labels
from oodbench.records.record import Record


@dataclass(frozen=True)
class Importance:
    """How far the AUROC of a meta classifier falls on held-out samples when an input is shuffled.

    Attributes:
        detector: The meta classifier.
        exposed: Unknown sets it saw other samples of.
        inputs: Mean over the seeds, and the standard deviation over them (None with one seed), by input.
    """

    detector: str
    exposed: tuple[str, ...]
    inputs: Mapping[str, tuple[float, float | None]]


def importances(records: Iterable[Record]) -> list[Importance]:
    """The importances that records report, the most important input first."""
    reporting = [record for record in records if "importance" in record.detector.learnt]
    labels = detector_labels(reporting)
    # All protocols share the fit of an exposure.
    fits: dict[tuple[str, tuple[str, ...]], dict[int, Mapping[str, float]]] = {}
    for record in reporting:
        key = labels[detector_identity(record)], tuple(record.exposed)
        fits.setdefault(key, {})[record.seed] = record.detector.learnt["importance"]
    return [Importance(*key, _over_seeds(list(by_seed.values()))) for key, by_seed in fits.items()]


def _over_seeds(fits: list[Mapping[str, float]]) -> dict[str, tuple[float, float | None]]:
    by_input = {name: [fit[name] for fit in fits if name in fit] for name in fits[0]}
    spread = {name: (mean(falls), stdev(falls) if len(falls) > 1 else None) for name, falls in by_input.items()}
    return dict(sorted(spread.items(), key=lambda item: -item[1][0]))
