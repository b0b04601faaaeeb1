"""Records to a markdown board."""

from collections.abc import Sequence

from tabulate import tabulate

from oodbench.leaderboard.tables import suites_of, tables
from oodbench.records.record import DatasetPart, Record


def board(records: Sequence[Record], note: str = "") -> str:
    """A markdown board of all suites in the records; the same records give the same bytes.

    Args:
        records: Records of complete runs.
        note: A remark of whoever publishes the board.
    """
    ordered = sorted(records, key=lambda record: (record.protocol, record.detector.name, record.exposed, record.seed))
    return "\n".join(_suite(name, version, of_suite, note) for (name, version), of_suite in suites_of(ordered).items())


def _suite(name: str, version: int, records: list[Record], note: str) -> str:
    parts = [f"# Leaderboard: {name}, version {version}", _origin(records), *([note] if note else [])]
    for table in tables(records):
        rows = [[_escaped(text) for text in row] for row in table.rows]
        drawn = tabulate(rows, table.header, tablefmt="github", disable_numparse=True)
        parts += [f"## {table.title}", f"{table.caption}.", drawn]
        if table.notes:
            parts.append("\n".join(f"- {_escaped(sentence)}" for sentence in table.notes))
    parts += ["## Data", _subsets(records), _data(records), "## Classifiers", _classifiers(records)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _origin(records: list[Record]) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({record.seed for record in records}))
    versions = sorted({f"{key} {value}" for record in records for key, value in record.provenance.versions.items()})
    return (
        f"{len(records)} cells, seeds {seeds}. Larger scores mean more likely wrong or unknown; unknown (or wrong) is "
        "the positive class. The spread of a figure is that over the seeds of the classifier's training; sampling "
        "error is not part of it. A dash stands for a figure of which a seed or a data set is missing. "
        f"Made with {', '.join(versions)}."
    )


def _datasets(records: list[Record]) -> dict[str, DatasetPart]:
    found = {name: part for record in records for name, part in record.datasets.items()}
    return dict(sorted(found.items()))


def _subsets(records: list[Record]) -> str:
    incomplete = {
        f"{part.adapter} ({part.split}): {part.available:,} of {part.official:,}"
        for part in _datasets(records).values()
        if part.official is not None and part.available < part.official and ":" not in part.adapter
    }
    if not incomplete:
        return ""
    return f"**Made on a subset of the data.** Found of the official samples: {'; '.join(sorted(incomplete))}."


def _data(records: list[Record]) -> str:
    rows = [
        [
            name,
            part.adapter,
            part.split,
            part.n,
            part.available,
            part.official or "—",
            f"`{part.sha256[:16]}`",
            part.source,
        ]
        for name, part in _datasets(records).items()
    ]
    header = ["data set", "adapter", "split", "used", "found", "official", "SHA-256 of content", "source"]
    return tabulate(
        [[_escaped(str(text)) for text in row] for row in rows], header, tablefmt="github", disable_numparse=True
    )


def _classifiers(records: list[Record]) -> str:
    by_seed = {record.seed: record.classifier for record in records}
    rows = [
        [str(seed), one.name, f"{one.accuracy:.4f}", f"`{one.weights_sha256[:16]}`"]
        for seed, one in sorted(by_seed.items())
    ]
    header = ["seed", "classifier", "accuracy on the known test split", "SHA-256 of weights"]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _escaped(text: str) -> str:
    """Text that cannot end a cell, start a link or be taken for markup."""
    for character in "\\|[]<>":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
