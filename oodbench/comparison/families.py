"""Families of classifiers: which records of one suite may stand in one table, and what each family is called."""

from collections.abc import Iterable, Sequence

from oodbench.errors import UsageError
from oodbench.records.record import Record
from oodbench.records.scored import ScoredRecord

Origin = tuple[str, str | None]
"""Name of a classifier, and what its weights are called; None if it was trained for the run."""
UNNAMED, TRAINED = "unnamed", "trained"


def origin(record: Record) -> Origin:
    """What the family of a record's classifier depends on."""
    return record.classifier.name, record.classifier.weights_from


def family_labels(records: Iterable[Record]) -> dict[Origin, str]:
    """The label of the family of each origin: the classifier's name, with that of its weights where several share it.

    Origins of one name that have the same weights for a seed are one family, since files may move, and old records do
    not say where weights are from.
    """
    family: dict[Origin, Origin] = {}
    seen: dict[tuple[str, int, str], Origin] = {}
    for record in records:
        name, seed, weights = record.classifier.name, record.seed, record.classifier.weights_sha256
        own = family.setdefault(origin(record), origin(record))
        # Of imported scores the weights are not known.
        first = family[seen.setdefault((name, seed, weights), origin(record))] if weights else own
        family |= {member: first for member, of_member in family.items() if of_member == own}
    members: dict[Origin, list[Origin]] = {}
    for member, of_member in family.items():
        members.setdefault(of_member, []).append(member)
    names = [name for name, _ in members]
    return {
        member: _label(together, alone=names.count(of_family[0]) == 1)
        for of_family, together in members.items()
        for member in together
    }


def _label(members: Sequence[Origin], *, alone: bool) -> str:
    name = members[0][0] or UNNAMED
    return name if alone else f"{name} ({min((weights for _, weights in members if weights), default=TRAINED)})"


def families_of(cells: Sequence[ScoredRecord]) -> dict[str, list[ScoredRecord]]:
    """Records of one suite by the label of their classifier's family."""
    labels = family_labels(scored.record for scored in cells)
    grouped: dict[str, list[ScoredRecord]] = {}
    for scored in cells:
        grouped.setdefault(labels[origin(scored.record)], []).append(scored)
    return dict(sorted(grouped.items()))


def of_one_family(suites: Iterable[Sequence[ScoredRecord]], chosen: str | None) -> list[ScoredRecord]:
    """The records of one family in each of some suites.

    Args:
        suites: The records of each suite.
        chosen: Label of a family; None where no suite has several.

    Raises:
        UsageError: No record is of the chosen family, or none is chosen of several.
    """
    families = [families_of(cells) for cells in suites]
    there = sorted({label for of_suite in families for label in of_suite})
    if chosen is None and any(len(of_suite) > 1 for of_suite in families):
        raise UsageError(f"the records are of several classifiers; choose one by --classifier: {', '.join(there)}.")
    if chosen is not None and chosen not in there:
        raise UsageError(f"no record is of the classifier {chosen!r}; there are: {', '.join(there)}.")
    return [
        scored
        for of_suite in families
        for label, cells in of_suite.items()
        if chosen in (None, label)
        for scored in cells
    ]
