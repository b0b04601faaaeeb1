"""Doing a run: from the arguments of the user to records."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from oodbench.detectors.plugin import DetectorPlugin
from oodbench.errors import OodbenchError, UsageError
from oodbench.execution.serial import Serial
from oodbench.files.folders import RESULTS
from oodbench.journal.events import tell
from oodbench.journal.writing import journal
from oodbench.machine.progress import Track, silent
from oodbench.records.record import Record
from oodbench.records.store import Rerun, Store
from oodbench.runs.given import NOTHING, GivenObjects, take_objects
from oodbench.runs.prepared import PreparedRun, prepare_run
from oodbench.runs.resolved import resolve_run
from oodbench.runs.settings import Executor, RunSettings
from oodbench.runs.spec import RunSpec, make_spec
from oodbench.runs.summary import RunSummary, summarize

if TYPE_CHECKING:
    from torch import nn

EXECUTORS = ("serial", "dask")


def run(
    suite: str | Path = "digits",
    detectors: str | DetectorPlugin | Sequence[str | DetectorPlugin] = ("*",),
    protocols: str | Sequence[str] = ("*",),
    seeds: Sequence[int] | None = None,
    *,
    classifier: "str | nn.Module | Callable[..., nn.Module] | None" = None,
    weights: "str | Path | Mapping[str, Any] | None" = None,
    transform: str | Callable[..., Any] | None = None,
    penultimate: str | None = None,
    data: str | Path | None = None,
    download: bool = False,
    replace: Mapping[str, str] | None = None,
    plugins: Sequence[str | Path] = (),
    out: str | Path = RESULTS,
    limit: int | None = None,
    skip_missing: bool = False,
    skip_unreadable: bool = False,
    drop_shared: bool = False,
    trust_model: bool = False,
    timeout: float | None = None,
    device: str = "auto",
    precision: Literal["fp32", "amp"] = "fp32",
    batch: int | None = None,
    rerun: Rerun = "failed",
    executor: Literal["serial", "dask"] | Executor = "serial",
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
            ``torchvision:NAME``, ``timm:NAME`` or ``openood:NAME``; or a network itself, or a function that builds one.
        weights: File of its weights, or ``pretrained``; nothing is trained then. ``{seed}`` in its name stands for the
            seed. Or a state dict. A network that is given itself has its own weights.
        transform: ``file.py:function``, or a function itself, from a PIL image to float32 (C, H, W): it stands instead
            of the suite's preprocessing.
        penultimate: Name of the Linear layer whose input are the penultimate features, where it is not to be found.
        data: Folder of the data sets; by default ``$OODBENCH_DATA``, else a folder of the user.
        download: Whether data sets and pretrained weights that are not there may be downloaded.
        replace: Other adapters for data sets of the suite, such as ``{"cifar10": "imagefolder:PATH"}``.
        plugins: Local Python files that declare plugins.
        out: Folder of the results.
        limit: At most so many samples of each split that is fitted or tested on, to try something out.
        skip_missing: Whether to go on without unknown sets that are not there.
        skip_unreadable: Whether to go on without images that cannot be read; records say how many.
        drop_shared: Whether images that an unknown set shares with another set are taken from it; records say how many.
        trust_model: Whether to go on although the outputs of the classifier are strange; records say what was found.
        timeout: Seconds that a detector may take to be loaded, and to be fitted and score everything; one that takes
            longer fails.
        device: Where networks compute: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``auto`` takes a GPU of CUDA if there
            is one. Records have its type, as scores are the same to float32 accuracy only between types.
        precision: ``fp32``, or ``amp`` for automatic mixed precision (bfloat16) when the classifier is trained and
            evidence is collected; records say so.
        batch: Number of samples that the network gets at once when evidence is collected; by default as many as suit
            the images, and half as many as long as the memory does not suffice.
        rerun: Which cells are run that have a record in ``out`` already: none (``missing``), those that failed, or all;
            a finished record is never overwritten.
        executor: Who runs the jobs: this process, or ``dask``, which starts processes on this machine or uses a
            cluster; a script that starts them needs ``if __name__ == "__main__":``. The numbers are the same. Or an
            object that does it, such as ``oodbench.execution.dask.Dask(workers=4)``.
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
    arguments = locals()  # among them all fields of the specification
    values, given = take_objects({name: arguments[name] for name in RunSpec.model_fields})
    spec = make_spec(values)
    settings = RunSettings(
        executor=find_executor(executor, scheduler=scheduler, workers=workers, resources=resources or {}),
        data=None if data is None else Path(data),
        download=download,
        out=Path(out),
        rerun=rerun,
        log_file=None if log_file is None else Path(log_file),
        track=track,
    )
    summary = execute(spec, settings, given)
    if summary.problem is not None:
        raise summary.problem
    return list(summary.records)


def execute(spec: RunSpec, settings: RunSettings, given: GivenObjects = NOTHING) -> RunSummary:
    """Do a run, and return its result.

    Args:
        spec: What is run.
        settings: Where and how it is run.
        given: Objects that were given instead of names.

    Raises:
        OodbenchError: Nothing could be run.
    """
    executor = settings.executor
    resolved = resolve_run(spec, given)
    executor.check(resolved)
    store = Store.open(settings.out, settings.rerun)
    facts = resolved.facts()
    with journal(store.out, settings.log_file, **facts, rerun=settings.rerun, executor=executor.name):
        run = prepare_run(resolved, data=settings.data, download=settings.download, track=settings.track)
        run.say_remarks()
        tell("data read", jobs={seed: len(jobs) for seed, jobs in run.all_jobs.items()})
        summary = summarize(executor.records(run, store, settings), store)
        _require_all(run, summary, executor)
        return summary


def _require_all(run: PreparedRun, summary: RunSummary, executor: Executor) -> None:
    """Refuse to take a part for the whole, whatever an executor does.

    Raises:
        OodbenchError: Cells have no record, though their seeds did not fail.
    """
    cells = sum(len(job.cases) for seed, jobs in run.all_jobs.items() if seed not in summary.failed for job in jobs)
    if len(summary.records) != cells:
        raise OodbenchError(
            f"the executor {executor.name} gave {len(summary.records)} records of {cells} cells; expected all of them, "
            "so run again what is missing."
        )


def find_executor(executor: str | Executor, **options: Any) -> Executor:  # noqa: ANN401
    """The executor of a name.

    Args:
        executor: A name, or an executor, which is returned.
        options: Options of Dask.

    Raises:
        UsageError: No executor has this name, or it has no such options.
    """
    chosen = {name: value for name, value in options.items() if value not in (None, {})}
    if executor == "dask":
        from oodbench.execution.dask import Dask

        return Dask(**{name: value for name, value in options.items() if value is not None})
    if chosen:
        raise UsageError("scheduler, workers and resources are those of the executor dask; name that, too.")
    if executor == "serial":
        return Serial()
    if isinstance(executor, str | type) or not all(hasattr(executor, name) for name in ("name", "check", "records")):
        expected = f"{', '.join(EXECUTORS)}, or an object with name, check and records"
        raise UsageError(f"the executor is {executor!r}; expected one of: {expected}.")
    return executor
