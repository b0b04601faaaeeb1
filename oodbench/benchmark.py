"""A run: from a suite and detectors to records, each expensive step once."""

import logging
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from oodbench import registry
from oodbench.atomic import check_folder
from oodbench.cells import Cell, run_cell
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
from oodbench.progress import Track, silent
from oodbench.protocols.case import Case, Protocol
from oodbench.protocols.cases import cases_of, load_protocols
from oodbench.records.record import Record
from oodbench.records.store import check_writable
from oodbench.suites.suite import MAX_SEED, PRETRAINED, Suite, read_suite
from oodbench.threads import single_threaded
from oodbench.trial import Trial

logger = logging.getLogger(__name__)

DEFAULT_OUT = Path("oodbench-results")
# Times the accuracy of guessing that a classifier should have.
HARDLY = 1.5
# One sample alone has nothing to be told from.
MIN_LIMIT = 2


@dataclass(frozen=True)
class Plan:
    """All that a run needs to know before it computes anything; ``patterns`` are what the protocols are meant by."""

    suite: Suite
    blueprint: Blueprint
    detectors: list[Chosen | Broken]
    protocols: dict[str, Protocol]
    patterns: list[str]
    seeds: list[int]


def run(
    suite: str = "digits",
    detectors: str | DetectorPlugin | Sequence[str | DetectorPlugin] = ("*",),
    protocols: str | Sequence[str] = ("*",),
    seeds: Sequence[int] | None = None,
    *,
    classifier: str | None = None,
    weights: str | Path | None = None,
    penultimate: str | None = None,
    data: str | Path | None = None,
    download: bool = False,
    replace: Mapping[str, str] | None = None,
    plugins: Sequence[str | Path] = (),
    out: str | Path = DEFAULT_OUT,
    limit: int | None = None,
    skip_missing: bool = False,
    timeout: float | None = None,
    track: Track = silent,
) -> list[Record]:
    """Run detectors on a suite; the same as ``oodbench run``.

    Args:
        suite: Name of a suite, or a TOML file.
        detectors: Names, globs (``grad-*``), names with parameters (``grad-l2:layer=conv1``), or plugins.
        protocols: Names or globs.
        seeds: Seeds of the classifier's training; by default the suite's.
        classifier: Another classifier than the suite's: the name of a plugin, ``module:factory``, ``file.py:factory``,
            ``torchvision:NAME`` or ``timm:NAME``.
        weights: File of its weights, or ``pretrained``; nothing is trained then. ``{seed}`` in its name stands for the
            seed.
        penultimate: Name of the Linear layer whose input are the penultimate features, where it is not to be found.
        data: Folder of the data sets; by default ``$OODBENCH_DATA``, else a folder of the user.
        download: Whether data sets and pretrained weights that are not there may be downloaded.
        replace: Other adapters for data sets of the suite, such as ``{"cifar10": "imagefolder:PATH"}``.
        plugins: Local Python files that declare plugins.
        out: Folder of the results.
        limit: At most so many samples of each split that is fitted or tested on, to try something out.
        skip_missing: Whether to go on without unknown sets that are not there.
        timeout: Seconds that a detector may take to be loaded, and to be fitted and score everything; one that takes
            longer fails.
        track: Shows progress.

    Returns:
        One record for each cell.

    Raises:
        OodbenchError: Nothing could be run; a cell that fails is a record instead.
    """
    for file in plugins:
        registry.load_file(Path(file))
    _check_limit(limit)
    _check_timeout(timeout)
    read = read_suite(suite)
    given = read.with_classifier(classifier, None if weights is None else str(weights), penultimate)
    if read.weights is not None and given.weights is None:
        logger.warning("the weights of the suite are those of its own classifier; %s is trained.", given.classifier)
    plan = make_plan(given, detectors, protocols, seeds, replace or {}, timeout)
    check_writable(Path(out))
    check_folder(cache_folder(), "the cache folder", "one by the environment variable OODBENCH_CACHE")
    drawn = draw_splits(
        plan.suite, data_folder(data), download=download, limit=limit, skip_missing=skip_missing, track=track
    )
    for name, looked_for in drawn.missing.items():
        logger.warning("%s is left out: looked for %s.", name, looked_for)
    return list(_cells(plan, drawn, Path(out), limit, timeout, track, download=download))


def make_plan(
    suite: Suite,
    detectors: str | DetectorPlugin | Sequence[str | DetectorPlugin],
    protocols: str | Sequence[str],
    seeds: Sequence[int] | None,
    replace: Mapping[str, str],
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
    return Plan(read, blueprint, choose(wanted, timeout), loaded, patterns, numbers)


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


def _check_limit(limit: int | None) -> None:
    if limit is not None and (not isinstance(limit, int) or limit < MIN_LIMIT):
        raise UsageError(f"the limit is {limit!r}; expected a whole number from {MIN_LIMIT}, or None.")


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout > 0:
        raise UsageError(f"the time limit is {timeout!r}; expected a number of seconds above 0, or None.")


def _cells(
    plan: Plan,
    drawn: SuiteData,
    out: Path,
    limit: int | None,
    timeout: float | None,
    track: Track,
    *,
    download: bool,
) -> Iterator[Record]:
    """Run all cells, grouped so that a classifier, its evidence and a fitted detector are made once."""
    cases = cases_of(plan.protocols, plan.patterns, drawn)
    by_exposure: dict[tuple[str, ...], list[tuple[str, Case]]] = {}
    for protocol, of_protocol in cases.items():
        for case in of_protocol:
            by_exposure.setdefault(case.exposed, []).append((protocol, case))
    exposed = {name for names in by_exposure for name in names}
    tested = {name for of_protocol in cases.values() for case in of_protocol for name in case.tested}
    for seed in plan.seeds:
        trial = _trial(plan, drawn, exposed, tested, seed, limit, timeout, track, download=download)
        group = [cell for chosen in plan.detectors for cell in _cells_of(chosen, by_exposure)]
        with single_threaded():
            for cell in track(group, len(group), f"detectors, seed {seed}"):
                yield from run_cell(trial, cell, out)


def _cells_of(chosen: Chosen | Broken, by_exposure: Mapping[tuple[str, ...], Sequence[tuple[str, Case]]]) -> list[Cell]:
    """One cell for each exposure, or a single one where the detector learns nothing from exposed samples."""
    if isinstance(chosen, Chosen) and chosen.plugin.fitted_on == "exposed":
        return [Cell(chosen, exposure, tuple(cases)) for exposure, cases in by_exposure.items()]
    return [Cell(chosen, (), tuple(case for cases in by_exposure.values() for case in cases))]


def _trial(
    plan: Plan,
    drawn: SuiteData,
    exposed: set[str],
    tested: set[str],
    seed: int,
    limit: int | None,
    timeout: float | None,
    track: Track,
    *,
    download: bool,
) -> Trial:
    suite, cache = plan.suite, cache_folder()
    classifier = make_classifier(
        suite, plan.blueprint, drawn.train, len(drawn.classes), seed, cache, track, download=download
    )
    _refuse_diverged(suite, classifier, seed)
    trial = Trial(
        suite,
        seed,
        limit,
        timeout,
        Observatory(classifier, cache, drawn.train.images[0], track),
        drawn.train,
        drawn.meta,
        drawn.test,
        {name: split for name, split in drawn.exposed.items() if name in exposed},
        {name: split for name, split in drawn.unknown.items() if name in tested},
        evidence_ms(classifier, drawn.test.images),
    )
    for split in trial.scored():
        trial.observatory.evidence(split)
    if trial.accuracy < HARDLY / len(drawn.classes):
        logger.warning(
            "the classifier %s with seed %d is right on %.1f %% of the known test samples of %d classes, which is "
            "hardly better than chance: train it for more epochs, or look at its weights and input.",
            classifier.name,
            seed,
            100 * trial.accuracy,
            len(drawn.classes),
        )
    return trial


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
