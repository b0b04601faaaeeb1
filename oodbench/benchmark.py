"""A run: from a suite and detectors to records, each expensive step once."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oodbench import registry
from oodbench.cells import Cell, Trial, run_cell
from oodbench.classifiers.store import trained_classifier
from oodbench.datasets.splits import Split, SuiteData, draw_splits
from oodbench.detectors.plugin import DetectorPlugin
from oodbench.detectors.selection import Chosen, choose
from oodbench.errors import UsageError
from oodbench.evidence.store import evidence_of
from oodbench.folders import cache_folder, data_folder
from oodbench.progress import Track, silent
from oodbench.protocols.case import Case, Protocol
from oodbench.protocols.leak_guard import refuse_leaks
from oodbench.records.record import Record
from oodbench.records.store import check_writable
from oodbench.scoring import Observed
from oodbench.suites.suite import Suite, read_suite
from oodbench.threads import single_threaded

logger = logging.getLogger(__name__)

DEFAULT_OUT = Path("oodbench-results")


@dataclass(frozen=True)
class Plan:
    """All that a run needs to know before it computes anything."""

    suite: Suite
    detectors: list[Chosen]
    protocols: dict[str, Protocol]
    seeds: list[int]


def run(
    suite: str = "digits",
    detectors: Sequence[str | DetectorPlugin] = ("*",),
    protocols: Sequence[str] = ("*",),
    seeds: Sequence[int] | None = None,
    *,
    data: str | Path | None = None,
    download: bool = False,
    replace: Mapping[str, str] | None = None,
    plugins: Sequence[str | Path] = (),
    out: str | Path = DEFAULT_OUT,
    limit: int | None = None,
    skip_missing: bool = False,
    track: Track = silent,
) -> list[Record]:
    """Run detectors on a suite; the same as ``oodbench run``.

    Args:
        suite: Name of a suite, or a TOML file.
        detectors: Names, globs (``grad-*``), names with parameters (``grad-l2:layer=conv1``), or plugins.
        protocols: Names or globs.
        seeds: Seeds of the classifier's training; by default the suite's.
        data: Folder of the data sets; by default ``$OODBENCH_DATA``, else a folder of the user.
        download: Whether data sets that are not there may be downloaded.
        replace: Other adapters for data sets of the suite, such as ``{"cifar10": "imagefolder:PATH"}``.
        plugins: Local Python files that declare plugins.
        out: Folder of the results.
        limit: At most so many samples of each split that is fitted or tested on, to try something out.
        skip_missing: Whether to go on without unknown sets that are not there.
        track: Shows progress.

    Returns:
        One record for each cell.

    Raises:
        OodbenchError: Nothing could be run; a cell that fails is a record instead.
    """
    for file in plugins:
        registry.load_file(Path(file))
    plan = make_plan(suite, detectors, protocols, seeds, replace or {})
    check_writable(Path(out))
    drawn = draw_splits(
        plan.suite, data_folder(data), download=download, limit=limit, skip_missing=skip_missing, track=track
    )
    for name, looked_for in drawn.missing.items():
        logger.warning("%s is left out: looked for %s.", name, looked_for)
    return list(_cells(plan, drawn, Path(out), limit, track))


def make_plan(
    suite: str,
    detectors: Sequence[str | DetectorPlugin],
    protocols: Sequence[str],
    seeds: Sequence[int] | None,
    replace: Mapping[str, str],
) -> Plan:
    """Look up everything that is named, so that a wrong name costs no time.

    Raises:
        UsageError: A name, a parameter or the suite file is wrong.
    """
    names = list(dict.fromkeys(name for pattern in protocols for name in registry.matching("protocols", pattern)))
    read = read_suite(suite).replacing(dict(replace))
    registry.get("classifiers", read.classifier)
    for source in read.sources().values():
        registry.get("datasets", source.adapter)
    chosen_seeds = list(dict.fromkeys(read.seeds if seeds is None else seeds))
    if not chosen_seeds or min(chosen_seeds) < 0:
        raise UsageError(f"the seeds are {chosen_seeds}; expected one or more whole numbers from 0.")
    return Plan(read, choose(detectors), {name: registry.load("protocols", name) for name in names}, chosen_seeds)


def _cells(plan: Plan, drawn: SuiteData, out: Path, limit: int | None, track: Track) -> Iterator[Record]:
    """Run all cells, grouped so that a classifier, its evidence and a fitted detector are made once."""
    cases = {name: _cases(name, protocol, drawn) for name, protocol in plan.protocols.items()}
    by_exposure: dict[tuple[str, ...], list[tuple[str, Case]]] = {}
    for protocol, of_protocol in cases.items():
        for case in of_protocol:
            by_exposure.setdefault(case.exposed, []).append((protocol, case))
    exposed = {name for names in by_exposure for name in names}
    tested = {name for of_protocol in cases.values() for case in of_protocol for name in case.tested}
    for seed in plan.seeds:
        trial = _trial(plan.suite, drawn, exposed, tested, seed, limit, track)
        group = [
            Cell(chosen, exposure, tuple(protocols))
            for exposure, protocols in by_exposure.items()
            for chosen in plan.detectors
        ]
        with single_threaded():
            for cell in track(group, len(group), f"detectors, seed {seed}"):
                yield from run_cell(trial, cell, out)


def _cases(name: str, protocol: Protocol, drawn: SuiteData) -> list[Case]:
    """The cases of a protocol, after the leak guard has seen them."""
    try:
        cases = list(protocol(list(drawn.unknown)))
    except Exception as cause:
        raise UsageError(f"the protocol {name} raised {type(cause).__name__}: {cause}.") from cause
    for case in cases:
        if not isinstance(case, Case):
            raise UsageError(f"the protocol {name} returned a {type(case).__name__}; expected oodbench Cases.")
        strange = [one for one in (*case.exposed, *case.tested) if one not in drawn.unknown]
        if strange:
            raise UsageError(f"the protocol {name} asks for {strange[0]!r}; the suite has {', '.join(drawn.unknown)}.")
        refuse_leaks(drawn, case)
    return cases


def _trial(
    suite: Suite, drawn: SuiteData, exposed: set[str], tested: set[str], seed: int, limit: int | None, track: Track
) -> Trial:
    cache = cache_folder()
    classifier = trained_classifier(suite, drawn.train, len(drawn.classes), seed, cache, track)

    def observe(split: Split) -> Observed:
        return Observed(split, evidence_of(classifier, split, cache, track))

    return Trial(
        suite,
        seed,
        limit,
        classifier,
        drawn.train,
        observe(drawn.meta),
        observe(drawn.test),
        {name: observe(split) for name, split in drawn.exposed.items() if name in exposed},
        {name: observe(split) for name, split in drawn.unknown.items() if name in tested},
    )
