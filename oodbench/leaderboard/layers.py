"""Which layer knows: the gradient metrics of single layers, which stand apart from the detectors of a board."""

from collections.abc import Sequence

from oodbench.comparison.claims import METRICS
from oodbench.comparison.entrants import Estimator, detector_labels, entrants
from oodbench.leaderboard.board import LayerCell, Layers
from oodbench.records.record import Record
from oodbench.records.verification import Measured

WHOLE = "all"


def of_single_layer(record: Record) -> bool:
    """Whether the record is of a gradient metric of one layer."""
    return _metric(record) is not None and record.detector.params.get("layer") is not None


def layers(cells: Sequence[Measured], datasets: Sequence[str]) -> Layers | None:
    """AUROC of every gradient metric of every layer on every unknown set, and of all weights together.

    Returns:
        None where no record is of a single layer.
    """
    chosen = [one for one in cells if one.record.protocol == "unknown-unknowns" and _metric(one.record) is not None]
    if not any(of_single_layer(one.record) for one in chosen):
        return None
    labels = detector_labels(one.record for one in chosen)
    estimator = Estimator(chosen)
    seeds = sorted({one.record.seed for one in chosen if of_single_layer(one.record)})
    by_place: dict[tuple[str, str], list[Measured]] = {}
    for one in chosen:
        place = _metric(one.record) or "", str(one.record.detector.params.get("layer") or WHOLE)
        by_place.setdefault(place, []).append(one)
    found = []
    for (metric, layer), of_place in sorted(by_place.items()):
        (entrant, *_) = entrants(of_place, labels, by_exposure=False)
        for dataset in datasets:
            figure = estimator.estimate(entrant, "auroc", [dataset], seeds)
            interval = figure.interval if figure is not None else None
            found.append(
                LayerCell(
                    metric=metric,
                    layer=layer,
                    dataset=dataset,
                    value=interval.value if interval else None,
                    low=interval.low if interval else None,
                    high=interval.high if interval else None,
                )
            )
    return Layers(
        metrics=tuple(name for name in METRICS if any(metric == name for metric, _ in by_place)),
        layers=(*sorted({layer for _, layer in by_place} - {WHOLE}), WHOLE),
        datasets=tuple(datasets),
        cells=tuple(found),
        seeds=tuple(seeds),
    )


def _metric(record: Record) -> str | None:
    name = record.detector.name.removeprefix("grad-")
    return name if record.detector.name.startswith("grad-") and name in METRICS else None
