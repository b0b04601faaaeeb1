"""The scores of a detector on all splits of a trial: fitted once, each split scored once.

A meta classifier gets the scores of its inputs from their own sheets, so whoever is in the run anyway costs nothing
again.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.classifiers.pieces import Pieces
from oodbench.datasets.splits import Split
from oodbench.detectors.selection import Chosen, input_detectors
from oodbench.errors import CellSkippedError, OodbenchError, Phase
from oodbench.evidence import Evidence
from oodbench.isolation import Failure, TimeoutExceededError, attempt, failed, isolated, time_limit
from oodbench.phases import Meter, PhaseCost
from oodbench.scoring import Fitted, fit, refuse_changed_network, score, state_of
from oodbench.trial import Trial

# A supervised input scores each of these parts of the fitting split by a fit on the others.
FOLDS = 5

Key = tuple[str, str]


def key_of(split: Split) -> Key:
    """Data set and part of a split."""
    return split.dataset, split.part


@dataclass(frozen=True)
class Scored:
    """Scores (N,), and the seconds they took."""

    scores: NDArray[np.floating]
    seconds: float


@dataclass(frozen=True)
class ScoreSheet:
    """A fitted detector's scores.

    Attributes:
        fitted: The detector.
        needs: The parts of the evidence that it and its inputs work on.
        scores: By data set and part.
        phases: What it took to get them.
    """

    fitted: Fitted
    needs: tuple[str, ...]
    scores: Mapping[Key, Scored | Failure]
    phases: Mapping[Phase, PhaseCost] = field(default_factory=dict)

    def of(self, split: Split) -> Scored | Failure:
        """The scores of a split."""
        return self.scores[key_of(split)]


@dataclass(frozen=True)
class Inputs:
    """What a meta classifier works on: scores by split and detector, what they need, and the seconds they took."""

    scores: Mapping[Key, Mapping[str, Tensor]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    fit_s: float = 0.0
    score_s: Mapping[Key, float] = field(default_factory=dict)


def score_sheet(trial: Trial, chosen: Chosen, exposed: tuple[str, ...]) -> ScoreSheet | Failure:
    """Fit a detector and score the known meta split, all exposed samples and all test sets.

    Whatever the plugin does, it does to its own sheet.

    Args:
        trial: Where.
        chosen: The detector.
        exposed: Unknown sets whose exposed samples it is fitted on, if it declares to be.
    """
    seen = exposed if chosen.plugin.fitted_on == "exposed" else ()
    key = chosen.key, seen
    if key not in trial.sheets:
        trial.sheets[key] = _computed(trial, chosen, seen)
    found: ScoreSheet | Failure = trial.sheets[key]
    return found


@dataclass(frozen=True)
class Prepared:
    """What a detector is fitted on and scores, ready to be given to it.

    Attributes:
        lesson: Evidence of the samples it is fitted on.
        labels: Their labels, int64 (N,).
        views: Evidence of each split that it scores.
        pieces: The copy of the classifier that it gets pieces of, if it needs any.
        inputs: What the scores of its inputs took, for a meta classifier.
    """

    lesson: Evidence
    labels: Tensor
    views: Mapping[Key, Evidence]
    pieces: Pieces | None
    inputs: Inputs


def prepare(trial: Trial, chosen: Chosen, exposed: tuple[str, ...]) -> Prepared:
    """Gather what a detector declares to need, and nothing else.

    Raises:
        CellSkippedError: The classifier has no such part, or an input of a meta classifier is skipped.
        OodbenchError: An input fails.
    """
    plugin = chosen.plugin
    inputs = _inputs(trial, chosen, exposed) if "scores" in plugin.needs else Inputs()
    pieces = trial.observatory.pieces(plugin.needs)
    parts = pieces.parts(plugin.needs) if pieces else {}

    def view(split: Split) -> Evidence:
        seen = trial.observatory.evidence(split, plugin.needs).parts
        return Evidence(**seen, **parts, scores=inputs.scores.get(key_of(split)))

    views = {key_of(split): view(split) for split in trial.scored()}
    learning = [trial.train] if plugin.fitted_on == "training" else trial.fitting(exposed)
    return Prepared(
        Evidence.concatenate([views.get(key_of(split)) or view(split) for split in learning]),
        torch.cat([torch.from_numpy(split.labels) for split in learning]),
        views,
        pieces,
        inputs,
    )


def _computed(trial: Trial, chosen: Chosen, exposed: tuple[str, ...]) -> ScoreSheet | Failure:
    meter = Meter()
    return replace(_measured(trial, chosen, exposed, meter), phases=meter.costs)


def _measured(trial: Trial, chosen: Chosen, exposed: tuple[str, ...], meter: Meter) -> ScoreSheet | Failure:
    with meter.during("evidence"):
        prepared = attempt("evidence", lambda: prepare(trial, chosen, exposed))
    if isinstance(prepared, Failure):
        return prepared
    before = state_of(prepared.pieces.network) if prepared.pieces else {}
    sheet = _fitted_and_scored(trial, chosen, prepared, meter)
    if isinstance(sheet, Failure) or not prepared.pieces:
        return sheet
    changed = attempt("score", partial(refuse_changed_network, before, prepared.pieces.network))
    return changed or sheet


def _fitted_and_scored(trial: Trial, chosen: Chosen, prepared: Prepared, meter: Meter) -> ScoreSheet | Failure:
    plugin, inputs = chosen.plugin, prepared.inputs
    learn = partial(fit, plugin, chosen.parameters(trial.seed), prepared.lesson, prepared.labels)
    phase: Phase = "fit"
    try:
        with isolated(trial.seed), time_limit(trial.timeout):
            with meter.during("fit"):
                fitted = attempt("fit", learn)
            if isinstance(fitted, Failure):
                return fitted
            phase = "score"
            with meter.during("score"):
                scores = {
                    key: attempt("score", partial(_timed_score, fitted, one)) for key, one in prepared.views.items()
                }
    except TimeoutExceededError as error:
        return failed(phase, error)
    if inputs.needs:
        fitted = replace(fitted, seconds=fitted.seconds + inputs.fit_s)
        scores = {key: _with_seconds(one, inputs.score_s[key]) for key, one in scores.items()}
    return ScoreSheet(fitted, plugin.needs + inputs.needs, scores)


def _timed_score(fitted: Fitted, evidence: Evidence) -> Scored:
    start = time.perf_counter()
    scores = score(fitted.detector, evidence)
    return Scored(scores, time.perf_counter() - start)


def _with_seconds(scored: Scored | Failure, more: float) -> Scored | Failure:
    return scored if isinstance(scored, Failure) else replace(scored, seconds=scored.seconds + more)


def _inputs(trial: Trial, chosen: Chosen, exposed: tuple[str, ...]) -> Inputs:
    """The scores of a meta classifier's inputs on all splits.

    On what it is fitted on itself, a supervised input is scored out of fold, or the meta classifier would trust it for
    what it knows by heart (Wolpert 1992, stacked generalisation).

    Raises:
        CellSkippedError: An input is skipped.
        OodbenchError: An input fails.
    """
    scores: dict[Key, dict[str, Tensor]] = {key_of(split): {} for split in trial.scored()}
    seconds = dict.fromkeys(scores, 0.0)
    needs: list[str] = []
    fit_s = 0.0
    for one in input_detectors(chosen.name, chosen.parameters(trial.seed)["inputs"]):
        sheet = score_sheet(trial, one, exposed)
        if isinstance(sheet, Failure):
            raise _refused(one, sheet)
        needs.extend(need for need in sheet.needs if need not in needs)
        fit_s += sheet.fitted.seconds
        for key, found in sheet.scores.items():
            if isinstance(found, Failure):
                raise _refused(one, found)
            scores[key][one.label] = torch.from_numpy(found.scores)
            seconds[key] += found.seconds
        if one.plugin.fitted_on == "exposed":
            start = time.perf_counter()
            for key, out_of_fold in _out_of_fold(trial, one, exposed).items():
                scores[key][one.label] = out_of_fold
            fit_s += time.perf_counter() - start
    return Inputs(scores, tuple(needs), fit_s, seconds)


def _refused(one: Chosen, failure: Failure) -> Exception:
    sentence = f"its input {one.label} {'is skipped' if failure.status == 'skipped' else 'failed'}: {failure.error}"
    return CellSkippedError(sentence) if failure.status == "skipped" else OodbenchError(sentence)


def _out_of_fold(trial: Trial, one: Chosen, exposed: tuple[str, ...]) -> dict[Key, Tensor]:
    """Scores of the samples that a supervised detector is fitted on, each by a fit that has not seen it."""
    learning = trial.fitting(exposed)
    evidence = Evidence.concatenate([trial.observatory.evidence(split, one.plugin.needs) for split in learning])
    labels = torch.cat([torch.from_numpy(split.labels) for split in learning])
    fold = torch.arange(len(labels)) % FOLDS
    scores = torch.empty(len(labels), dtype=torch.float64)
    for i in range(FOLDS):
        with isolated(trial.seed), time_limit(trial.timeout):
            fitted = fit(one.plugin, one.parameters(trial.seed), evidence[fold != i], labels[fold != i])
            scores[fold == i] = torch.from_numpy(score(fitted.detector, evidence[fold == i])).double()
    parts = torch.split(scores, [len(split.labels) for split in learning])
    return {key_of(split): part for split, part in zip(learning, parts, strict=True)}
