"""Results of a cell: all metrics with their intervals, from the scores on its test sets.

A run computes results with the same function as the verification of a record, which computes them again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import expit

from oodbench.evaluation import bootstrap, risk
from oodbench.evaluation.influence import auroc_influence
from oodbench.evaluation.interval import Interval, mean_of_shares, on_logit_scale
from oodbench.evaluation.metrics import flagged, metrics
from oodbench.suites.schema import Group


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(_Model):
    """A metric and its 95 % confidence interval; None where a class is missing."""

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None


class Result(_Model):
    """Metrics on the known test split together with an unknown set, or alone.

    ``n_known`` counts the known samples, ``n_wrong`` those of them with a wrong prediction.
    """

    dataset: str
    role: Literal["known", "unknown"]
    group: Group
    n_known: int
    n_wrong: int
    n_unknown: int
    metrics: dict[str, Metric]


Memo = dict[bytes, dict[str, Metric]]
"""Metrics by the hash of scores and target. It saves work, since exposure does not change most detectors' scores."""

CALIBRATED = "ece"
AREAS = ("aurc", "augrc")
"""Metrics on known data only, since with unknown data the share of errors is the suite's choice."""


@dataclass(frozen=True)
class Samples:
    """The scores of a detector on a test set.

    Attributes:
        scores: (n,), finite.
        wrong: bool (n,): whether the prediction is wrong; always so in unknown sets.
    """

    scores: NDArray[np.floating]
    wrong: NDArray[np.bool_]


def results(
    known: Sequence[tuple[str, Group, Samples]],
    unknown: Sequence[tuple[str, Group, Samples]],
    threshold: float | None,
    memo: Memo,
    *,
    log_odds: bool = False,
    resample: bool = True,
) -> list[Result]:
    """A result for each unknown set, against all known samples together; or for each known set alone, without any.

    Where known samples under a shift are among the known ones, the joint task has its metrics, too.

    Args:
        known: Name, group and samples of the known test split, and of known sets under a shift.
        unknown: Names, groups and samples of the unknown sets.
        threshold: Threshold from the fitting split, for ``meta_accuracy``; None if there is none.
        memo: Metrics that were computed before; new metrics are added.
        log_odds: Whether scores are the log-odds of being wrong, so that their calibration is measured.
        resample: Whether to compute the bootstrap intervals, which take nearly all of the time; without, those metrics
            have no interval.
    """
    if not unknown:
        return [
            _of_known(name, group, samples, threshold, memo, log_odds=log_odds, resample=resample)
            for name, group, samples in known
        ]
    base = joined([samples for _, _, samples in known])
    n_known, n_wrong = len(base.wrong), int(base.wrong.sum())
    by_dataset = []
    for dataset, group, samples in unknown:
        scores = np.concatenate([base.scores, samples.scores])
        novel = np.arange(len(scores)) >= n_known
        wrong = np.concatenate([base.wrong, samples.wrong])
        by_dataset.append(
            Result(
                dataset=dataset,
                role="unknown",
                group=group,
                n_known=n_known,
                n_wrong=n_wrong,
                n_unknown=len(samples.scores),
                metrics=_plain(_metrics(scores, novel, threshold, memo, resample=resample))
                | _prefixed(_metrics(scores, wrong, threshold, memo, resample=resample))
                | (_joint(scores, wrong, novel, resample=resample) if len(known) > 1 else {}),
            )
        )
    return by_dataset


def joined(sets: Sequence[Samples]) -> Samples:
    """Several test sets as one, in their order."""
    return Samples(np.concatenate([one.scores for one in sets]), np.concatenate([one.wrong for one in sets]))


def _of_known(
    name: str,
    group: Group,
    known: Samples,
    threshold: float | None,
    memo: Memo,
    *,
    log_odds: bool,
    resample: bool,
) -> Result:
    of_failure = _metrics(known.scores, known.wrong, threshold, memo, resample=resample, stratified=False)
    return Result(
        dataset=name,
        role="known",
        group=group,
        n_known=len(known.wrong),
        n_wrong=int(known.wrong.sum()),
        n_unknown=0,
        metrics=_prefixed(of_failure) | _risks(known, memo, log_odds=log_odds, resample=resample),
    )


def _joint(
    scores: NDArray[np.floating], wrong: NDArray[np.bool_], novel: NDArray[np.bool_], *, resample: bool
) -> dict[str, Metric]:
    """The joint task of selective classification with unknowns: its area at cost 1, and the two parts of it."""
    values = risk.joint_areas(scores, wrong, novel)
    if not resample:
        return {name: Metric(value=value) for name, value in zip(risk.JOINT, values, strict=True)}
    return {
        name: _metric(interval) for name, interval in bootstrap.joint_intervals(scores, wrong, novel, values).items()
    }


def _plain(values: Mapping[str, Metric]) -> dict[str, Metric]:
    return {name: metric for name, metric in values.items() if name not in AREAS}


def _prefixed(values: Mapping[str, Metric]) -> dict[str, Metric]:
    return {f"failure_{name}": metric for name, metric in _plain(values).items()}


def _metrics(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    threshold: float | None,
    memo: Memo,
    *,
    resample: bool,
    stratified: bool = True,
) -> dict[str, Metric]:
    """All metrics for a target, with their intervals; None where a class is missing."""
    key = _key(scores, positive)
    if key not in memo:
        memo[key] = _without_threshold(scores, positive, resample=resample, stratified=stratified)
    missing = threshold is None or positive.all() or not positive.any()
    accuracy = Metric(value=None) if missing else _meta_accuracy(scores, positive, float(threshold or 0.0))
    return memo[key] | {"meta_accuracy": accuracy}


def _without_threshold(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], *, resample: bool, stratified: bool
) -> dict[str, Metric]:
    values = {name: value for name, value in metrics(scores, positive, None).items() if name != "meta_accuracy"}
    present = {name: value for name, value in values.items() if value is not None}
    if len(present) < len(values):
        return dict.fromkeys((*values, *AREAS), Metric(value=None))
    sizes = int(positive.sum()), int((~positive).sum())
    curve = on_logit_scale(present["auroc"], auroc_influence(scores, positive).variance, min(sizes))
    area = {"aurc": risk.aurc(scores, positive), "augrc": risk.augrc(scores, positive)}
    if not resample:
        return {name: Metric(value=value) for name, value in {**present, **area}.items()} | {"auroc": _metric(curve)}
    draws = bootstrap.replicates(scores, positive, stratified=stratified)
    resampled = bootstrap.intervals({**present, **area}, draws, *sizes)
    return {name: _metric(interval) for name, interval in {"auroc": curve, **resampled}.items()}


def _meta_accuracy(scores: NDArray[np.floating], positive: NDArray[np.bool_], threshold: float) -> Metric:
    decided = flagged(scores, threshold)
    hits, rejections = float(decided[positive].mean()), float((~decided[~positive]).mean())
    return _metric(mean_of_shares(hits, int(positive.sum()), rejections, int((~positive).sum())))


def _risks(known: Samples, memo: Memo, *, log_odds: bool, resample: bool) -> dict[str, Metric]:
    """Areas under the risk–coverage curves, and the calibration error of a detector that states log-odds."""
    if known.wrong.all() or not known.wrong.any():
        return dict.fromkeys(AREAS, Metric(value=None))
    of_target = memo[_key(known.scores, known.wrong)]
    risks = {name: of_target[name] for name in AREAS}
    if log_odds:
        probability = expit(known.scores)
        risks[CALIBRATED] = (
            _metric(bootstrap.calibration_interval(probability, known.wrong))
            if resample
            else Metric(value=risk.expected_calibration_error(probability, known.wrong, bins=bootstrap.BINS))
        )
    return risks


def _metric(interval: Interval) -> Metric:
    return Metric(value=interval.value, ci_low=interval.low, ci_high=interval.high)


def _key(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(scores).tobytes() + np.packbits(positive).tobytes()).digest()
