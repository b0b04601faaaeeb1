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


def class_list(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The name of the class that each output stands for, as a suite states it; None if it does not.

    Args:
        value: The suite's ``classes``: a list, a file with a name on each line, or ``imagenet-1k``, whose names are the
            WordNet ids in the order of ILSVRC 2012.

    Raises:
        MissingPrerequisiteError: The file is not there.
        UsageError: A name is empty or there twice, or the file is no text.
    """
    if value is None:
        return None
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
    if len(strange) == len(called) and not pools[0].classes and labels[0] >= 0 and labels[-1] < len(names):
        return {label: label for label in labels}
    raise UsageError(
        f"the known set {dataset} has the class {listed(strange, 3)}, which is not in the list of classes "
        f"({', '.join(names[:3])}, …); expected the name of each class of the known set there, as its folder or label "
        "is called."
    )
