"""The four claims of Oberdiek, Rottmann, Gottschalk 2018 (arXiv 1805.08440), as functions of records."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal

from pydantic import BaseModel, ConfigDict

from oodbench.comparison.entrants import Entrant, Estimator, detector_labels, entrants
from oodbench.comparison.estimates import Difference, Estimate, against_zero, combined, difference
from oodbench.records.verification import Measured

MARGIN = 0.01
"""What counts: a difference of a metric between 0 and 1 below this is none that anyone would act on."""
SEVERAL = 3
METRICS = ("l1", "l2", "min", "max", "mean", "std", "skewness")
META = "grad-combo"
Outcome = Literal["held", "did not hold", "not separable"]


class Claim(BaseModel):
    """What the records say of a claim.

    Attributes:
        number: 1 to 4.
        text: The claim.
        outcome: ``held``, ``did not hold`` or ``not separable``.
        criterion: When it holds, in figures.
        figure: The deciding figure.
        low: Lower end of its 95 % interval over test samples and seeds.
        high: Its upper end.
        details: What it is made of, one sentence each.
        looked_at: How many differences the figure was chosen from, which its interval is widened for (Bonferroni).
        seeds: The seeds; a single one says nothing of other trainings.
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


def claims(cells: Sequence[Measured]) -> list[Claim]:
    """Those claims for which the cells of one suite are there, for every seed."""
    trial = _Cells(cells)
    found = [claim(trial) for claim in (_first, _second, _third, _fourth)]
    return [_of_seeds(claim, trial.seeds) for claim in found if claim is not None]


def _of_seeds(claim: Claim, seeds: Sequence[int]) -> Claim:
    """The claim with what its interval is about."""
    widened = f" The interval is widened for the {claim.looked_at} it was chosen from." if claim.looked_at > 1 else ""
    single = f" Of the training with seed {seeds[0]} only." if len(seeds) == 1 else ""
    criterion = f"{claim.criterion}{widened}{single}"
    return claim.model_copy(update={"seeds": tuple(seeds), "criterion": criterion})


class _Cells:
    """The cells of a suite, asked for figures by name."""

    def __init__(self, cells: Sequence[Measured]) -> None:
        self.cells = sorted(cells, key=lambda one: one.record.cell_id)
        self.labels = detector_labels(one.record for one in self.cells)
        self.estimator = Estimator(self.cells)
        self.seeds = sorted({one.record.seed for one in self.cells})
        results = [result for one in self.cells for result in one.record.results]
        self.groups = {result.dataset: result.group for result in results if result.role == "unknown"}
        self.known = next((result.dataset for result in results if result.role == "known"), "")

    def of(
        self, protocol: str, detector: str, metric: str, datasets: Sequence[str], exposed: Sequence[str] = ()
    ) -> Estimate | None:
        """A figure of a detector; None if a cell of it is missing."""
        chosen = [
            one for one in self.cells if one.record.protocol == protocol and set(one.record.exposed) == set(exposed)
        ]
        found: list[Entrant] = entrants(chosen, self.labels, by_exposure=False)
        entrant = next((one for one in found if one.detector == detector), None)
        if entrant is None or not datasets:
            return None
        return self.estimator.estimate(entrant, metric, datasets, self.seeds)


def _first(cells: _Cells) -> Claim | None:
    metric = "failure_meta_accuracy"
    entropy = cells.of("known", "entropy", metric, [cells.known])
    others = {name: cells.of("known", f"grad-{name}", metric, [cells.known]) for name in METRICS}
    if entropy is None or any(one is None for one in others.values()):
        return None
    differences = {
        name: against_zero(combined([(1.0, one), (-1.0, entropy)]), looked_at=len(METRICS))
        for name, one in others.items()
        if one is not None
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
    present = {name: one for name, one in figures.items() if one is not None}
    if len(present) < 2 or len(present) < len(figures):
        return None
    ordered = sorted(present, key=lambda name: -present[name].value)
    pairs = list(combinations(ordered, 2))
    apart = [against_zero(combined([(1.0, present[a]), (-1.0, present[b])]), looked_at=len(pairs)) for a, b in pairs]
    largest = apart[pairs.index((ordered[0], ordered[-1]))]
    alike = all(one.low > -MARGIN and one.high < MARGIN for one in apart)
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
    """A claim that something is better on some data sets."""
    deciding = gain(datasets) if datasets else None
    if deciding is None:
        return None
    singles = {name: gain([name]) for name in (*datasets, *besides)}
    details = [f"{name}: {_text(one)}" for name, one in singles.items() if one is not None]
    return _claim(number, text, _outcome(deciding, margin), criterion, deciding, details)


def _outcome(found: Difference, least: float) -> Outcome:
    if found.low > least:
        return "held"
    return "did not hold" if found.high < least else "not separable"


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


def _text(found: Difference) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
