"""Merging results folders, of several people or machines: which records can stand on one board."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from oodbench.comparison.compared import detector_identity, detector_labels
from oodbench.comparison.families import family_labels, origin
from oodbench.errors import UsageError
from oodbench.records.record import Record, samples_of
from oodbench.records.scored import Rejected, ScoredRecord


def merged(cells: Sequence[ScoredRecord]) -> tuple[list[ScoredRecord], list[Rejected]]:
    """Separate the records that can stand on one board from the rejected ones; earlier folders take precedence.

    A record is rejected if an earlier folder has other samples of one of its data sets, or has its cell already.
    Weights of one family of classifiers may differ for the same seed, since the last bits of training depend on the
    machine; a board lists all of them.
    """
    kept: list[ScoredRecord] = []
    left_out: list[Rejected] = []
    samples: dict[tuple[str, int, str], tuple[str, Path]] = {}
    taken: dict[tuple[object, ...], Path] = {}
    families = family_labels(scored.record for scored in cells)
    for scored in cells:
        record, folder = scored.record, scored.file.parents[1]
        suite = record.suite.name, record.suite.version
        hashes = {(*suite, name): samples_of(record, name) for name in record.datasets}
        clash = next((key for key, digest in hashes.items() if key in samples and samples[key][0] != digest), None)
        cell = (
            *suite, families[origin(record)], record.protocol, tuple(record.exposed), tested(record), record.seed,
            detector_identity(record),
        )  # fmt: skip
        if clash is not None and samples[clash][1].parents[1] != folder:
            left_out.append(
                Rejected(scored.file, f"it is of {other_samples([record])} of {clash[2]} than {samples[clash][1]}")
            )
        elif cell in taken and taken[cell].parents[1] != folder:
            left_out.append(Rejected(scored.file, f"its cell is already there from {taken[cell]}"))
        else:
            kept.append(scored)
            taken.setdefault(cell, scored.file)
            for key, digest in hashes.items():
                samples.setdefault(key, (digest, scored.file))
    return kept, left_out


def other_samples(records: Sequence[Record]) -> str:
    """What records whose samples differ have, in words; of imported ones only labels and their order are known."""
    imported = any(record.imported for record in records)
    return "another number, order or other labels of samples" if imported else "other samples"


def tested(record: Record) -> tuple[str, ...]:
    """The sets that a record has results of, or would have; a protocol may test its sets in separate cells."""
    return tuple(result.dataset for result in record.results) or tuple(
        name for name in record.datasets if not name.endswith(")")
    )


def _difference(first: Record, second: Record) -> str:
    """What two records of the same cell differ in, in words."""
    one, other = (dict(record.classifier) for record in (first, second))
    usual = {"device": "cpu", "precision": "fp32"}  # which records leave out
    found = [
        f"{name} ({one[name] or default} and {other[name] or default})"
        for name, default in usual.items()
        if one[name] != other[name]
    ]
    words = {"weights_sha256": "weights", "preprocessing": "preprocessing", "code": "code of the network"}
    found += [word for name, word in words.items() if one[name] != other[name]]
    data = [{name: samples_of(record, name) for name in record.datasets} for record in (first, second)]
    found += ["data"] if data[0] != data[1] else []
    files = [record.imported and record.imported.sha256 for record in (first, second)]
    found += ["imported files"] if files[0] != files[1] else []
    versions = [record.provenance.versions for record in (first, second)]
    changed = sorted(name for name in versions[0] if versions[0][name] != versions[1].get(name))
    found += [f"versions of {', '.join(changed)}"] if changed else []
    return " and ".join(found) or "code or versions"


def refuse_conflicts(cells: Sequence[ScoredRecord]) -> None:
    """Refuse records of one classifier that contradict each other, so that no figure silently comes from one of them.

    Raises:
        UsageError: Two records of one suite are of the same cell, or of other samples of a data set.
    """
    refuse_other_samples([scored.record for scored in cells])
    labels = detector_labels(scored.record for scored in cells)
    seen: dict[tuple[str, str, tuple[str, ...], int, tuple[str, ...]], Record] = {}
    for record in (scored.record for scored in cells):
        cell = record.protocol, labels[detector_identity(record)], tuple(record.exposed), record.seed, tested(record)
        earlier = seen.setdefault(cell, record)
        if earlier.cell_id != record.cell_id:
            raise UsageError(
                f"the records {earlier.cell_id} and {record.cell_id} are both of {cell[1]} under {cell[0]}, seed "
                f"{cell[3]}, with other {_difference(earlier, record)}; keep runs that differ in folders of their own."
            )


def refuse_other_samples(records: Iterable[Record]) -> None:
    """Refuse records that no table can hold together.

    Raises:
        UsageError: Two records of one suite are of other samples of a data set.
    """
    hashes: dict[str, tuple[str, str]] = {}
    for record in records:
        for name in record.datasets:
            first, digest = hashes.setdefault(name, (record.cell_id, samples_of(record, name)))
            if digest != samples_of(record, name):
                raise UsageError(
                    f"the records {first} and {record.cell_id} are of {other_samples([record])} of {name}, so that no "
                    "table can hold both; make boards of their own."
                )
