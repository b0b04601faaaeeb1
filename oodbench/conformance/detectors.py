"""The checks of detectors, on the small trial of ``problem``."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import numpy as np
import torch
from numpy.typing import NDArray

from oodbench import registry
from oodbench.cache.entries import NoCache
from oodbench.conformance import other_process
from oodbench.conformance.check import Check, NonconformityError, NotApplicableError, promise
from oodbench.conformance.problem import UNKNOWN, problem
from oodbench.datasets.adapter import DatasetPlugin
from oodbench.detectors.plugin import Detector, DetectorPlugin
from oodbench.detectors.selection import SelectedDetector, with_inputs
from oodbench.errors import FROM_OUTSIDE, CellSkippedError, described, one_line
from oodbench.evaluation.metrics import auroc
from oodbench.evidence import Evidence
from oodbench.evidence.collector import EvidenceCollector
from oodbench.evidence.parts import collected, plain_name
from oodbench.machine.progress import silent
from oodbench.registry.isolation import isolated
from oodbench.registry.parameters import annotation_of, defaults
from oodbench.runs.fitting import fit, refuse_changed_network, score, state_of
from oodbench.runs.score_sheet import DetectorEvidence, DetectorScorer
from oodbench.runs.trial import Trial

# Tolerance, relative to the span of the scores: float32 sums depend a little on the batch.
ROUNDING = 1e-3
# An AUROC may be off by so many standard errors by chance.
SURPRISE = 4.0

Scores = NDArray[np.float64]

CHECKS: list[Check] = []


@dataclass
class CheckedDetector:
    """A detector that is checked.

    Attributes:
        selected: The detector with its parameters.
        files: Local files that declare it, for other processes.
        trial: The problem that it is tried on.
    """

    selected: SelectedDetector
    files: Sequence[str] = ()
    trial: Trial = field(default_factory=problem)

    @property
    def plugin(self) -> DetectorPlugin:
        """The detector."""
        return self.selected.plugin

    @cached_property
    def detector_evidence(self) -> DetectorEvidence:
        """The evidence that it declares to need, on the problem."""
        exposed = (UNKNOWN,) if self.plugin.fitted_on == "exposed" else ()
        return DetectorScorer(self.trial).evidence(self.selected, exposed)

    def view(self, which: Literal["known", "unknown"]) -> Evidence:
        """The evidence of the known or the unknown test set."""
        split = self.trial.test if which == "known" else self.trial.unknown[UNKNOWN]
        return self.detector_evidence.score_evidence[split.dataset, split.use][:]

    @cached_property
    def tested(self) -> Evidence:
        """The evidence of both test sets: known samples, then unknown ones."""
        return Evidence.concatenate([self.view("known"), self.view("unknown")])

    def fitted(self, chance: int = 0) -> Detector:
        """Build and fit a new detector.

        Args:
            chance: Seed of the process's random numbers, which must not matter: a detector's seed is its parameter.
        """
        detector = self.plugin.build(self.selected.parameters(self.trial.seed))
        self.learn(detector, self.detector_evidence.fit_evidence, self.detector_evidence.labels, chance)
        return detector

    def learn(self, detector: Detector, fit_evidence: Evidence, labels: torch.Tensor, chance: int = 0) -> None:
        """Fit a detector on copies of evidence and labels."""
        with isolated(chance):
            detector.fit(fit_evidence.copy(), labels.clone())

    def scores(self, detector: Detector, evidence: Evidence | None = None, chance: int = 0) -> Scores:
        """The scores of some evidence, by default of both test sets, float64 (N,)."""
        own_evidence = (self.tested if evidence is None else evidence).copy()
        with torch.no_grad(), isolated(chance):
            returned = detector.score(own_evidence)
        scores: Scores = torch.as_tensor(returned).double().numpy()
        return scores

    @cached_property
    def usual(self) -> Scores:
        """The scores of both test sets that others are compared with.

        Raises:
            NotApplicableError: They are not one finite number for each sample.
        """
        scores = self.scores(self.fitted())
        if scores.shape != (len(self.tested),) or not np.isfinite(scores).all():
            raise NotApplicableError("its scores are no finite numbers, one a sample, so nothing can be said of them")
        return scores


@promise("it reads what it declares and nothing else", CHECKS)
def reads_what_it_declares(checked: CheckedDetector) -> None:
    """It works without parts of the evidence beyond ``needs``, and reads no data sets by itself."""
    with _no_data_sets():
        checked.scores(checked.fitted())


@contextmanager
def _no_data_sets() -> Iterator[None]:
    """Inside, reading a data set raises NonconformityError."""
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
def gives_one_number_a_sample(checked: CheckedDetector) -> None:
    """Shape (N,), float32 or float64, no NaN, no infinity."""
    detector = checked.fitted()
    for evidence in (checked.view("known"), checked.view("unknown")):
        score(detector, evidence)


@promise("a larger score means more unknown", CHECKS)
def larger_is_more_unknown(checked: CheckedDetector) -> None:
    """On unknown images that a network is unsure of, an AUROC far below one half is a flipped sign."""
    area = auroc(checked.usual, _is_unknown(checked)) or 0.5
    if area < 0.5 - SURPRISE * _standard_error(checked):
        raise NonconformityError(
            f"its AUROC on a separable problem is {area:.3f}; expected at least 0.5: larger scores have to mean more "
            "unknown, so turn the sign"
        )


@promise("it finds nothing in shuffled labels", CHECKS)
def finds_nothing_in_shuffled_labels(checked: CheckedDetector) -> None:
    """Fitted on shuffled labels, it tells shuffled unknown from shuffled known samples no better than chance."""
    _require_scores(checked)
    generator = np.random.default_rng(0)
    labels = checked.detector_evidence.labels
    detector = checked.plugin.build(checked.selected.parameters(checked.trial.seed))
    shuffled = labels[torch.from_numpy(generator.permutation(len(labels)))]
    try:
        checked.learn(detector, checked.detector_evidence.fit_evidence, shuffled)
    except CellSkippedError as cause:
        raise NotApplicableError(f"shuffled labels teach it nothing: {one_line(cause)}") from cause
    area = auroc(checked.scores(detector), generator.permutation(_is_unknown(checked))) or 0.5
    if abs(area - 0.5) > SURPRISE * _standard_error(checked):
        raise NonconformityError(f"its AUROC on shuffled labels is {area:.3f}; expected one near 0.5")


@promise("the evidence that it needs of a sample does not depend on the batch", CHECKS)
def needs_parts_of_samples(checked: CheckedDetector) -> None:
    """A part of the evidence that a plugin adds has the same values for samples alone as for all together."""
    parts = [part.name for part in collected(checked.plugin.needs)]
    names = [name for name in parts if registry.get("evidence", plain_name(name)).distribution != "oodbench"]
    if not names:
        raise NotApplicableError("it needs no part of the evidence that a plugin adds")
    few, test = torch.arange(3), checked.trial.test
    classifier = checked.trial.collector.classifier
    fresh = EvidenceCollector(classifier, NoCache(), test.images[0], silent)
    alone = fresh.evidence(test.subset(few.numpy()), names)
    together = checked.trial.collector.evidence(test, names)[few]
    for name in names:
        one, other = getattr(alone, name), getattr(together, name)
        pairs = [(one, other)] if isinstance(one, torch.Tensor) else [(one[key], other[key]) for key in one]
        for values, among in pairs:
            if not torch.allclose(values.double(), among.double(), rtol=ROUNDING, atol=ROUNDING, equal_nan=True):
                raise NonconformityError(
                    f"the part {name} of {len(few)} samples differs by up to {(values - among).abs().max():.3g} when "
                    "others are in the batch; expected values that depend on the sample alone"
                )


@promise("the scores of a sample do not depend on the size of the batch", CHECKS)
def ignores_the_size_of_the_batch(checked: CheckedDetector) -> None:
    """Samples alone, and seven at a time, score as all together."""
    detector = _by_sample(checked)
    few = torch.arange(0, len(checked.tested), 9)
    for size in (1, 7):
        pieces = [checked.scores(detector, checked.tested[some]) for some in torch.split(few, size)]
        _require_same(
            checked,
            np.concatenate(pieces),
            checked.usual[few.numpy()],
            f"with {size} in a batch",
        )


@promise("the scores of a sample do not depend on the order", CHECKS)
def ignores_the_order(checked: CheckedDetector) -> None:
    """In reverse order, all samples score the same."""
    detector = _by_sample(checked)
    backwards = torch.arange(len(checked.tested) - 1, -1, -1)
    _require_same(checked, checked.scores(detector, checked.tested[backwards])[::-1], checked.usual, "in reverse order")


@promise("the scores of a sample do not depend on which others are scored", CHECKS)
def ignores_the_company(checked: CheckedDetector) -> None:
    """Known samples without unknown ones score as with them, and so do some of them."""
    detector = _by_sample(checked)
    known = checked.scores(detector, checked.view("known"))
    _require_same(checked, known, checked.usual[: len(known)], "without unknown samples")
    _require_same(checked, checked.scores(detector, checked.tested[::3]), checked.usual[::3], "for every third sample")


@promise("the same seed gives the same scores", CHECKS)
def repeats_itself(checked: CheckedDetector) -> None:
    """The state of the process's random numbers does not matter."""
    again = checked.scores(checked.fitted(chance=1), chance=2)
    if not np.array_equal(again, checked.usual):
        raise NonconformityError(
            f"fitted and scored again, {int((again != checked.usual).sum())} of {len(again)} scores differ; expected "
            "none: draw random numbers from a generator made of a parameter `seed`, and keep own networks in eval mode"
        )


@promise("fitting again forgets what was learnt before", CHECKS)
def refitting_forgets(checked: CheckedDetector) -> None:
    """Fitted to other samples before, it scores as a detector that was not."""
    fit_evidence, labels = checked.detector_evidence.fit_evidence, checked.detector_evidence.labels
    half = torch.arange(len(labels)) % 2 == 0
    detector = checked.plugin.build(checked.selected.parameters(checked.trial.seed))
    try:
        checked.learn(detector, fit_evidence[half], labels[half])
    except CellSkippedError as cause:
        raise NotApplicableError(f"half of the samples teach it nothing: {one_line(cause)}") from cause
    checked.learn(detector, fit_evidence, labels)
    _require_same(
        checked, checked.scores(detector), checked.usual, "after an earlier fit to other samples", exactly=True
    )


@promise("scoring teaches it nothing", CHECKS)
def scoring_teaches_nothing(checked: CheckedDetector) -> None:
    """Scoring unknown samples changes neither later scores nor what a new detector learns."""
    detector = checked.fitted()
    for _ in range(2):
        checked.scores(detector, checked.view("unknown"))
    _require_same(checked, checked.scores(detector), checked.usual, "after unknown samples were scored", exactly=True)
    fresh = checked.scores(checked.fitted())
    _require_same(checked, fresh, checked.usual, "fitted after another one had scored unknown samples", exactly=True)


@promise("scores that it has returned stay what they were", CHECKS)
def returns_memory_of_its_own(checked: CheckedDetector) -> None:
    """Scoring again does not overwrite the tensor that was returned before."""
    detector = checked.fitted()
    with torch.no_grad(), isolated(0):
        first = detector.score(checked.view("known").copy())
        kept = torch.as_tensor(first).clone()
        detector.score(checked.view("unknown").copy())
    if not torch.equal(torch.as_tensor(first).nan_to_num(), kept.nan_to_num()):
        raise NonconformityError(
            "the scores that it returned changed when it scored other samples; expected a new tensor each time"
        )


@promise("what it reports to have learnt can be recorded", CHECKS)
def reports_plain_values(checked: CheckedDetector) -> None:
    """``learnt`` is a dict of numbers, texts, lists and mappings."""
    parameters = checked.selected.parameters(checked.trial.seed)
    fit(checked.plugin, parameters, checked.detector_evidence.fit_evidence, checked.detector_evidence.labels)


@promise("each parameter changes something, or is declared to have no effect", CHECKS)
def parameters_matter(checked: CheckedDetector) -> None:
    """For each parameter, some other value gives other scores."""
    target = checked.plugin.target
    offered = defaults(target)
    if not offered:
        raise NotApplicableError("it has no parameters")
    parameters = checked.selected.parameters(checked.trial.seed)
    untried = []
    for name, parameter in offered.items():
        if name in checked.plugin.no_effect_on_scores:
            continue
        changes = _changes_scores(
            checked, name, _other_values(annotation_of(target, parameter), parameters[name], checked)
        )
        if changes is None:
            untried.append(name)
        elif not changes:
            raise NonconformityError(
                f"other values of its parameter {name!r} than {parameters[name]!r} change no score; expected some, or "
                f"no_effect_on_scores=({name!r},) in its decorator"
            )
    if len(untried) == len(offered):
        raise NotApplicableError(f"no other value is known of: {', '.join(untried)}")


@promise("it leaves the evidence as it was", CHECKS)
def leaves_the_evidence(checked: CheckedDetector) -> None:
    """It does not change the evidence in place."""
    parameters = checked.selected.parameters(checked.trial.seed)
    fitted = fit(checked.plugin, parameters, checked.detector_evidence.fit_evidence, checked.detector_evidence.labels)
    score(fitted.detector, checked.tested)


@promise("it leaves the classifier as it was", CHECKS)
def leaves_the_classifier(checked: CheckedDetector) -> None:
    """It changes no weights, running statistics or modes."""
    if checked.detector_evidence.network_parts is None:
        raise NotApplicableError("it is not given the classifier")
    checked.scores(checked.fitted())
    refuse_changed_network(
        state_of(checked.trial.collector.classifier.network), checked.detector_evidence.network_parts.network
    )


@promise("fitted, it can be sent to another process", CHECKS)
def can_be_sent(checked: CheckedDetector) -> None:
    """It can be pickled, and scores the same in another process."""
    detector = _by_sample(checked)
    some = checked.tested[::10]
    try:
        packed = pickle.dumps((detector, some))
    except FROM_OUTSIDE:
        raise
    except BaseException as cause:
        raise NonconformityError(
            f"it cannot be pickled: {described(cause)}; expected its state to be plain data, "
            "and itself to be defined at the top of a module"
        ) from cause
    scores = other_process.scores(packed, checked.files)
    if isinstance(scores, str):
        raise NonconformityError(f"in another process it fails: {scores}")
    _require_same(checked, scores, checked.scores(detector, some), "in another process")


def _by_sample(checked: CheckedDetector) -> Detector:
    """A fitted detector whose scores can be compared sample by sample."""
    if checked.plugin.stochastic:
        raise NotApplicableError("its scores are declared to be random")
    _require_scores(checked)
    return checked.fitted()


def _require_scores(checked: CheckedDetector) -> None:
    """Skip a check whose subject are the scores, if these are invalid; another check reports that."""
    _ = checked.usual


def _is_unknown(checked: CheckedDetector) -> NDArray[np.bool_]:
    known, unknown = len(checked.view("known")), len(checked.view("unknown"))
    return np.arange(known + unknown) >= known


def _standard_error(checked: CheckedDetector) -> float:
    """Standard error of the AUROC of an uninformative detector (Mann, Whitney 1947)."""
    known, unknown = len(checked.view("known")), len(checked.view("unknown"))
    return float(np.sqrt((known + unknown + 1) / (12 * known * unknown)))


def _require_same(
    checked: CheckedDetector, scores: Scores, expected: Scores, where: str, *, exactly: bool = False
) -> None:
    spread = float(np.ptp(checked.usual)) or 1.0
    tolerance = 0.0 if exactly else ROUNDING * spread
    # Written so that NaN counts as a difference.
    off = ~(np.abs(scores - expected) <= tolerance) if scores.shape == expected.shape else np.ones(1, dtype=bool)
    if off.any():
        raise NonconformityError(
            f"{where}, {int(off.sum())} of {len(off)} scores differ by up to "
            f"{np.abs(scores - expected).max():.3g} (all of them span {spread:.3g}); expected the same scores"
            if scores.shape == expected.shape
            else f"{where}, it returns scores of shape {scores.shape}; expected {expected.shape}"
        )


def _changes_scores(checked: CheckedDetector, name: str, values: Sequence[object]) -> bool | None:
    """Whether another value of a parameter changes a score; None if the detector refuses all of them."""
    could = None
    for value in values:
        try:
            parameters = dict(checked.selected.given) | {name: value}
            plugin = checked.plugin.configured(parameters)
            selected = replace(checked.selected, plugin=plugin, given=parameters)
            variant = CheckedDetector(with_inputs(selected), checked.files)
            scores = variant.scores(variant.fitted())
        except (Exception, SystemExit):  # that the value is refused is no mistake
            continue
        could = False
        if scores.shape != checked.usual.shape or not np.allclose(scores, checked.usual, rtol=1e-6, atol=0):
            return True
    return could


def _other_values(annotation: Any, value: Any, checked: CheckedDetector) -> list[object]:  # noqa: ANN401
    """Values of a parameter's type that differ from its own."""
    options = [annotation, *_members(annotation)]
    candidates: list[object] = [
        literal for option in options if get_origin(option) is Literal for literal in get_args(option)
    ]
    if bool in options or isinstance(value, bool):
        candidates.append(not value)
    elif float in options or isinstance(value, float):
        base = value or 1.0
        candidates += [base / 2, base * 1.5, 0.5, 0.9, 0.1, base * 10]
    elif int in options or isinstance(value, int):
        base = value or 1
        candidates += [base + 1, base * 2, max(1, base // 2), 1, 3]
    if str in options:
        candidates += [name for name, _ in checked.trial.collector.classifier.network.named_modules() if name]
    for option in options:
        if get_origin(option) in (list, tuple):
            candidates += _sequences(option, checked)
    return [candidate for candidate in candidates if candidate != value]


def _members(annotation: Any) -> Iterator[Any]:  # noqa: ANN401
    """The types that a union is made of."""
    for member in get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ():
        if get_origin(member) is not None or isinstance(member, type):
            yield member


def _sequences(option: Any, checked: CheckedDetector) -> list[object]:  # noqa: ANN401
    (kind, *_) = get_args(option) or (str,)
    make = get_origin(option)
    if kind is str:
        return [make(("max-softmax",)), make(("energy", "random"))] if "scores" in checked.plugin.needs else []
    if get_origin(kind) is Literal:
        return [make((literal,)) for literal in get_args(kind)]
    return [make([kind(2 + i) for i in range(n)]) for n in range(1, 7)]
