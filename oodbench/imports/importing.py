"""Makes records of imported scores."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oodbench.errors import MissingPrerequisiteError, UsageError, listed, printable
from oodbench.evaluation.metrics import best_threshold
from oodbench.evaluation.results import Memo, Samples, results
from oodbench.files.bounded_io import MIB, UnreadableError, read_limited
from oodbench.files.folders import RESULTS
from oodbench.imports.openood import read_openood
from oodbench.imports.scores import ImportedScores, ScoredSet
from oodbench.imports.tables import read_csv, read_npz, read_parquet_table
from oodbench.machine.progress import Track, silent
from oodbench.records.files import InvalidRecordError, order_of, record_files
from oodbench.records.record import (
    IDENTITY_VERSION,
    NO_VERSION,
    Imported,
    Provenance,
    Record,
    RecordedClassifier,
    RecordedDataset,
    RecordedDetector,
    RecordedSuite,
    imported_cell_id,
)
from oodbench.records.scored import samples
from oodbench.records.store import SetScores, Store, score_file
from oodbench.registry.parameters import split_spec
from oodbench.suites.schema import MAX_SEED

logger = logging.getLogger(__name__)

LARGEST = 256 * MIB
FORMATS: Mapping[str, Callable[[bytes, Path, str], ImportedScores]] = {
    "openood": read_openood,
    "npz": read_npz,
    "csv": read_csv,
    "parquet": read_parquet_table,
}
KNOWN, UNKNOWN = "known", "unknown-unknowns"
SOURCE = "not known: its scores were imported"


@dataclass(frozen=True)
class _Pending:
    """A record before its results are computed, with the scores that they are of."""

    cell_id: str
    fields: Mapping[str, Any]
    scores: ImportedScores


def import_scores(
    form: str,
    files: Sequence[str | Path],
    suite: str,
    detector: str,
    *,
    out: str | Path = RESULTS,
    seeds: Sequence[int] = (),
    known: str = "known",
    classifier: str = "",
    protocols: Sequence[str] = (KNOWN, UNKNOWN),
    track: Track = silent,
) -> list[Record]:
    """Make records of scores that were computed elsewhere; the same as ``oodbench import``.

    What the files do not say is left empty in the records: the hashes of weights and data, versions, times. Nothing is
    written before all files are read. A file that was imported already makes no second record.

    Args:
        form: ``openood``, ``npz``, ``csv`` or ``parquet``; ``oodbench import --help`` has their layouts.
        files: One for each seed.
        suite: Name of the suite that tables and boards show.
        detector: Name of the detector, perhaps with parameters: ``scale:percentile=85``.
        out: Folder of the results.
        seeds: The seed of each file, in order; by default the number after ``s`` in the file's name, as in
            ``scale_s0.pkl``, or in that of a folder above, as in ``s0/scores/scale.pkl``.
        known: Name of the known set, which only files of OpenOOD lack.
        classifier: Name of the classifier, if it is known.
        protocols: ``known`` for wrong against right predictions on known samples, ``unknown-unknowns`` for unknown
            against known ones.
        track: Shows progress.

    Returns:
        A record for each file and protocol.

    Raises:
        UsageError: A file cannot be read or has other content, or another file was imported as the same detector and
            seed.
    """
    if form not in FORMATS:
        raise UsageError(f"the format is {form!r}; expected one of: {', '.join(FORMATS)}.")
    strange = [name for name in protocols if name not in (KNOWN, UNKNOWN)]
    if strange or not protocols:
        found = repr(strange[0]) if strange else "missing"
        raise UsageError(
            f"the protocol is {found}; expected {KNOWN} or {UNKNOWN}, as imported scores are exposed to none."
        )
    recorded_suite, recorded_detector = _suite(suite), _detector(detector)
    paths = [Path(file) for file in files]
    pending: list[_Pending] = []
    for file, seed in zip(paths, _seeds(paths, seeds), strict=True):
        scores, imported = _read(form, file, known)
        for protocol in dict.fromkeys(protocols):
            fields = {"suite": recorded_suite, "protocol": protocol, "seed": seed, "detector": recorded_detector}
            pending.append(_pending(fields, scores, imported, classifier))
    there = _records_in(Path(out), recorded_suite)
    _refuse_equal_files(pending)
    _refuse_other_files(there, pending)
    _refuse_other_samples(there, pending)
    store = Store.open(Path(out), "missing")
    memo: Memo = {}
    finished = store.finished_of([one.cell_id for one in pending])
    return [
        finished[one.cell_id] if one.cell_id in finished else _kept(one, store, memo)
        for one in track(pending, len(pending), "computing results")
    ]


def _suite(name: str) -> RecordedSuite:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"the suite is {printable(name)!r}; expected letters, digits, dots, underscores and hyphens.")
    return RecordedSuite(name=name, version=NO_VERSION)


def _detector(spec: str) -> RecordedDetector:
    name, parameters = split_spec(spec)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", name):
        raise UsageError(
            f"the detector is {printable(spec)!r}; expected letters, digits, dots, underscores and hyphens, and "
            "perhaps parameters, such as scale:percentile=85."
        )
    return RecordedDetector(name=name, version="", params=parameters, distribution="", given=list(parameters))


def _seeds(files: Sequence[Path], given: Sequence[int]) -> list[int]:
    """The seed of each file."""
    if not files:
        raise UsageError("there is no file; expected one for each seed.")
    if given and len(given) != len(files):
        raise UsageError(f"there are {len(given)} seeds for {len(files)} files; expected one for each, in their order.")
    seeds = list(given) or [_seed_in_name(file) for file in files]
    for seed, file in zip(seeds, files, strict=True):
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(f"the seed of {file} is {seed}; expected one from 0 to {MAX_SEED}.")
        same = [str(other) for other, of_other in zip(files, seeds, strict=True) if of_other == seed]
        if len(same) > 1:
            raise UsageError(
                f"the seed {seed} is that of {listed(same)}; expected one file for each seed, so give --seed for each."
            )
    return seeds


def _seed_in_name(file: Path) -> int:
    """The number after ``s`` in the name of a file, or in that of the nearest folder ``s0`` above it."""
    in_name = re.findall(r"(?<![A-Za-z0-9])s(\d+)(?![A-Za-z0-9])", file.stem)
    above = [folder.name[1:] for folder in file.absolute().parents if re.fullmatch(r"s\d+", folder.name)]
    found = in_name or above[:1]
    if len(found) != 1:
        raise UsageError(
            f"the seed of {file} is not to be seen; expected a name such as scale_s0.pkl or s0/scale.pkl, or --seed "
            "for each file, in their order."
        )
    return int(found[0])


def _read(form: str, file: Path, known: str) -> tuple[ImportedScores, Imported]:
    """The scores of a file, and what records say of it."""
    try:
        content = read_limited(file, LARGEST)
    except OSError as cause:
        raise UsageError(f"{file} cannot be read: {cause.strerror}; expected a file of scores.") from cause
    except UnreadableError as cause:
        raise UsageError(f"{file} {cause}.") from cause
    scores = FORMATS[form](content, file, known)
    for sentence in scores.left_out:
        logger.warning("%s: %s.", file, printable(sentence))
    names = [one.name for one in (scores.known, *scores.unknown)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(
            f"{file} has two sets of the name {twice[0]!r}; expected each name once, and another one for the known set "
            "by --known if need be."
        )
    return scores, Imported(
        format=form,
        file=printable(file.name),
        sha256=hashlib.sha256(content).hexdigest(),
        convention=scores.convention,
        orders={name: order_of(one.indices, one.labels) for name, one in _by_name(scores).items()},
    )


def _by_name(scores: ImportedScores) -> dict[str, ScoredSet]:
    """All sets, named as in records."""
    named = {one.name: one for one in (scores.known, *scores.unknown)}
    return named if scores.meta is None else named | {f"{scores.meta.name} (meta)": scores.meta}


def _pending(fields: Mapping[str, Any], scores: ImportedScores, imported: Imported, classifier: str) -> _Pending:
    tested = [scores.known.name, *(one.name for one in scores.unknown if fields["protocol"] == UNKNOWN)]
    sets = {name: one for name, one in _by_name(scores).items() if name in tested or one is scores.meta}
    datasets = {
        name: RecordedDataset(
            adapter="imported", split="", n=len(one.scores), sha256="", source=SOURCE, available=len(one.scores),
            group=one.group,
        )
        for name, one in sets.items()
    }  # fmt: skip
    identity = imported_cell_id(
        fields["suite"], fields["protocol"], fields["seed"], fields["detector"], datasets, imported
    )
    accuracy = 1 - float(_samples(scores.known).wrong.mean())
    about = {
        "classifier": RecordedClassifier(name=classifier, accuracy=accuracy, weights_sha256=""),
        "datasets": datasets,
        "imported": imported,
    }
    return _Pending(identity, {**fields, **about}, scores)


def _records_in(out: Path, suite: RecordedSuite) -> list[Record]:
    """The imported records of a suite in a results folder."""
    records = []
    with suppress(MissingPrerequisiteError):  # there are none
        for file in record_files(out):
            with suppress(InvalidRecordError):
                records.append(file.read())
    return [record for record in records if record.imported is not None and record.suite == suite]


def _refuse_equal_files(pending: Sequence[_Pending]) -> None:
    """Refuse a file that is given for several seeds.

    Raises:
        UsageError: Two files have the same content.
    """
    seeds: dict[str, dict[int, str]] = {}
    for one in pending:
        imported: Imported = one.fields["imported"]
        seeds.setdefault(imported.sha256, {})[one.fields["seed"]] = imported.file
    for same in seeds.values():
        if len(same) > 1:
            listed_seeds = ", ".join(f"{file} (seed {seed})" for seed, file in same.items())
            raise UsageError(f"these files have the same content: {listed_seeds}; expected another one for each seed.")


def _refuse_other_files(there: Sequence[Record], pending: Sequence[_Pending]) -> None:
    """Refuse to import another file as a detector and seed that is there, so that no figure comes from either.

    Raises:
        UsageError: There is such a record.
    """
    about = ("protocol", "seed", "detector")
    expected = {repr([one.fields[name] for name in about]): one for one in pending}
    for record in there:
        one = expected.get(repr([getattr(record, name) for name in about]))
        if one is not None and record.cell_id != one.cell_id:
            raise UsageError(
                f"the record {record.cell_id} is of {record.detector.name}, seed {record.seed}, in {record.suite.name} "
                f"already, imported from another file than {one.fields['imported'].file} or with other names of its "
                "sets; give another --detector, --seed or --out."
            )


def _refuse_other_samples(there: Sequence[Record], pending: Sequence[_Pending]) -> None:
    """Refuse sets of the same name that are not the same samples, as no table could hold them.

    Raises:
        UsageError: Two files, or a file and a record that is there, have other numbers, orders or labels of samples.
    """
    first: dict[str, tuple[str, str]] = {}
    for imported in (*(record.imported for record in there), *(one.fields["imported"] for one in pending)):
        assert isinstance(imported, Imported)
        for name, order in imported.orders.items():
            other, expected = first.setdefault(name, (imported.file, order))
            if order != expected:
                raise UsageError(
                    f"{imported.file} has another number, order or other labels of samples of {name} than {other}, and "
                    "all seeds and detectors of a suite are of the same; give another --suite or --out, or mend it."
                )


def _kept(pending: _Pending, store: Store, memo: Memo) -> Record:
    """Compute the results of a record, and keep it with its scores."""
    scores = pending.scores
    sets = (scores.known, *scores.unknown)
    kept = score_file([SetScores(one.name, one.indices, one.labels, one.predictions, one.scores) for one in sets])
    store.keep_scores(kept)
    unknown = scores.unknown if pending.fields["protocol"] == UNKNOWN else ()
    threshold = None if scores.meta is None else best_threshold(scores.meta.scores, _samples(scores.meta).wrong)
    return store.keep(
        Record(
            identity_version=IDENTITY_VERSION,
            cell_id=pending.cell_id,
            status="ok",
            exposed=[],
            threshold=threshold,
            results=results(
                [(scores.known.name, "-", _samples(scores.known))],
                [(one.name, one.group, _samples(one)) for one in unknown],
                threshold,
                memo,
            ),
            scores=kept.recorded,
            provenance=Provenance(
                versions={}, git=None, platform="", created=datetime.now(UTC).isoformat(timespec="seconds")
            ),
            **pending.fields,
        )
    )


def _samples(one: ScoredSet) -> Samples:
    return samples(one.labels, one.predictions, one.scores)
