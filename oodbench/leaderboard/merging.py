"""Records of several people on one board: which of them can stand beside the others."""

from collections.abc import Sequence
from pathlib import Path

from oodbench.comparison.entrants import detector_identity, detector_labels
from oodbench.errors import UsageError
from oodbench.records.record import Record
from oodbench.records.verification import Measured, Rejected


def merged(cells: Sequence[Measured]) -> tuple[list[Measured], list[Rejected]]:
    """The records that can stand on one board, the first folder going before the later ones; and the others.

    A record of another folder is left out if it is of other samples of a data set, or of a cell that is there already.
    Classifiers of the same seed may differ, since training gives other last bits on other machines; a board states
    them.
    """
    kept: list[Measured] = []
    left_out: list[Rejected] = []
    samples: dict[tuple[str, int, str], tuple[str, Path]] = {}
    taken: dict[tuple[object, ...], Path] = {}
    for one in cells:
        record, folder = one.record, one.file.parent
        suite = record.suite.name, record.suite.version
        hashes = {(*suite, name): part.sha256 for name, part in record.datasets.items()}
        other = next((key for key, digest in hashes.items() if key in samples and samples[key][0] != digest), None)
        cell = (*suite, record.protocol, tuple(record.exposed), tested(record), record.seed, detector_identity(record))
        if other is not None and samples[other][1].parent != folder:
            left_out.append(Rejected(one.file, f"it is of other samples of {other[2]} than {samples[other][1]}"))
        elif cell in taken and taken[cell].parent != folder:
            left_out.append(Rejected(one.file, f"its cell is already there from {taken[cell]}"))
        else:
            kept.append(one)
            taken.setdefault(cell, one.file)
            for key, digest in hashes.items():
                samples.setdefault(key, (digest, one.file))
    return kept, left_out


def tested(record: Record) -> tuple[str, ...]:
    """The sets that a record has or would have results of: a protocol may test one after the other."""
    return tuple(result.dataset for result in record.results) or tuple(
        name for name in record.datasets if not name.endswith(")")
    )


def refuse_conflicts(cells: Sequence[Measured]) -> None:
    """No figure may silently come from one of two records, or from samples that other figures are not from.

    Raises:
        UsageError: Two records of one suite are of the same cell, or of other samples of a data set.
    """
    labels = detector_labels(measured.record for measured in cells)
    seen: dict[tuple[str, str, tuple[str, ...], int, tuple[str, ...]], str] = {}
    hashes: dict[str, tuple[str, str]] = {}
    for record in (measured.record for measured in cells):
        cell = record.protocol, labels[detector_identity(record)], tuple(record.exposed), record.seed, tested(record)
        other = seen.setdefault(cell, record.cell_id)
        if other != record.cell_id:
            raise UsageError(
                f"the records {other} and {record.cell_id} are both of {cell[1]} under {cell[0]}, seed {cell[3]}, with "
                "other data, weights or versions; keep runs that differ in folders of their own."
            )
        for name, part in record.datasets.items():
            first, digest = hashes.setdefault(name, (record.cell_id, part.sha256))
            if digest != part.sha256:
                raise UsageError(
                    f"the records {first} and {record.cell_id} are of other samples of {name}, so that no table can "
                    "hold both; make boards of their own."
                )
