"""Which output of a classifier stands for which class of the known set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from oodbench.datasets.adapter import Pool
from oodbench.errors import MissingPrerequisiteError, UsageError, listed
from oodbench.files.bounded_io import MIB, UnreadableError, read_text
from oodbench.suites.schema import CLASS_LISTS

LARGEST = 4 * MIB


def class_list(value: str | int | Sequence[str] | None) -> tuple[str, ...] | None:
    """The name of the class that each output stands for, as a suite states it; None if it does not.

    Args:
        value: The suite's ``classes``: a list, a file with a name on each line, ``imagenet-1k``, whose names are the
            WordNet ids in the order of ILSVRC 2012, or a number of classes, whose names are the numbers from 0.

    Raises:
        MissingPrerequisiteError: The file is not there.
        UsageError: A name is empty or there twice, or the file is no text.
    """
    if value is None:
        return None
    if isinstance(value, int):
        return tuple(map(str, range(value)))
    if not isinstance(value, str):
        names, where = [str(name) for name in value], "classes"
    else:
        file = Path(__file__).with_name(f"{value}.txt") if value in CLASS_LISTS else Path(value)
        names, where = _lines(file), f"the file of classes {file}"
    empty = [line for line, name in enumerate(names, start=1) if not name]
    if empty:
        raise UsageError(f"{where} has no name in place {empty[0]}; expected the name of a class for each output.")
    twice = next((name for name, n in Counter(names).items() if n > 1), None)
    if twice is not None:
        raise UsageError(f"{where} has the class {twice} twice; expected a class of its own for each output.")
    if len(names) < 2:
        raise UsageError(f"{where} has {len(names)} classes; expected at least two.")
    return tuple(names)


def _lines(file: Path) -> list[str]:
    try:
        text = read_text(file, LARGEST)
    except OSError as cause:
        raise MissingPrerequisiteError(f"the file of classes {file} cannot be read: {cause.strerror}.") from cause
    except UnreadableError as cause:
        raise UsageError(f"the file of classes {file} {cause}; expected a name on each line.") from cause
    return [line.strip() for line in text.rstrip().splitlines()]


def name_of(pool: Pool, label: int) -> str:
    """What a class is called in messages, and in lists of classes: its name, or its number."""
    return pool.classes[label] if 0 <= label < len(pool.classes) else str(label)


def outputs_by_label(pools: Sequence[Pool], names: Sequence[str] | None, dataset: str) -> Mapping[int, int]:
    """The output that stands for each label of the known set.

    Args:
        pools: All pools of the known set.
        names: The class of each output; None takes the classes in sorted order. Where no class of the data set is among
            the names and its labels are numbers without names, the numbers are those of the outputs.
        dataset: Name of the data set, for messages.

    Raises:
        UsageError: A class is not among the names.
    """
    labels = sorted({int(label) for pool in pools for label in np.unique(pool.labels)})
    if labels[:1] and labels[0] < 0:
        raise UsageError(
            f"the known set {dataset} has samples of the label {labels[0]}, which stands for unknown ones; expected "
            "the number or name of a class for each sample."
        )
    if names is None:
        known = range(len(pools[0].classes)) if pools[0].classes else labels
        return {label: output for output, label in enumerate(known)}
    outputs = {name: output for output, name in enumerate(names)}
    called = {label: name_of(pools[0], label) for label in labels}
    strange = [name for name in called.values() if name not in outputs]
    if not strange:
        return {label: outputs[name] for label, name in called.items()}
    beyond = [name for label, name in called.items() if label >= len(names) and name not in outputs]
    if not pools[0].classes and not beyond and len(strange) == len(called):
        return {label: label for label in labels}
    if not pools[0].classes and beyond:
        raise UsageError(
            f"the known set {dataset} has samples of the label {listed(beyond, 3)}, and the classifier has "
            f"{len(names)} outputs; expected labels from 0 to {len(names) - 1}, so correct the list of its samples, or "
            "the suite's `classes`."
        )
    raise UsageError(
        f"the known set {dataset} has the class {listed(strange, 3)}, which is not in the list of classes "
        f"({', '.join(names[:3])}, …); expected the name of each class of the known set there, as its folder or label "
        "is called."
    )


def outputs_of_shifted(
    pool: Pool, known: Pool, outputs: Mapping[int, int], names: Sequence[str] | None, dataset: str
) -> Mapping[int, int]:
    """The output that stands for each label of a set of known classes under a shift.

    Classes that have names are told by them; labels that are numbers without names are those of the known set.

    Args:
        pool: The shifted set.
        known: The known set.
        outputs: The output that stands for each label of the known set.
        names: The class of each output, if the suite states it.
        dataset: Name of the shifted set, for messages.

    Raises:
        UsageError: A class is none of the known set's, or nobody says which.
    """
    labels = sorted({int(label) for label in np.unique(pool.labels)})
    if names is not None and all(label == output for label, output in outputs.items()):
        outputs = {label: label for label in range(len(names))}  # some may have no known sample here
    if not pool.classes:
        strange = [str(label) for label in labels if label not in outputs]
        if strange:
            raise UsageError(
                f"the covariate set {dataset} has samples of the label {listed(strange, 3)}; expected labels of the "
                f"known set, from {min(outputs)} to {max(outputs)}."
            )
        return outputs
    by_name = dict(zip(names, range(len(names)), strict=True)) if names is not None else {}
    if names is None and known.classes:
        by_name = {name_of(known, label): output for label, output in outputs.items()}
    called = {label: name_of(pool, label) for label in labels}
    strange = [name for name in called.values() if name not in by_name]
    if strange and not by_name:
        raise UsageError(
            f"the classes of the covariate set {dataset} have names, such as {strange[0]}, and those of the known set "
            "are numbers; expected to be told which is which, so name the classes by the suite's `classes`."
        )
    if strange:
        raise UsageError(
            f"the covariate set {dataset} has the class {listed(strange, 3)}, which is none of the known set's "
            f"({', '.join(list(by_name)[:3])}, …); expected the same names."
        )
    return {label: by_name[name] for label, name in called.items()}
