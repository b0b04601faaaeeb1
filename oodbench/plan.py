"""What is to be run: everything that the user names, looked up, and cut into jobs."""

import logging
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from oodbench import registry
from oodbench.atomic import check_folder
from oodbench.cells import Cell
from oodbench.classifiers.blueprint import Blueprint, find_blueprint
from oodbench.classifiers.store import Classifier, make_classifier
from oodbench.classifiers.weights import weights_file
from oodbench.datasets.sources import check_sources
from oodbench.datasets.splits import SuiteData, draw_splits
from oodbench.detectors.plugin import DetectorPlugin
from oodbench.detectors.selection import Broken, Chosen, choose
from oodbench.errors import OodbenchError, UsageError
from oodbench.evidence.observation import Observatory
from oodbench.evidence.timing import evidence_ms
from oodbench.folders import cache_folder, data_folder
from oodbench.progress import Track
from oodbench.protocols.case import Case, Protocol
from oodbench.protocols.cases import cases_of, load_protocols
from oodbench.suites.suite import MAX_SEED, PRETRAINED, Suite, read_suite
from oodbench.trial import Trial

logger = logging.getLogger(__name__)

# One sample alone has nothing to be told from.
MIN_LIMIT = 2


@dataclass(frozen=True)
class Plan:
    """All that a run needs to know before it computes anything.

    Attributes:
        suite: The suite, with what was given instead of its own.
        blueprint: Builds the classifier.
        detectors: The detectors.
        protocols: By name.
        patterns: What the protocols are meant by.
        seeds: Of the classifier's training.
        limit: At most so many samples of each split, if not all.
        skip_missing: Whether to go on without unknown sets that are not there.
        timeout: Seconds that a detector may take, if there is a limit.
    """

    suite: Suite
    blueprint: Blueprint
    detectors: list[Chosen | Broken]
    protocols: dict[str, Protocol]
    patterns: list[str]
    seeds: list[int]
    limit: int | None = None
    skip_missing: bool = False
    timeout: float | None = None

    def facts(self) -> dict[str, Any]:
        """What the journal of a run says of it."""
        return {
            "suite": f"{self.suite.name} {self.suite.version}",
            "classifier": self.suite.classifier,
            "weights": self.suite.weights,
            "datasets": {name: source.adapter for name, source in self.suite.sources().items()},
            "seeds": self.seeds,
            "detectors": [one.label for one in self.detectors],
            "protocols": self.patterns,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class Job:
    """What one process does at a time: a cell of a trial."""

    seed: int
    cell: Cell

    def facts(self) -> dict[str, Any]:
        """What the journal of a run says of it."""
        return {"seed": self.seed, "detector": self.cell.chosen.label, "exposed": self.cell.exposed}


@dataclass(frozen=True)
class Benchmark:
    """A plan and its data: all that trials and jobs are made of.

    Attributes:
        plan: What to run.
        drawn: The samples.
        track: Shows progress.
        download: Whether pretrained weights may be downloaded.
    """

    plan: Plan
    drawn: SuiteData
    track: Track
    download: bool

    @cached_property
    def by_exposure(self) -> dict[tuple[str, ...], list[tuple[str, Case]]]:
        """The cases of all protocols, by what is exposed."""
        found: dict[tuple[str, ...], list[tuple[str, Case]]] = {}
        for protocol, cases in cases_of(self.plan.protocols, self.plan.patterns, self.drawn).items():
            for case in cases:
                found.setdefault(case.exposed, []).append((protocol, case))
        return found

    @property
    def seeds(self) -> list[int]:
        """The seeds."""
        return self.plan.seeds

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells of each seed: one for each detector and exposure that changes it."""
        return [cell for chosen in self.plan.detectors for cell in _cells_of(chosen, self.by_exposure)]

    def jobs(self, seed: int) -> list[Job]:
        """The jobs of a seed, one for each cell."""
        return [Job(seed, cell) for cell in self.cells]

    def trial(self, seed: int) -> Trial:
        """The trained classifier and its data; evidence is collected when it is first asked for."""
        suite, cache, drawn = self.plan.suite, cache_folder(), self.drawn
        classifier = make_classifier(
            suite, self.plan.blueprint, drawn.train, len(drawn.classes), seed, cache, self.track, download=self.download
        )
        _refuse_diverged(suite, classifier, seed)
        exposed = {name for names in self.by_exposure for name in names}
        tested = {name for cases in self.by_exposure.values() for _, case in cases for name in case.tested}
        return Trial(
            suite,
            seed,
            self.plan.limit,
            self.plan.timeout,
            Observatory(classifier, cache, drawn.train.images[0], self.track),
            drawn.train,
            drawn.meta,
            drawn.test,
            {name: split for name, split in drawn.exposed.items() if name in exposed},
            {name: split for name, split in drawn.unknown.items() if name in tested},
            evidence_ms(classifier, drawn.test.images),
        )


def look_up(
    suite: str,
    detectors: str | DetectorPlugin | Sequence[str | DetectorPlugin],
    protocols: str | Sequence[str],
    seeds: Sequence[int] | None,
    *,
    classifier: str | None,
    weights: str | Path | None,
    penultimate: str | None,
    replace: Mapping[str, str] | None,
    plugins: Sequence[str | Path],
    limit: int | None,
    skip_missing: bool,
    timeout: float | None,
) -> Plan:
    """Look up what is named, before any data is read; see ``oodbench.run`` for the arguments.

    Raises:
        OodbenchError: A name or a parameter is wrong, or a package or file is not there.
    """
    for file in plugins:
        registry.load_file(Path(file))
    _check_limit(limit)
    _check_timeout(timeout)
    read = read_suite(suite)
    given = read.with_classifier(classifier, None if weights is None else str(weights), penultimate)
    if read.weights is not None and given.weights is None:
        logger.warning("the weights of the suite are those of its own classifier; %s is trained.", given.classifier)
    return make_plan(
        given, detectors, protocols, seeds, replace or {}, limit=limit, skip_missing=skip_missing, timeout=timeout
    )


def read_data(plan: Plan, *, data: str | Path | None, download: bool, track: Track) -> Benchmark:
    """Read the data of a plan; see ``oodbench.run`` for the arguments.

    Raises:
        OodbenchError: It is not there, or its splits share samples.
    """
    check_folder(cache_folder(), "the cache folder", "one by the environment variable OODBENCH_CACHE")
    drawn = draw_splits(
        plan.suite,
        data_folder(data),
        download=download,
        limit=plan.limit,
        skip_missing=plan.skip_missing,
        track=track,
    )
    for name, looked_for in drawn.missing.items():
        logger.warning("%s is left out: looked for %s.", name, looked_for)
    return Benchmark(plan, drawn, track, download)


def make_plan(
    suite: Suite,
    detectors: str | DetectorPlugin | Sequence[str | DetectorPlugin],
    protocols: str | Sequence[str],
    seeds: Sequence[int] | None,
    replace: Mapping[str, str],
    *,
    limit: int | None = None,
    skip_missing: bool = False,
    timeout: float | None = None,
) -> Plan:
    """Look up everything that is named, so that a wrong name costs no time.

    Raises:
        UsageError: A name or a parameter is wrong.
        MissingPrerequisiteError: A file or package that the classifier needs is not there.
    """
    patterns = [protocols] if isinstance(protocols, str) else list(protocols)
    loaded = load_protocols(patterns)
    read = suite.replacing(dict(replace))
    with read.blamed("classifier"):
        blueprint = find_blueprint(read.classifier, read.code_folders, read.input.channels)
    numbers = _seeds(read, seeds)
    if read.weights is not None and read.weights != PRETRAINED:
        with read.blamed("weights"):
            for seed in numbers:
                weights_file(read.weights, seed)
    check_sources(read)
    wanted = [detectors] if isinstance(detectors, (str, DetectorPlugin)) else detectors
    return Plan(read, blueprint, choose(wanted, timeout), loaded, patterns, numbers, limit, skip_missing, timeout)


def _seeds(suite: Suite, asked_for: Sequence[int] | None) -> list[int]:
    """The seeds that are asked for, or the suite's; a single training has one.

    Raises:
        UsageError: They are no seeds, or several of a single training.
    """
    if asked_for is None:
        return [0] if suite.is_one_training and len(suite.seeds) > 1 else list(suite.seeds)
    numbers = _whole_numbers(asked_for)
    if suite.is_one_training and len(numbers) > 1:
        raise UsageError(
            f"the weights {suite.weights} are those of one training, and {len(numbers)} seeds are asked for; write "
            "{seed} where the names of several files have the seed, or ask for one seed."
        )
    return numbers


def _whole_numbers(seeds: Sequence[int]) -> list[int]:
    """The seeds, each once; whoever calls from Python may give anything.

    Raises:
        UsageError: They are no seeds.
    """
    try:
        numbers = list(dict.fromkeys(operator.index(seed) for seed in seeds))
    except TypeError:
        numbers = []
    if not numbers or min(numbers) < 0 or max(numbers) > MAX_SEED:
        raise UsageError(f"the seeds are {seeds!r}; expected one or more whole numbers from 0 to {MAX_SEED}.")
    return numbers


def _cells_of(chosen: Chosen | Broken, by_exposure: Mapping[tuple[str, ...], Sequence[tuple[str, Case]]]) -> list[Cell]:
    """One cell for each exposure, or a single one where the detector learns nothing from exposed samples."""
    if isinstance(chosen, Chosen) and chosen.plugin.fitted_on == "exposed":
        return [Cell(chosen, exposure, tuple(cases)) for exposure, cases in by_exposure.items()]
    return [Cell(chosen, (), tuple(case for cases in by_exposure.values() for case in cases))]


def _refuse_diverged(suite: Suite, classifier: Classifier, seed: int) -> None:
    """Say it once, rather than by every detector that is given logits of NaN.

    Raises:
        OodbenchError: A weight is NaN or infinite.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in classifier.network.state_dict().values()):
        raise OodbenchError(
            f"the training of the classifier {classifier.name} with seed {seed} diverged to weights of NaN or "
            f"infinity; lower training.learning_rate of the suite {suite.name} from {suite.training.learning_rate}."
        )


def _check_limit(limit: int | None) -> None:
    if limit is not None and (not isinstance(limit, int) or limit < MIN_LIMIT):
        raise UsageError(f"the limit is {limit!r}; expected a whole number from {MIN_LIMIT}, or None.")


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout > 0:
        raise UsageError(f"the time limit is {timeout!r}; expected a number of seconds above 0, or None.")
