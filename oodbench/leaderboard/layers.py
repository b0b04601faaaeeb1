"""Gradient metrics of single layers, which a board shows apart from its ranking of detectors."""

from collections.abc import Sequence

from oodbench.comparison.claims import METRICS
from oodbench.comparison.compared import compared_detectors, detector_labels
from oodbench.comparison.estimator import Estimator
from oodbench.leaderboard.board import LayerCell, Layers
from oodbench.records.record import Record
from oodbench.records.scored import ScoredRecord

WHOLE = "all"


def of_single_layer(record: Record) -> bool:
    """Whether the record is of a gradient metric of one layer."""
    return _metric(record) is not None and record.detector.params.get("layer") is not None


def layers(cells: Sequence[ScoredRecord], datasets: Sequence[str]) -> Layers | None:
    """AUROC of every gradient metric of every layer on every unknown set, and of all weights together.

    Returns:
        None if no record is of a single layer.
    """
    chosen = [
        scored
        for scored in cells
        if scored.record.protocol == "unknown-unknowns" and _metric(scored.record) is not None
    ]
    if not any(of_single_layer(scored.record) for scored in chosen):
        return None
    labels = detector_labels(scored.record for scored in chosen)
    estimator = Estimator(chosen)
    seeds = sorted({scored.record.seed for scored in chosen if of_single_layer(scored.record)})
    by_place: dict[tuple[str, str], list[ScoredRecord]] = {}
    for scored in chosen:
        place = _metric(scored.record) or "", str(scored.record.detector.params.get("layer") or WHOLE)
        by_place.setdefault(place, []).append(scored)
    layer_cells = []
    for (metric, layer), of_place in sorted(by_place.items()):
        (compared, *_) = compared_detectors(of_place, labels, by_exposure=False)
        for dataset in datasets:
            estimate = estimator.estimate(compared, "auroc", [dataset], seeds)
            interval = estimate.interval if estimate is not None else None
            layer_cells.append(
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
        cells=tuple(layer_cells),
        seeds=tuple(seeds),
    )


def _metric(record: Record) -> str | None:
    name = record.detector.name.removeprefix("grad-")
    return name if record.detector.name.startswith("grad-") and name in METRICS else None
