"""The scores of detectors on all splits of a trial; each detector is fitted once and scores each split once."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.classifiers.network_parts import NetworkParts
from oodbench.datasets.splits import Split
from oodbench.detectors.selection import SelectedDetector
from oodbench.errors import CellSkippedError, MissingPrerequisiteError, OodbenchError, Phase
from oodbench.evidence import Evidence
from oodbench.evidence.collector import goes_through_network
from oodbench.journal.passes import told
from oodbench.machine.phases import Meter, PhaseCost
from oodbench.machine.progress import Track, silent
from oodbench.registry.isolation import Failure, TimeoutExceededError, attempt, failed, isolated, time_limit
from oodbench.runs.fitting import FittedDetector, fit, refuse_changed_network, score, state_of
from oodbench.runs.trial import Trial
from oodbench.runs.tuning import Candidate, choose

logger = logging.getLogger(__name__)

# Number of folds: a supervised input scores each fold of its fitting samples by a fit on the others.
FOLDS = 5

Key = tuple[str, str]
"""Data set and use of a split."""


Fits = dict[str, FittedDetector]
"""Fits that the candidates of one detector share, by the parameters that ``fit`` uses."""


def key_of(split: Split) -> Key:
    """The key of a split, unique within a trial."""
    return split.dataset, split.use


@dataclass(frozen=True)
class SplitScores:
    """The scores of a split, float (N,), and the seconds that they took."""

    scores: NDArray[np.floating]
    seconds: float


@dataclass(frozen=True)
class ScoreSheet:
    """A fitted detector's scores.

    Attributes:
        fitted: The detector.
        needs: The parts of the evidence that it and its inputs work on.
        scores: Its scores by split, or why there are none.
        phases: The cost of each phase.
    """

    fitted: FittedDetector
    needs: tuple[str, ...]
    scores: Mapping[Key, SplitScores | Failure]
    phases: Mapping[Phase, PhaseCost] = field(default_factory=dict)

    def of(self, split: Split) -> SplitScores | Failure:
        """The scores of a split."""
        return self.scores[key_of(split)]


@dataclass(frozen=True)
class InputScores:
    """The scores of other detectors that a meta classifier works on.

    Attributes:
        scores: By split, the scores (N,) of the other detectors by name.
        needs: The parts of the evidence that the other detectors need.
        fit_s: Seconds of their fitting.
        score_s: Seconds of their scoring, by split.
    """

    scores: Mapping[Key, Mapping[str, Tensor]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    fit_s: float = 0.0
    score_s: Mapping[Key, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectorEvidence:
    """All inputs of a detector.

    Attributes:
        fit_evidence: Evidence of the samples it is fitted on.
        labels: Their labels, int64 (N,).
        score_evidence: Evidence of each split that it scores.
        network_parts: The copy of the classifier that it gets parts of, if it needs any.
        device: Where it gets them.
        inputs: The scores of other detectors, for a meta classifier.
    """

    fit_evidence: Evidence
    labels: Tensor
    score_evidence: Mapping[Key, Evidence]
    network_parts: NetworkParts | None
    device: torch.device
    inputs: InputScores


class DetectorScorer:
    """Fits and scores detectors on a trial, and remembers the scores of each.

    A meta classifier gets the scores of its inputs from their own sheets, so that an input that is in the run anyway is
    not fitted again.
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._sheets: dict[tuple[str, tuple[str, ...]], ScoreSheet | Failure] = {}

    def sheet(self, detector: SelectedDetector, exposed: tuple[str, ...]) -> ScoreSheet | Failure:
        """Fit a detector and score the known meta split, all exposed samples and all test sets.

        Failures of the plugin are caught and stay within its own sheet.

        Args:
            detector: The detector.
            exposed: Unknown sets whose exposed samples it is fitted on, if it is declared ``fitted_on="exposed"``.
        """
        seen = exposed if detector.plugin.fitted_on == "exposed" else ()
        key = detector.key, seen
        if key not in self._sheets:
            meter = Meter()
            found = (
                self._tuned(detector, seen, meter)
                if detector.candidates
                else self._fitted_and_scored(detector, seen, meter, self.trial.scored())
            )
            self._sheets[key] = replace(found, phases=meter.costs)
        return self._sheets[key]

    def _tuned(self, detector: SelectedDetector, exposed: tuple[str, ...], meter: Meter) -> ScoreSheet | Failure:
        """The sheet of the candidate that does best on the validation sets, with what the record says of the choice."""
        with meter.during("fit"):
            start = time.perf_counter()
            found = attempt("fit", partial(self._chosen, detector, exposed))
            seconds = time.perf_counter() - start
        if isinstance(found, Failure):
            return found
        chosen, learnt = found
        sheet = self.sheet(chosen, exposed)
        if isinstance(sheet, Failure):
            return sheet
        for phase, cost in sheet.phases.items():
            meter.add(phase, cost)
        own = {"of_the_chosen": sheet.fitted.learnt} if sheet.fitted.learnt else {}
        fitted = replace(sheet.fitted, learnt=learnt | own, seconds=sheet.fitted.seconds + seconds)
        return replace(sheet, fitted=fitted)

    def _chosen(self, detector: SelectedDetector, exposed: tuple[str, ...]) -> tuple[SelectedDetector, dict[str, Any]]:
        """Fit all candidates, score the validation sets, and choose.

        Raises:
            CellSkippedError: There are no validation sets, or no candidate can be fitted.
            OodbenchError: All candidates fail.
        """
        meta, *validation = self.trial.choosing()
        tried: list[Candidate] = []
        failures: dict[str, Failure] = {}
        fits: Fits = {}
        for candidate in detector.candidates:
            sheet = self._fitted_and_scored(candidate, exposed, Meter(), [meta, *validation], fits)
            of_splits = [sheet] if isinstance(sheet, Failure) else [sheet.of(split) for split in (meta, *validation)]
            failed_ones = [of_split for of_split in of_splits if isinstance(of_split, Failure)]
            if failed_ones:
                failures[candidate.label] = failed_ones[0]
                continue
            known, *unknown = [of_split.scores for of_split in of_splits if isinstance(of_split, SplitScores)]
            names = [split.dataset for split in validation]
            tried.append(Candidate(candidate, known, dict(zip(names, unknown, strict=True))))
        if failures and tried:
            label, first = next(iter(failures.items()))
            logger.warning(
                "%s, seed %d: %d of %d candidates cannot be tried; %s: %s",
                detector.label, self.trial.seed, len(failures), len(detector.candidates), label, first.error,
            )  # fmt: skip
        return choose(tried, failures, detector.parameters(self.trial.seed)["objective"])

    def evidence(
        self, detector: SelectedDetector, exposed: tuple[str, ...], splits: Sequence[Split] | None = None
    ) -> DetectorEvidence:
        """Collect the evidence that a detector declares to need, and nothing else.

        Args:
            detector: The detector.
            exposed: Unknown sets whose exposed samples it is fitted on, if it is.
            splits: What it scores; None for all that detectors score.

        Raises:
            CellSkippedError: The classifier has no such part, or an input of a meta classifier is skipped.
            OodbenchError: An input fails.
        """
        trial, needs = self.trial, detector.plugin.needs
        inputs = self._inputs(detector, exposed) if "scores" in needs else InputScores()
        network_parts = trial.collector.network_parts(needs)
        shared = network_parts.parts(needs) if network_parts else {}

        def of_split(split: Split) -> Evidence:
            collected = trial.evidence(split, needs).parts
            return Evidence(**collected, **shared, scores=inputs.scores.get(key_of(split)))

        score_evidence = {key_of(split): of_split(split) for split in splits or trial.scored()}
        fitting = [_training_split(trial)] if detector.plugin.fitted_on == "training" else trial.fitting(exposed)
        return DetectorEvidence(
            Evidence.concatenate([score_evidence.get(key_of(split)) or of_split(split) for split in fitting]),
            torch.cat([torch.from_numpy(split.labels) for split in fitting]),
            score_evidence,
            network_parts,
            trial.collector.device_for(needs),
            inputs,
        )

    def _fitted_and_scored(
        self,
        detector: SelectedDetector,
        exposed: tuple[str, ...],
        meter: Meter,
        splits: Sequence[Split],
        fits: Fits | None = None,
    ) -> ScoreSheet | Failure:
        with meter.during("evidence"):
            detector_evidence = attempt("evidence", lambda: self.evidence(detector, exposed, splits))
        if isinstance(detector_evidence, Failure):
            return detector_evidence
        network = detector_evidence.network_parts.network if detector_evidence.network_parts else None
        before = state_of(network) if network else {}
        learn = partial(self._fit, detector, detector_evidence)
        if fits is not None and detector.plugin.only_in_scoring:
            learn = partial(self._shared_fit, detector, detector_evidence, fits)
        sheet = self._isolated(detector, detector_evidence, meter, learn)
        if isinstance(sheet, Failure) or network is None:
            return sheet
        return attempt("score", partial(refuse_changed_network, before, network)) or sheet

    def _fit(self, detector: SelectedDetector, detector_evidence: DetectorEvidence) -> FittedDetector:
        return fit(
            detector.plugin,
            detector.parameters(self.trial.seed),
            detector_evidence.fit_evidence,
            detector_evidence.labels,
            detector_evidence.device,
        )

    def _shared_fit(
        self, detector: SelectedDetector, detector_evidence: DetectorEvidence, fits: Fits
    ) -> FittedDetector:
        """A fit that candidates share whose parameters differ in what only scoring uses."""
        parameters, scoring = detector.parameters(self.trial.seed), detector.plugin.only_in_scoring
        others = {name: value for name, value in parameters.items() if name not in scoring}
        key = repr(others)
        if key not in fits:
            fits[key] = self._fit(detector, detector_evidence)
        shared = fits[key]
        own = copy(shared.detector)
        for name in scoring:
            if not hasattr(own, name):
                raise OodbenchError(
                    f"its decorator says that {name!r} is used in scoring only, and it has no such attribute; expected "
                    f"the parameter in an attribute {name!r}, or without only_in_scoring"
                )
            setattr(own, name, parameters[name])
        return replace(shared, detector=own)

    def _isolated(
        self,
        detector: SelectedDetector,
        detector_evidence: DetectorEvidence,
        meter: Meter,
        learn: Callable[[], FittedDetector],
    ) -> ScoreSheet | Failure:
        trial, plugin, inputs = self.trial, detector.plugin, detector_evidence.inputs
        device = detector_evidence.device
        batch = trial.collector.usual_batch if goes_through_network(plugin.needs) else None
        track = silent if batch is None else trial.collector.track

        def scored(fitted: FittedDetector, key: Key, evidence: Evidence) -> SplitScores:
            what = f"scores of {detector.label} on {key[0]} ({key[1]})"
            return _timed_score(fitted, evidence, batch or len(evidence), device, track, what)

        phase: Phase = "fit"
        try:
            with isolated(trial.seed, device), time_limit(trial.time_limit):
                with meter.during("fit"):
                    fitted = attempt("fit", learn)
                if isinstance(fitted, Failure):
                    return fitted
                phase = "score"
                with meter.during("score"):
                    scores = {
                        key: attempt("score", partial(scored, fitted, key, evidence))
                        for key, evidence in detector_evidence.score_evidence.items()
                    }
        except TimeoutExceededError as error:
            return failed(phase, error)
        if inputs.needs:
            fitted = replace(fitted, seconds=fitted.seconds + inputs.fit_s)
            scores = {key: _with_seconds(of_split, inputs.score_s[key]) for key, of_split in scores.items()}
        return ScoreSheet(fitted, plugin.needs + inputs.needs, scores)

    def _inputs(self, detector: SelectedDetector, exposed: tuple[str, ...]) -> InputScores:
        """The scores of a meta classifier's inputs on all splits.

        On the samples that the meta classifier is fitted on, the scores of a supervised input are out of fold, since
        scores of its own fitting samples would be too good (Wolpert 1992, stacked generalisation).

        Raises:
            CellSkippedError: An input is skipped.
            OodbenchError: An input fails.
        """
        if isinstance(detector.inputs, MissingPrerequisiteError):
            raise MissingPrerequisiteError(*detector.inputs.args)
        scores: dict[Key, dict[str, Tensor]] = {key_of(split): {} for split in self.trial.scored()}
        seconds = dict.fromkeys(scores, 0.0)
        needs: list[str] = []
        fit_s = 0.0
        for source in detector.inputs:
            sheet = self.sheet(source, exposed)
            if isinstance(sheet, Failure):
                raise _refused(source, sheet)
            needs.extend(need for need in sheet.needs if need not in needs)
            fit_s += sheet.fitted.seconds
            for key, of_split in sheet.scores.items():
                if isinstance(of_split, Failure):
                    raise _refused(source, of_split)
                scores[key][source.label] = torch.from_numpy(of_split.scores)
                seconds[key] += of_split.seconds
            if source.plugin.fitted_on == "exposed":
                start = time.perf_counter()
                for key, out_of_fold in self._out_of_fold(source, exposed).items():
                    scores[key][source.label] = out_of_fold
                fit_s += time.perf_counter() - start
        return InputScores(scores, tuple(needs), fit_s, seconds)

    def _out_of_fold(self, detector: SelectedDetector, exposed: tuple[str, ...]) -> dict[Key, Tensor]:
        """Scores of the samples that a supervised detector is fitted on, each by a fit that has not seen it."""
        trial, plugin = self.trial, detector.plugin
        device, fitting = trial.collector.device_for(plugin.needs), trial.fitting(exposed)
        evidence = Evidence.concatenate([trial.evidence(split, plugin.needs) for split in fitting])
        labels = torch.cat([torch.from_numpy(split.labels) for split in fitting])
        fold = torch.arange(len(labels)) % FOLDS
        scores = torch.empty(len(labels), dtype=torch.float64)
        for i in range(FOLDS):
            with isolated(trial.seed, device), time_limit(trial.time_limit):
                fitted = fit(plugin, detector.parameters(trial.seed), evidence[fold != i], labels[fold != i], device)
                scores[fold == i] = torch.from_numpy(score(fitted.detector, evidence[fold == i], device)).double()
        by_split = torch.split(scores, [len(split.labels) for split in fitting])
        return {key_of(split): of_split for split, of_split in zip(fitting, by_split, strict=True)}


def _training_split(trial: Trial) -> Split:
    """The known training split.

    Raises:
        CellSkippedError: There is none.
    """
    if trial.train is None:
        raise CellSkippedError(
            f"it is fitted on the samples that the classifier was trained on, and {trial.test.dataset} has no training "
            "split"
        )
    return trial.train


def _timed_score(
    fitted: FittedDetector, evidence: Evidence, size: int, device: torch.device, track: Track, what: str
) -> SplitScores:
    """The scores of a split, batch by batch; reading inputs does not count as scoring.

    Args:
        fitted: The detector.
        evidence: The evidence of the split.
        size: Number of samples at once.
        device: Where the detector gets the evidence.
        track: Shows progress.
        what: What is scored, for the progress.
    """
    starts = range(0, len(evidence), size)
    scores, seconds = [], 0.0
    for first in told(starts, [min(size, len(evidence) - start) for start in starts], track, what):
        chunk = evidence[first : first + size]
        start = time.perf_counter()
        scores.append(score(fitted.detector, chunk, device))
        seconds += time.perf_counter() - start
    return SplitScores(np.concatenate(scores), seconds)


def _with_seconds(of_split: SplitScores | Failure, more: float) -> SplitScores | Failure:
    return of_split if isinstance(of_split, Failure) else replace(of_split, seconds=of_split.seconds + more)


def _refused(detector: SelectedDetector, failure: Failure) -> Exception:
    sentence = (
        f"its input {detector.label} {'is skipped' if failure.status == 'skipped' else 'failed'}: {failure.error}"
    )
    return CellSkippedError(sentence) if failure.status == "skipped" else OodbenchError(sentence)
