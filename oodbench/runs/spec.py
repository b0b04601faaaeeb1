"""What decides the numbers of a run, as plain data: the same for the command line, Python, a plan and a worker."""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from oodbench import registry
from oodbench.errors import UsageError
from oodbench.machine.device import EXPECTED, Precision
from oodbench.suites.schema import MAX_SEED

# No detector can be evaluated on a single sample.
MIN_LIMIT = 2


def _seeds(value: Sequence[int] | None) -> list[int] | None:
    """The seeds without repetition; calls from Python may pass anything, so all of it is checked."""
    if value is None:
        return None
    try:
        seeds = list(dict.fromkeys(operator.index(seed) for seed in value))
    except TypeError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) > MAX_SEED:
        raise UsageError(f"the seeds are {value!r}; expected one or more whole numbers from 0 to {MAX_SEED}.")
    return seeds


def _whole_number(what: str, least: int) -> Callable[[Any], Any]:
    """A check that a value is a whole number, or None.

    Args:
        what: What the number is called.
        least: The smallest one.
    """

    def checked(value: Any) -> Any:  # noqa: ANN401
        if value is None:
            return None
        try:
            number = operator.index(value)
        except TypeError:
            number = least - 1
        if number < least:
            raise UsageError(f"the {what} is {value!r}; expected a whole number from {least}, or None.")
        return number

    return checked


def _timeout(value: Any) -> Any:  # noqa: ANN401
    if value is None:
        return None
    try:
        seconds = float(value) if isinstance(value, Real) else 0.0
    except OverflowError:
        seconds = math.inf
    if not seconds > 0:
        raise UsageError(f"the time limit is {value!r}; expected a number of seconds above 0, or None.")
    return seconds


def _device(value: Any) -> Any:  # noqa: ANN401
    """The name of a device; which devices there are is found out where the run is done."""
    name = str(value)
    if not re.fullmatch(r"auto|[a-z]\w*(:\d+)?", name):
        raise UsageError(f"the device is {value!r}; expected {EXPECTED}.")
    return name


def _precision(value: Any) -> Any:  # noqa: ANN401
    if value not in get_args(Precision):
        raise UsageError(f"the precision is {value!r}; expected one of: {', '.join(get_args(Precision))}.")
    return value


def _text(value: Any) -> Any:  # noqa: ANN401
    """A path as text; anything else unchanged."""
    return str(value) if isinstance(value, Path) else value


def _texts(values: Any) -> Any:  # noqa: ANN401
    """A list of texts: a single item becomes a list, and a path its text."""
    if values is None:
        return None
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = [values]
    return [_text(item) for item in values]


def _detectors(values: Any) -> Any:  # noqa: ANN401
    """A list of names; detectors are run by their names, in other processes too, so that these have to stand for them.

    Raises:
        UsageError: Another detector has the name of a plugin that was given, or none has.
    """
    texts = _texts(values)
    return texts if texts is None else [_name(item) for item in texts]


def _name(detector: Any) -> Any:  # noqa: ANN401
    """The name of a plugin; anything else unchanged."""
    name = getattr(detector, "name", None)
    if name is None:
        return detector
    entry = registry.find("detectors", name)
    if entry is None or entry.load() is not detector:
        raise UsageError(
            f"the detector object named {name!r} is not the one that is registered by that name; give the name that "
            "`oodbench list detectors` has for it, or declare it under a name of its own."
        )
    return name


def _replacements(values: Any) -> Any:  # noqa: ANN401
    """Adapters by data set, from a mapping or pairs; None stands for none."""
    try:
        return {str(name): _text(adapter) for name, adapter in dict(values or {}).items()}
    except (TypeError, ValueError) as cause:
        raise UsageError(f"replace is {values!r}; expected adapters by data set.") from cause


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


class RunSpec(BaseModel):
    """What is run; its fields are the arguments of ``oodbench.run`` that decide numbers, and are described there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: Annotated[str, BeforeValidator(_text)] = "digits"
    detectors: Annotated[tuple[str, ...], BeforeValidator(_detectors)] = ("*",)
    protocols: Texts = ("*",)
    seeds: Annotated[tuple[int, ...] | None, BeforeValidator(_seeds)] = None
    classifier: str | None = None
    weights: Annotated[str | None, BeforeValidator(_text)] = None
    transform: Annotated[str | None, BeforeValidator(_text)] = None
    penultimate: str | None = None
    replace: Annotated[dict[str, str], BeforeValidator(_replacements)] = {}
    plugins: Texts = ()
    limit: Annotated[int | None, BeforeValidator(_whole_number("limit", MIN_LIMIT))] = None
    skip_missing: Annotated[bool, BeforeValidator(bool)] = False
    skip_unreadable: Annotated[bool, BeforeValidator(bool)] = False
    drop_shared: Annotated[bool, BeforeValidator(bool)] = False
    trust_model: Annotated[bool, BeforeValidator(bool)] = False
    timeout: Annotated[float | None, BeforeValidator(_timeout)] = None
    device: Annotated[str, BeforeValidator(_device)] = "auto"
    precision: Annotated[Precision, BeforeValidator(_precision)] = "fp32"
    batch: Annotated[int | None, BeforeValidator(_whole_number("batch size", 1))] = None


def make_spec(values: Mapping[str, object]) -> RunSpec:
    """Make the specification of a run from arguments or options.

    Args:
        values: Values by the names of the fields.

    Raises:
        UsageError: A value cannot be used.
    """
    try:
        return RunSpec.model_validate(values)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where} is {first['input']!r}: {first['msg'].lower()}.") from cause
