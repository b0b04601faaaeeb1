"""The four claims of Oberdiek, Rottmann, Gottschalk 2018 (arXiv 1805.08440), as functions of records."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal

from pydantic import BaseModel, ConfigDict

from oodbench.comparison.compared import ComparedDetector, compared_detectors, detector_labels
from oodbench.comparison.estimates import Difference, Estimate, against_zero, combined, difference
from oodbench.comparison.estimator import Estimator
from oodbench.records.scored import ScoredRecord

MARGIN = 0.01
"""The smallest difference that matters, of a metric between 0 and 1."""
SEVERAL = 3
"""How many gradient metrics are "several" in the first claim."""
METRICS = ("l1", "l2", "min", "max", "mean", "std", "skewness")
META = "grad-combo"
Outcome = Literal["held", "did not hold", "not separable"]


class Claim(BaseModel):
    """A claim of the paper with its outcome.

    Attributes:
        number: 1 to 4.
        text: The claim.
        outcome: ``held``, ``did not hold`` or ``not separable``.
        criterion: When it holds, as a sentence with figures.
        figure: The difference that decides.
        low: Lower end of its 95 % interval over test samples and seeds.
        high: Its upper end.
        details: The figures that it is made of, one sentence each.
        looked_at: How many differences the figure was chosen from; its interval is widened for that (Bonferroni).
        seeds: The seeds; a single seed says nothing of other trainings.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    text: str
    outcome: Outcome
    criterion: str
    figure: float
    low: float
    high: float
    details: tuple[str, ...]
    looked_at: int = 1
    seeds: tuple[int, ...] = ()


def claims(cells: Sequence[ScoredRecord]) -> list[Claim]:
    """The claims that can be decided: those whose cells are there for all seeds.

    Args:
        cells: Records with their scores, of one suite.
    """
    suite = _Cells(cells)
    decided = [claim(suite) for claim in (_first, _second, _third, _fourth)]
    return [_with_seeds(claim, suite.seeds) for claim in decided if claim is not None]


def _with_seeds(claim: Claim, seeds: Sequence[int]) -> Claim:
    """The claim with its seeds, and a criterion that says what its interval covers."""
    widened = f" The interval is widened for the {claim.looked_at} it was chosen from." if claim.looked_at > 1 else ""
    single = f" Of the training with seed {seeds[0]} only." if len(seeds) == 1 else ""
    criterion = f"{claim.criterion}{widened}{single}"
    return claim.model_copy(update={"seeds": tuple(seeds), "criterion": criterion})


class _Cells:
    """The cells of a suite, with their figures by protocol and detector."""

    def __init__(self, cells: Sequence[ScoredRecord]) -> None:
        self.cells = sorted(cells, key=lambda scored: scored.record.cell_id)
        self.labels = detector_labels(scored.record for scored in self.cells)
        self.estimator = Estimator(self.cells)
        self.seeds = sorted({scored.record.seed for scored in self.cells})
        results = [result for scored in self.cells for result in scored.record.results]
        self.groups = {result.dataset: result.group for result in results if result.role == "unknown"}
        self.known = next((result.dataset for result in results if result.role == "known"), "")

    def of(
        self, protocol: str, detector: str, metric: str, datasets: Sequence[str], exposed: Sequence[str] = ()
    ) -> Estimate | None:
        """The mean of a metric over data sets and seeds; None if a cell is missing."""
        chosen = [
            scored
            for scored in self.cells
            if scored.record.protocol == protocol and set(scored.record.exposed) == set(exposed)
        ]
        candidates: list[ComparedDetector] = compared_detectors(chosen, self.labels, by_exposure=False)
        compared = next((candidate for candidate in candidates if candidate.detector == detector), None)
        if compared is None or not datasets:
            return None
        return self.estimator.estimate(compared, metric, datasets, self.seeds)


def _first(cells: _Cells) -> Claim | None:
    metric = "failure_meta_accuracy"
    entropy = cells.of("known", "entropy", metric, [cells.known])
    others = {name: cells.of("known", f"grad-{name}", metric, [cells.known]) for name in METRICS}
    if entropy is None or any(estimate is None for estimate in others.values()):
        return None
    differences = {
        name: against_zero(combined([(1.0, estimate), (-1.0, entropy)]), looked_at=len(METRICS))
        for name, estimate in others.items()
        if estimate is not None
    }
    ordered = sorted(differences, key=lambda name: -differences[name].value)
    deciding = differences[ordered[SEVERAL - 1]]
    return _claim(
        1,
        "On the known concept several gradient metrics reach the meta classification accuracy of entropy.",
        _outcome(deciding, -MARGIN),
        f"The meta accuracy of at least {SEVERAL} of the {len(METRICS)} gradient metrics is at most {MARGIN} below "
        f"that of entropy; the figure is the difference of the third best, {ordered[SEVERAL - 1]}.",
        deciding,
        [f"entropy: {entropy.value:.4f}", *(f"{name} − entropy: {_text(differences[name])}" for name in ordered)],
        looked_at=len(METRICS),
    )


def _second(cells: _Cells) -> Claim | None:
    datasets = list(cells.groups)

    def gain(names: Sequence[str]) -> Difference | None:
        together = cells.of("unknown-unknowns", META, "auroc", names)
        alone = cells.of("unknown-unknowns", "entropy-meta", "auroc", names)
        return None if together is None or alone is None else difference(together, alone)

    return _of_gain(
        2,
        "Entropy and gradient metrics together raise the rates for unknown concepts.",
        f"AUROC of {META} less that of entropy alone (entropy-meta), both fitted on known samples, mean over the "
        "unknown sets, is above 0.",
        gain,
        datasets,
        margin=0.0,
    )


def _third(cells: _Cells) -> Claim | None:
    figures = {name: cells.of("unknown-unknowns", META, "auroc", [name]) for name in cells.groups}
    present = {name: estimate for name, estimate in figures.items() if estimate is not None}
    if len(present) < 2 or len(present) < len(figures):
        return None
    ordered = sorted(present, key=lambda name: -present[name].value)
    pairs = list(combinations(ordered, 2))
    gaps = [against_zero(combined([(1.0, present[a]), (-1.0, present[b])]), looked_at=len(pairs)) for a, b in pairs]
    largest = gaps[pairs.index((ordered[0], ordered[-1]))]
    alike = all(gap.low > -MARGIN and gap.high < MARGIN for gap in gaps)
    outcome: Outcome = "held" if largest.low > MARGIN else "did not hold" if alike else "not separable"
    return _claim(
        3,
        "Meta classifiers trained on the known concept only do not do equally well on all unknown concepts.",
        outcome,
        f"The AUROC of {META}, fitted on known samples, on the unknown set it does best on ({ordered[0]}) less that on "
        f"the one it does worst on ({ordered[-1]}) is above {MARGIN}.",
        largest,
        [f"{name}: {present[name].value:.4f}" for name in ordered],
        looked_at=len(pairs),
    )


def _fourth(cells: _Cells) -> Claim | None:
    remote = [name for name, group in cells.groups.items() if group == "far"]

    def gain(names: Sequence[str]) -> Difference | None:
        exposed = cells.of("known-unknowns", META, "auroc", names, tuple(cells.groups))
        unexposed = cells.of("unknown-unknowns", META, "auroc", names)
        return None if exposed is None or unexposed is None else difference(exposed, unexposed)

    return _of_gain(
        4,
        "Trained with some samples of unknown concepts, they improve considerably on concepts remote from the known.",
        f"AUROC of {META} exposed to other samples of all unknown sets less that fitted on known samples only, mean "
        f"over the far sets, is above {MARGIN}.",
        gain,
        remote,
        margin=MARGIN,
        besides=[name for name in cells.groups if name not in remote],
    )


def _of_gain(
    number: int,
    text: str,
    criterion: str,
    gain: Callable[[Sequence[str]], Difference | None],
    datasets: Sequence[str],
    *,
    margin: float,
    besides: Sequence[str] = (),
) -> Claim | None:
    """A claim that a figure rises on some data sets; None if cells are missing."""
    deciding = gain(datasets) if datasets else None
    if deciding is None:
        return None
    singles = {name: gain([name]) for name in (*datasets, *besides)}
    details = [f"{name}: {_text(figure)}" for name, figure in singles.items() if figure is not None]
    return _claim(number, text, _outcome(deciding, margin), criterion, deciding, details)


def _outcome(figure: Difference, least: float) -> Outcome:
    if figure.low > least:
        return "held"
    return "did not hold" if figure.high < least else "not separable"


def _claim(
    number: int,
    text: str,
    outcome: Outcome,
    criterion: str,
    figure: Difference,
    details: Sequence[str],
    looked_at: int = 1,
) -> Claim:
    return Claim(
        number=number,
        text=text,
        outcome=outcome,
        criterion=criterion,
        figure=figure.value,
        low=figure.low,
        high=figure.high,
        details=tuple(details),
        looked_at=looked_at,
    )


def _text(figure: Difference) -> str:
    return f"{figure.value:+.4f} [{figure.low:+.4f}, {figure.high:+.4f}]"
