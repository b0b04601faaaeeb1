"""The checks of detectors, on the small problem of ``problem``."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NoReturn, get_args, get_origin

import numpy as np
import torch
from numpy.typing import NDArray

from oodbench.conformance import elsewhere
from oodbench.conformance.check import Check, NonconformityError, NotApplicableError, promise
from oodbench.conformance.problem import UNKNOWN, problem
from oodbench.datasets.adapter import DatasetPlugin
from oodbench.detectors.plugin import Detector, DetectorPlugin
from oodbench.detectors.selection import Chosen
from oodbench.errors import FROM_OUTSIDE, CellSkippedError, described, one_line
from oodbench.evaluation.metrics import auroc
from oodbench.evidence import Evidence
from oodbench.isolation import isolated
from oodbench.parameters import annotation_of, defaults
from oodbench.scoresheet import Prepared, prepare
from oodbench.scoring import fit, refuse_changed_network, score, state_of
from oodbench.trial import Trial

# Sums of float32 depend a little on how many are added together.
ROUNDING = 1e-3
# Standard errors that chance may be off by.
SURPRISE = 4.0

Scores = NDArray[np.float64]

CHECKS: list[Check] = []


@dataclass
class Subject:
    """A detector that is checked.

    Attributes:
        chosen: The detector with its parameters.
        files: Local files that declare it, for other processes.
    """

    chosen: Chosen
    files: Sequence[str] = ()
    trial: Trial = field(default_factory=problem)

    @property
    def plugin(self) -> DetectorPlugin:
        """The detector."""
        return self.chosen.plugin

    @cached_property
    def prepared(self) -> Prepared:
        """What it declares to need, on the problem."""
        exposed = (UNKNOWN,) if self.plugin.fitted_on == "exposed" else ()
        return prepare(self.trial, self.chosen, exposed)

    def view(self, which: Literal["known", "unknown"]) -> Evidence:
        """What it scores of the test sets."""
        split = self.trial.test if which == "known" else self.trial.unknown[UNKNOWN]
        return self.prepared.views[split.dataset, split.part]

    @cached_property
    def tested(self) -> Evidence:
        """Known test samples, then unknown ones."""
        return Evidence.concatenate([self.view("known"), self.view("unknown")])

    def fitted(self, chance: int = 0) -> Detector:
        """A fresh one, fitted.

        Args:
            chance: Where the process's random numbers stand; a detector's seed is its parameter alone.
        """
        detector = self.plugin.build(self.chosen.parameters(self.trial.seed))
        self.learn(detector, self.prepared.lesson, self.prepared.labels, chance)
        return detector

    def learn(self, detector: Detector, lesson: Evidence, labels: torch.Tensor, chance: int = 0) -> None:
        """Fit, whatever it does to what it is given."""
        with isolated(chance):
            detector.fit(lesson.copy(), labels.clone())

    def scores(self, detector: Detector, evidence: Evidence | None = None, chance: int = 0) -> Scores:
        """The scores of some evidence, by default of the test sets."""
        given = (self.tested if evidence is None else evidence).copy()
        with torch.no_grad(), isolated(chance):
            found = detector.score(given)
        scores: Scores = torch.as_tensor(found).double().numpy()
        return scores

    @cached_property
    def usual(self) -> Scores:
        """What it usually says of the test sets.

        Raises:
            NotApplicableError: That is no finite number for each sample, so that nothing can be compared with it.
        """
        found = self.scores(self.fitted())
        if found.shape != (len(self.tested),) or not np.isfinite(found).all():
            raise NotApplicableError("its scores are no finite numbers, one a sample, so nothing can be said of them")
        return found


@promise("it reads what it declares and nothing else", CHECKS)
def reads_what_it_declares(subject: Subject) -> None:
    """Parts of the evidence beyond ``needs`` are not there, and data sets are not read behind the harness's back."""
    with _no_data_sets():
        subject.scores(subject.fitted())


@contextmanager
def _no_data_sets() -> Iterator[None]:
    """Whoever reads a data set inside is told that it must not."""
    original = DatasetPlugin.read

    def refuse(plugin: DatasetPlugin, *_: object) -> NoReturn:
        raise NonconformityError(
            f"it reads the data set {plugin.name}, which it does not declare; expected it to learn from what `fit` is "
            "given alone"
        )

    DatasetPlugin.read = refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        DatasetPlugin.read = original  # type: ignore[method-assign]


@promise("its scores are finite numbers, one a sample", CHECKS)
def gives_one_number_a_sample(subject: Subject) -> None:
    """Shape (N,), float32 or float64, no NaN, no infinity."""
    detector = subject.fitted()
    for evidence in (subject.view("known"), subject.view("unknown")):
        score(detector, evidence)


@promise("a larger score means more unknown", CHECKS)
def larger_is_more_unknown(subject: Subject) -> None:
    """On unknown images that a network is unsure of, an AUROC far below one half is a flipped sign."""
    area = auroc(subject.usual, _is_unknown(subject)) or 0.5
    if area < 0.5 - SURPRISE * _standard_error(subject):
        raise NonconformityError(
            f"its AUROC on a separable problem is {area:.3f}; expected at least 0.5: larger scores have to mean more "
            "unknown, so turn the sign"
        )


@promise("it finds nothing in shuffled labels", CHECKS)
def finds_nothing_in_shuffled_labels(subject: Subject) -> None:
    """Fitted on shuffled labels, it tells shuffled unknown from shuffled known samples no better than chance."""
    _require_scores(subject)
    generator = np.random.default_rng(0)
    labels = subject.prepared.labels
    detector = subject.plugin.build(subject.chosen.parameters(subject.trial.seed))
    shuffled = labels[torch.from_numpy(generator.permutation(len(labels)))]
    try:
        subject.learn(detector, subject.prepared.lesson, shuffled)
    except CellSkippedError as cause:
        raise NotApplicableError(f"shuffled labels teach it nothing: {one_line(cause)}") from cause
    area = auroc(subject.scores(detector), generator.permutation(_is_unknown(subject))) or 0.5
    if abs(area - 0.5) > SURPRISE * _standard_error(subject):
        raise NonconformityError(f"its AUROC on shuffled labels is {area:.3f}; expected one near 0.5")


@promise("the scores of a sample do not depend on the size of the batch", CHECKS)
def ignores_the_size_of_the_batch(subject: Subject) -> None:
    """Samples alone, and seven at a time, score as all together."""
    detector = _by_sample(subject)
    few = torch.arange(0, len(subject.tested), 9)
    for size in (1, 7):
        pieces = [subject.scores(detector, subject.tested[some]) for some in torch.split(few, size)]
        _require_same(
            subject,
            np.concatenate(pieces),
            subject.usual[few.numpy()],
            f"with {size} in a batch",
        )


@promise("the scores of a sample do not depend on the order", CHECKS)
def ignores_the_order(subject: Subject) -> None:
    """Reversed, all score the same."""
    detector = _by_sample(subject)
    backwards = torch.arange(len(subject.tested) - 1, -1, -1)
    _require_same(subject, subject.scores(detector, subject.tested[backwards])[::-1], subject.usual, "in reverse order")


@promise("the scores of a sample do not depend on which others are scored", CHECKS)
def ignores_the_company(subject: Subject) -> None:
    """Known samples without unknown ones score as with them, and so do some of them."""
    detector = _by_sample(subject)
    known = subject.scores(detector, subject.view("known"))
    _require_same(subject, known, subject.usual[: len(known)], "without unknown samples")
    _require_same(subject, subject.scores(detector, subject.tested[::3]), subject.usual[::3], "for every third sample")


@promise("the same seed gives the same scores", CHECKS)
def repeats_itself(subject: Subject) -> None:
    """Whatever random numbers the process is at."""
    again = subject.scores(subject.fitted(chance=1), chance=2)
    if not np.array_equal(again, subject.usual):
        raise NonconformityError(
            f"fitted and scored again, {int((again != subject.usual).sum())} of {len(again)} scores differ; expected "
            "none: draw random numbers from a generator made of a parameter `seed`, and keep own networks in eval mode"
        )


@promise("fitting again forgets what was learnt before", CHECKS)
def refitting_forgets(subject: Subject) -> None:
    """After other samples, it learns from these as a fresh one does."""
    lesson, labels = subject.prepared.lesson, subject.prepared.labels
    half = torch.arange(len(labels)) % 2 == 0
    detector = subject.plugin.build(subject.chosen.parameters(subject.trial.seed))
    try:
        subject.learn(detector, lesson[half], labels[half])
    except CellSkippedError as cause:
        raise NotApplicableError(f"half of the samples teach it nothing: {one_line(cause)}") from cause
    subject.learn(detector, lesson, labels)
    _require_same(
        subject, subject.scores(detector), subject.usual, "after an earlier fit to other samples", exactly=True
    )


@promise("scoring teaches it nothing", CHECKS)
def scoring_teaches_nothing(subject: Subject) -> None:
    """Unknown samples that were scored change neither later scores nor what a fresh one learns."""
    detector = subject.fitted()
    for _ in range(2):
        subject.scores(detector, subject.view("unknown"))
    _require_same(subject, subject.scores(detector), subject.usual, "after unknown samples were scored", exactly=True)
    fresh = subject.scores(subject.fitted())
    _require_same(subject, fresh, subject.usual, "fitted after another one had scored unknown samples", exactly=True)


@promise("scores that it has returned stay what they were", CHECKS)
def returns_memory_of_its_own(subject: Subject) -> None:
    """They are not the memory that it writes its next scores to."""
    detector = subject.fitted()
    with torch.no_grad(), isolated(0):
        first = detector.score(subject.view("known").copy())
        kept = torch.as_tensor(first).clone()
        detector.score(subject.view("unknown").copy())
    if not torch.equal(torch.as_tensor(first).nan_to_num(), kept.nan_to_num()):
        raise NonconformityError(
            "the scores that it returned changed when it scored other samples; expected a new tensor each time"
        )


@promise("what it reports to have learnt can be recorded", CHECKS)
def reports_plain_values(subject: Subject) -> None:
    """``learnt`` is a dict of numbers, texts, lists and mappings."""
    parameters = subject.chosen.parameters(subject.trial.seed)
    fit(subject.plugin, parameters, subject.prepared.lesson, subject.prepared.labels)


@promise("each parameter changes something, or is declared inert", CHECKS)
def parameters_matter(subject: Subject) -> None:
    """Some other value of each gives other scores."""
    target = subject.plugin.target
    offered = defaults(target)
    if not offered:
        raise NotApplicableError("it has no parameters")
    parameters = subject.chosen.parameters(subject.trial.seed)
    untried = []
    for name, parameter in offered.items():
        if name in subject.plugin.inert:
            continue
        changes = _changes_scores(subject, name, _others(annotation_of(target, parameter), parameters[name], subject))
        if changes is None:
            untried.append(name)
        elif not changes:
            raise NonconformityError(
                f"other values of its parameter {name!r} than {parameters[name]!r} change no score; expected some, or "
                f"inert=({name!r},) in its decorator"
            )
    if len(untried) == len(offered):
        raise NotApplicableError(f"no other value is known of: {', '.join(untried)}")


@promise("it leaves the evidence as it was", CHECKS)
def leaves_the_evidence(subject: Subject) -> None:
    """It works on copies."""
    parameters = subject.chosen.parameters(subject.trial.seed)
    fitted = fit(subject.plugin, parameters, subject.prepared.lesson, subject.prepared.labels)
    score(fitted.detector, subject.tested)


@promise("it leaves the classifier as it was", CHECKS)
def leaves_the_classifier(subject: Subject) -> None:
    """Its weights, running statistics and modes."""
    if subject.prepared.pieces is None:
        raise NotApplicableError("it is not given the classifier")
    subject.scores(subject.fitted())
    refuse_changed_network(state_of(subject.trial.observatory.classifier.network), subject.prepared.pieces.network)


@promise("fitted, it can be sent to another process", CHECKS)
def can_be_sent(subject: Subject) -> None:
    """It pickles, and scores the same there."""
    detector = _by_sample(subject)
    some = subject.tested[::10]
    try:
        packed = pickle.dumps((detector, some))
    except FROM_OUTSIDE:
        raise
    except BaseException as cause:
        raise NonconformityError(
            f"it cannot be pickled: {described(cause)}; expected its state to be plain data, "
            "and itself to be defined at the top of a module"
        ) from cause
    found = elsewhere.scores(packed, subject.files)
    if isinstance(found, str):
        raise NonconformityError(f"in another process it fails: {found}")
    _require_same(subject, found, subject.scores(detector, some), "in another process")


def _by_sample(subject: Subject) -> Detector:
    """A fitted detector whose scores can be compared sample by sample."""
    if subject.plugin.by_chance:
        raise NotApplicableError("its scores are declared to be drawn by chance")
    _require_scores(subject)
    return subject.fitted()


def _require_scores(subject: Subject) -> None:
    """Leave a check to the one of scores, if they are what is wrong."""
    _ = subject.usual


def _is_unknown(subject: Subject) -> NDArray[np.bool_]:
    known, unknown = len(subject.view("known")), len(subject.view("unknown"))
    return np.arange(known + unknown) >= known


def _standard_error(subject: Subject) -> float:
    """Of the AUROC of a detector that tells nothing (Mann, Whitney 1947)."""
    known, unknown = len(subject.view("known")), len(subject.view("unknown"))
    return float(np.sqrt((known + unknown + 1) / (12 * known * unknown)))


def _require_same(subject: Subject, found: Scores, expected: Scores, where: str, *, exactly: bool = False) -> None:
    spread = float(np.ptp(subject.usual)) or 1.0
    tolerance = 0.0 if exactly else ROUNDING * spread
    # Said this way round, NaN is off.
    off = ~(np.abs(found - expected) <= tolerance) if found.shape == expected.shape else np.ones(1, dtype=bool)
    if off.any():
        raise NonconformityError(
            f"{where}, {int(off.sum())} of {len(off)} scores differ by up to "
            f"{np.abs(found - expected).max():.3g} (all of them span {spread:.3g}); expected the same scores"
            if found.shape == expected.shape
            else f"{where}, it returns scores of shape {found.shape}; expected {expected.shape}"
        )


def _changes_scores(subject: Subject, name: str, values: Sequence[object]) -> bool | None:
    """Whether another value of a parameter changes a score; None if none of the values can be had."""
    could = None
    for value in values:
        try:
            given = dict(subject.chosen.given) | {name: value}
            other = Subject(Chosen(subject.chosen.name, subject.plugin, given, subject.chosen.provider), subject.files)
            found = other.scores(other.fitted())
        except (Exception, SystemExit):  # that the value is refused is no mistake
            continue
        could = False
        if found.shape != subject.usual.shape or not np.allclose(found, subject.usual, rtol=1e-6, atol=0):
            return True
    return could


def _others(annotation: Any, value: Any, subject: Subject) -> list[object]:  # noqa: ANN401
    """Other values of a type."""
    options = [annotation, *_members(annotation)]
    found: list[object] = [one for option in options if get_origin(option) is Literal for one in get_args(option)]
    if bool in options or isinstance(value, bool):
        found.append(not value)
    elif float in options or isinstance(value, float):
        base = value or 1.0
        found += [base / 2, base * 1.5, 0.5, 0.9, 0.1, base * 10]
    elif int in options or isinstance(value, int):
        base = value or 1
        found += [base + 1, base * 2, max(1, base // 2), 1, 3]
    if str in options:
        found += [name for name, _ in subject.trial.observatory.classifier.network.named_modules() if name]
    for option in options:
        if get_origin(option) in (list, tuple):
            found += _sequences(option, subject)
    return [one for one in found if one != value]


def _members(annotation: Any) -> Iterator[Any]:  # noqa: ANN401
    """The types that a union is made of."""
    for one in get_args(annotation):
        if get_origin(one) is not None or isinstance(one, type):
            yield one


def _sequences(option: Any, subject: Subject) -> list[object]:  # noqa: ANN401
    (kind, *_) = get_args(option) or (str,)
    make = get_origin(option)
    if kind is str:
        return [make(("max-softmax",)), make(("energy", "random"))] if "scores" in subject.plugin.needs else []
    return [make([kind(1), *(kind(2 + i) for i in range(n))]) for n in range(6)]
