"""A run: from a suite and detectors to records, each expensive step once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from oodbench.detectors.plugin import DetectorPlugin
from oodbench.errors import UsageError
from oodbench.evidence.collection import processors
from oodbench.execution.asked import Asked
from oodbench.execution.errand import Site
from oodbench.execution.outcome import Outcome, outcome
from oodbench.execution.serial import run_serially
from oodbench.execution.surroundings import surroundings
from oodbench.journal.events import tell
from oodbench.journal.writing import journal
from oodbench.plan import look_up, read_data
from oodbench.progress import Track, silent
from oodbench.records.record import Record
from oodbench.records.store import Rerun, Store

Executor = Literal["serial", "dask"]
"""Who runs the jobs: this process, or those of a Dask cluster."""

DEFAULT_OUT = Path("oodbench-results")


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
    executor: Executor = "serial",
    scheduler: str | None = None,
    workers: int | None = None,
    resources: Mapping[str, float] | None = None,
    log_file: str | Path | None = None,
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
        executor: Who runs the jobs: this process, or ``dask``, which starts processes on this machine or uses a
            cluster; a script that starts them needs ``if __name__ == "__main__":``. The numbers are the same.
        scheduler: Address of a Dask scheduler that runs already.
        workers: How many processes are started otherwise; by default, one a processor.
        resources: What a job takes of a worker's Dask resources, such as ``{"GPU": 1}``.
        log_file: Where events are written to, a line of JSON each, beside the journal in ``out``.
        track: Shows progress.

    Returns:
        One record for each cell.

    Raises:
        OodbenchError: Nothing could be run (a cell that fails is a record instead), a seed has no classifier, or cells
            that were run again gave other scores than their finished records. The records of all others are kept.
    """
    found = execute(
        suite,
        detectors,
        protocols,
        seeds,
        classifier=classifier,
        weights=weights,
        penultimate=penultimate,
        data=data,
        download=download,
        replace=replace,
        plugins=plugins,
        out=out,
        limit=limit,
        skip_missing=skip_missing,
        timeout=timeout,
        rerun=rerun,
        executor=executor,
        scheduler=scheduler,
        workers=workers,
        resources=resources,
        log_file=log_file,
        track=track,
    )
    if found.problem is not None:
        raise found.problem
    return list(found.records)


def execute(
    suite: str,
    detectors: str | DetectorPlugin | Sequence[str | DetectorPlugin],
    protocols: str | Sequence[str],
    seeds: Sequence[int] | None,
    *,
    classifier: str | None,
    weights: str | Path | None,
    penultimate: str | None,
    data: str | Path | None,
    download: bool,
    replace: Mapping[str, str] | None,
    plugins: Sequence[str | Path],
    out: str | Path,
    limit: int | None,
    skip_missing: bool,
    timeout: float | None,
    rerun: Rerun,
    executor: Executor,
    scheduler: str | None,
    workers: int | None,
    resources: Mapping[str, float] | None,
    log_file: str | Path | None,
    track: Track,
) -> Outcome:
    """What ``run`` does, with what there is to be said beside the records; see there for the arguments.

    Raises:
        OodbenchError: Nothing could be run.
    """
    _check_executor(executor, scheduler, workers, resources)
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
    if executor == "dask":
        asked = _asked(
            suite=suite,
            detectors=[detectors] if isinstance(detectors, (str, DetectorPlugin)) else list(detectors),
            protocols=[protocols] if isinstance(protocols, str) else list(protocols),
            seeds=plan.seeds,
            classifier=classifier,
            weights=None if weights is None else str(weights),
            penultimate=penultimate,
            replace=dict(replace or {}),
            plugins=[str(file) for file in plugins],
            limit=limit,
            skip_missing=skip_missing,
            timeout=timeout,
        )
    store = Store.open(Path(out), rerun)
    with journal(
        store.out, None if log_file is None else Path(log_file), **plan.facts(), rerun=rerun, executor=executor
    ):
        benchmark = read_data(plan, data=data, download=download, track=track)
        tell("data read", jobs=dict.fromkeys(benchmark.seeds, len(benchmark.cells)))
        if executor == "serial":
            return outcome(run_serially(benchmark, store), store)

        from oodbench.execution.dask import Cluster, run_on_dask

        site = Site(
            asked=asked,
            data=None if data is None else str(data),
            download=download,
            folder=str(Path.cwd()),
            surroundings=surroundings(benchmark),
        )
        where = Cluster(scheduler, workers or processors(), resources or {})
        return outcome(run_on_dask(benchmark, store, site, where), store)


def _asked(detectors: Sequence[str | DetectorPlugin], **others: Any) -> Asked:  # noqa: ANN401
    """What another process can be given.

    Raises:
        UsageError: A detector is an object of this process.
    """
    for one in detectors:
        if isinstance(one, DetectorPlugin):
            raise UsageError(
                f"the detector {one.name} is known to this process alone; write it to a file, and give that as plugin "
                "and its name as detector."
            )
    return Asked.model_validate({"detectors": detectors, **others})


def _check_executor(
    executor: str, scheduler: str | None, workers: int | None, resources: Mapping[str, float] | None
) -> None:
    if executor not in get_args(Executor):
        raise UsageError(f"the executor is {executor!r}; expected one of: {', '.join(get_args(Executor))}.")
    if executor == "serial" and (scheduler or workers or resources):
        raise UsageError("scheduler, workers and resources are those of the executor dask; name that, too.")
    if scheduler is not None and workers is not None:
        raise UsageError("the workers of a running scheduler are what they are; leave workers out, or the scheduler.")
    if workers is not None and workers < 1:
        raise UsageError(f"the number of workers is {workers!r}; expected a whole number from 1, or None.")
    for name, amount in (resources or {}).items():
        if not amount > 0:
            raise UsageError(f"the resource {name} is {amount!r}; expected a number above 0.")
