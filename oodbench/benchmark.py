"""A run: from a suite and detectors to records, each expensive step once."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from oodbench import registry
from oodbench.atomic import check_folder
from oodbench.datasets.splits import draw_splits
from oodbench.detectors.plugin import DetectorPlugin
from oodbench.errors import OodbenchError, UsageError
from oodbench.execution.serial import run_serially
from oodbench.folders import cache_folder, data_folder
from oodbench.plan import Benchmark, Plan, make_plan
from oodbench.progress import Track, silent
from oodbench.records.record import Record
from oodbench.records.store import Rerun, Store
from oodbench.suites.suite import read_suite

logger = logging.getLogger(__name__)

DEFAULT_OUT = Path("oodbench-results")
# One sample alone has nothing to be told from.
MIN_LIMIT = 2


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
    rerun: Rerun = "failed",
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
        rerun: Which cells are run that have a record in ``out`` already: none (``missing``), those that failed, or all;
            a finished record is never overwritten.
        track: Shows progress.

    Returns:
        One record for each cell.

    Raises:
        OodbenchError: Nothing could be run (a cell that fails is a record instead), or cells that were run again gave
            other scores than their finished records.
    """
    plan = look_up(
        suite,
        detectors,
        protocols,
        seeds,
        classifier=classifier,
        weights=weights,
        penultimate=penultimate,
        replace=replace,
        plugins=plugins,
        limit=limit,
        skip_missing=skip_missing,
        timeout=timeout,
    )
    store = Store.open(Path(out), rerun)
    benchmark = read_data(plan, data=data, download=download, track=track)
    return complete(run_serially(benchmark, store), store)


def complete(records: Iterable[Record], store: Store) -> list[Record]:
    """All records, when they are there.

    Raises:
        OodbenchError: Cells that were run again gave other scores than their finished records.
    """
    found = list(records)
    if store.conflicts:
        raise OodbenchError(
            f"{len(store.conflicts)} cells gave other scores than their finished records, which are kept: "
            f"{', '.join(store.conflicts)}."
        )
    return found


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
    """Look up what is named, before any data is read; see ``run`` for the arguments.

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
    """Read the data of a plan; see ``run`` for the arguments.

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


def _check_limit(limit: int | None) -> None:
    if limit is not None and (not isinstance(limit, int) or limit < MIN_LIMIT):
        raise UsageError(f"the limit is {limit!r}; expected a whole number from {MIN_LIMIT}, or None.")


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout > 0:
        raise UsageError(f"the time limit is {timeout!r}; expected a number of seconds above 0, or None.")
