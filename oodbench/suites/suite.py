"""The suite file: its keys, its defaults, and the one sentence that says what is wrong with it."""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from oodbench import registry
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.parameters import split_spec
from oodbench.untrusted import MIB, UnreadableError, read_limited

Group = Literal["near", "far", "-"]
# What every generator of random numbers takes.
MAX_SEED = 2**63 - 1
# Instead of a file, the weights that torchvision or timm have for a classifier.
PRETRAINED = "pretrained"
LARGEST = MIB // 4
# A dotted key takes time by the square of its parts.
MOST_DOTS = 2000
DEEPEST = 50


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Table):
    """What every image is brought to before the classifier sees it.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        size: Height and width in pixels.
        resolution: If set, every image is first reduced to this height and width, so that sharpness alone gives no
            data set away.
        levels: If set, the number of grey values left after that, for the same reason.
        mean: If set, what is taken out of each channel before the classifier is given it, of values from 0 to 1.
        std: What each channel is divided by after that.
    """

    channels: Literal[1, 3] = 1
    size: int = Field(default=28, ge=8, le=1024)
    resolution: int | None = Field(default=None, ge=2, le=1024)
    levels: int | None = Field(default=None, ge=2, le=256)
    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    std: list[Annotated[float, Field(gt=0, le=1)]] | None = None

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel, where the suite has them."""
        return None if self.mean is None or self.std is None else (tuple(self.mean), tuple(self.std))


class Sizes(_Table):
    """Upper limits of the number of samples in each split; None takes what is there.

    Attributes:
        train: Known samples that the classifier is trained on.
        meta: Known samples that detectors are fitted on (the known meta split).
        test: Known samples that detectors are tested on.
        exposed: Samples of each unknown set that may be used in fitting, where a protocol exposes it.
        unknown: Samples of each unknown set that are tested on.
    """

    train: int | None = Field(default=None, ge=1)
    meta: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)
    exposed: int | None = Field(default=None, ge=1)
    unknown: int | None = Field(default=None, ge=1)


class Training(_Table):
    """Hyper-parameters of the classifier's training (AdamW with a one-cycle learning rate)."""

    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class Source(BaseModel):
    """A data set of a suite: an adapter with its parameters, and the group it belongs to.

    Attributes:
        adapter: Name of the adapter.
        group: ``near`` or ``far`` for unknown sets, ``-`` for the known one.
        parameters: What is passed on to the adapter.
    """

    model_config = ConfigDict(frozen=True)
    adapter: str
    group: Group = "-"
    parameters: dict[str, Any] = {}


class Suite(_Table):
    """A suite file. ``name``, ``version``, ``classifier``, ``known``, ``seeds`` and ``[unknown]`` are fixed keys.

    Attributes:
        classifier: Name of a plugin, ``module:factory``, ``file.py:factory``, ``torchvision:NAME`` or ``timm:NAME``.
        weights: File of its weights, or ``pretrained``; by default it is trained. With ``{seed}`` in its name, it is
            one file for each training.
        penultimate: Name of the Linear layer whose input are the features; by default it is found.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    classifier: str = "cnn"
    weights: str | None = None
    penultimate: str | None = None
    known: str | dict[str, Any]
    seeds: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] = Field(default=[0, 1, 2], min_length=1)
    unknown: dict[str, dict[str, Any]] = Field(min_length=1)
    input: Input = Input()
    sizes: Sizes = Sizes()
    training: Training = Training()

    _asked_for: str = PrivateAttr("")
    _file: Path | None = PrivateAttr(None)
    _text: str = PrivateAttr("")
    _replaced: frozenset[str] = PrivateAttr(frozenset())
    _overridden: frozenset[str] = PrivateAttr(frozenset())

    @property
    def asked_for(self) -> str:
        """The name or file by which the user asked for it."""
        return self._asked_for or self.name

    @property
    def text(self) -> str:
        """The file's own text."""
        return self._text

    @property
    def known_name(self) -> str:
        """The known set's name on tables and in records."""
        if isinstance(self.known, str):
            return split_spec(self.known)[0]
        return str(self.known.get("name", self.known.get("adapter")))

    @property
    def is_one_training(self) -> bool:
        """Whether its weights are those of a single training, whatever the seed."""
        return self.weights is not None and "{seed}" not in self.weights

    @property
    def code_folders(self) -> list[Path]:
        """Where code that builds the classifier is looked for: first where the user wrote its name down."""
        here = Path.cwd()
        beside = here if self._file is None else self._file.parent.absolute()
        return [here, beside] if "classifier" in self._overridden else [beside, here]

    def sources(self) -> dict[str, Source]:
        """Known set first, then the unknown sets, by name."""
        known = {"adapter": self.known} if isinstance(self.known, str) else self.known
        return {self.known_name: _source(self.known_name, known)} | {
            name: _source(name, table) for name, table in self.unknown.items()
        }

    def replacing(self, replacements: dict[str, str]) -> "Suite":
        """The suite with some data sets read by another adapter: ``{"cifar10": "imagefolder:PATH"}``.

        Raises:
            UsageError: A name is not in the suite.
        """
        known: str | dict[str, Any] = self.known
        unknown = dict(self.unknown)
        for name, adapter in replacements.items():
            if name == self.known_name:
                known = {"adapter": adapter, "name": name}
            elif name in unknown:
                unknown[name] = {"adapter": adapter, "group": unknown[name].get("group", "-")}
            else:
                names = ", ".join([self.known_name, *unknown])
                raise UsageError(f"the suite {self.name} has no data set {name!r} to replace; it has: {names}.")
        other = self.model_copy(update={"known": known, "unknown": unknown})
        other._replaced = self._replaced | replacements.keys()
        return other

    def with_classifier(self, classifier: str | None, weights: str | None, penultimate: str | None) -> "Suite":
        """The suite with another classifier, or with other weights or another penultimate layer of its own.

        Another classifier comes without the suite's weights and penultimate layer, which are not its own.
        """
        given = {"classifier": classifier, "weights": weights, "penultimate": penultimate}
        changed = {key: value for key, value in given.items() if value is not None or classifier is not None}
        other = self.model_copy(update=changed)
        other._overridden = frozenset(changed)
        return other

    @contextmanager
    def blamed(self, *keys: str) -> Iterator[None]:
        """Inside, a mistake in what the suite names is told with the file, line and key that it comes from."""
        try:
            yield
        except UsageError as error:
            if self._file is None or keys[0] in self._overridden:
                raise
            raise _wrong(self._file, self._text, list(keys), str(error)) from error

    @contextmanager
    def blamed_source(self, name: str) -> Iterator[None]:
        """The same for one of its data sets, which may not be what the file says."""
        if name in self._replaced:
            try:
                yield
            except UsageError as error:
                raise UsageError(f"the replacement of {name}: {error}") from error
        else:
            with self.blamed(*(["known"] if name == self.known_name else ["unknown", name])):
                yield


def read_suite(name_or_file: str) -> Suite:
    """Read a suite by its registered name or from a TOML file.

    Paths inside a user's own file are relative to that file.

    Raises:
        UsageError: The name is unknown, or the file is broken; the sentence names the line and the key.
        MissingPrerequisiteError: There is no such file.
    """
    is_file = name_or_file.endswith(".toml")
    suite = _parse(Path(name_or_file) if is_file else _registered(name_or_file))
    suite._asked_for = name_or_file
    return suite


def _registered(name: str) -> Path:
    """The file of a registered suite.

    Raises:
        UsageError: What it is loaded from names no file.
    """
    file = registry.load("suites", name)
    if not isinstance(file, (str, Path)):
        raise UsageError(f"the suite {name} is a {type(file).__name__}; expected the path of a TOML file.")
    return Path(file)


def _parse(path: Path) -> Suite:
    try:
        text = read_limited(path, LARGEST).decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as cause:
        raise MissingPrerequisiteError(f"the suite file {path} cannot be read: {cause.strerror}.") from cause
    except UnicodeDecodeError as cause:
        raise UsageError(f"the suite file {path} is not UTF-8 text.") from cause
    except UnreadableError as cause:
        raise UsageError(f"the suite file {path} {cause}; expected a TOML file.") from cause
    if text.count(".") > MOST_DOTS:
        raise UsageError(f"the suite file {path} has {text.count('.'):,} dots; expected at most {MOST_DOTS:,}.")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise UsageError(f"the suite file {path} is not TOML: {cause}{_key_at(text, str(cause))}.") from cause
    except RecursionError as cause:
        raise UsageError(f"the suite file {path} is nested too deeply; expected tables of values.") from cause
    except ValueError as cause:  # a number of more digits than Python converts, or of more bits than TOML has
        raise UsageError(f"the suite file {path} is not TOML: {cause}.") from cause
    try:
        suite = Suite.model_validate(table)
    except ValidationError as cause:
        first = cause.errors()[0]
        # What follows `known` says which of its types was tried, and is no key.
        keys = [str(part) for part in first["loc"]]
        raise _wrong(path, text, keys[:1] if keys[0] == "known" else keys, _in_our_words(first)) from cause
    for keys, message in _contradictions(suite):
        raise _wrong(path, text, keys, message)
    try:
        _refuse_strange(table)
    except ValueError as cause:
        raise UsageError(f"the suite file {path} cannot be used: {cause}.") from cause
    try:
        absolute = _with_absolute_paths(suite, path.parent)
    except (OSError, RuntimeError, ValueError) as cause:
        raise UsageError(f"the suite file {path} names a path that is none: {cause}.") from cause
    absolute._file, absolute._text = path, text
    return absolute


def _refuse_strange(value: object, depth: int = 0) -> None:
    """Refuse what TOML does not have, though its reader does not mind.

    Raises:
        ValueError: It is nested more deeply than anything can be meant, a number has more than 64 bits, or a name is
            no text that can be printed.
    """
    if depth > DEEPEST:
        raise ValueError("its tables are nested too deeply")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a whole number has more than 64 bits")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not name.isprintable():
                raise ValueError(f"the key {name!r} has characters that cannot be printed")
            _refuse_strange(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _refuse_strange(inner, depth + 1)


def _in_our_words(error: ErrorDetails) -> str:
    """What pydantic found wrong, as a sentence about a suite file."""
    table = str(error["loc"][0])
    match error["type"]:
        case "missing":
            return "it is missing"
        case "too_short":
            return "it is empty; expected at least one"
        case "extra_forbidden":
            tables: dict[str, type[_Table]] = {"input": Input, "sizes": Sizes, "training": Training}
            offered = tables.get(table, Suite).model_fields
            return f"there is no such key; expected one of: {', '.join(offered)}"
        case _ if table == "known":
            expected = "an adapter's name, or a table with the key adapter"
        case "string_pattern_mismatch":
            expected = "letters, digits, '.', '_' and '-' only, beginning with a letter or a digit"
        case "dict_type" | "model_type":
            expected = "a table"
        case _:
            expected = error["msg"].removeprefix("Input should be ").partition(",")[0]
            expected = re.sub(r"^(greater|less)", r"a number \1", expected).replace("a valid integer", "an integer")
    return f"it is {_shortened(error['input'])}; expected {expected.replace('a valid ', 'a ')}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _contradictions(suite: Suite) -> Iterator[tuple[list[str], str]]:
    """What is wrong with a suite though each of its keys is of the right type: the key and a sentence."""
    if not isinstance(suite.known, str) and not isinstance(suite.known.get("adapter"), str):
        yield ["known"], "it names no adapter"
    for name, table in suite.unknown.items():
        if table.get("group", "-") not in get_args(Group):
            yield ["unknown", name, "group"], f"the group is {table['group']!r}; expected 'near' or 'far'"
        if not isinstance(table.get("adapter", name), str):
            yield ["unknown", name, "adapter"], f"the adapter is {table['adapter']!r}; expected a name"
    if suite.is_one_training and "seeds" in suite.model_fields_set and len(suite.seeds) > 1:
        yield (
            ["seeds"],
            (
                f"the weights {suite.weights} are those of one training, and there are {len(suite.seeds)} seeds; write "
                "{seed} where the names of several files have the seed, or leave one seed"
            ),
        )
    yield from _wrong_normalisation(suite.input)
    if suite.known_name in suite.unknown:
        yield ["unknown", suite.known_name], "it is both the known and an unknown set; give one of them another name"


def _wrong_normalisation(given: Input) -> Iterator[tuple[list[str], str]]:
    for key, values, other in (("mean", given.mean, "std"), ("std", given.std, "mean")):
        if values is None and getattr(given, other) is not None:
            yield ["input", other], f"there is no {key} to go with it; expected both or neither"
        if values is not None and len(values) != given.channels:
            found = f"{len(values)} number{'s' if len(values) != 1 else ''}"
            expected = f"{given.channels} number{'s' if given.channels != 1 else ''}"
            yield ["input", key], f"it has {found}; expected {expected}, one for each channel"


def _wrong(path: Path, text: str, keys: list[str], message: str) -> UsageError:
    where = f", key {'.'.join(keys)}" if keys else ""
    end = "" if message.endswith((".", "?")) else "."
    return UsageError(f"the suite file {path}{_line_of(text, keys)}{where}: {message}{end}")


def _source(name: str, table: dict[str, Any]) -> Source:
    rest = {key: value for key, value in table.items() if key not in ("adapter", "group", "name")}
    adapter, parameters = split_spec(str(table.get("adapter", name)))
    return Source(adapter=adapter, group=table.get("group", "-"), parameters=parameters | rest)


def _with_absolute_paths(suite: Suite, folder: Path) -> Suite:
    """Paths of adapters (``imagefolder:images``) and of weights start at the suite file's folder."""

    def absolute(name: str, table: dict[str, Any]) -> dict[str, Any]:
        source = _source(name, table)
        if "path" not in source.parameters:
            return table
        path = (folder / Path(str(source.parameters["path"])).expanduser()).resolve()
        if source.adapter == "huggingface" and not path.is_dir():
            return table  # what is no folder is a name on the Hub
        named = {"name": table["name"]} if "name" in table else {}
        return {"adapter": source.adapter, "group": source.group, **named, **source.parameters, "path": str(path)}

    known = {"adapter": suite.known, "name": suite.known_name} if isinstance(suite.known, str) else suite.known
    unknown = {name: absolute(name, table) for name, table in suite.unknown.items()}
    weights = suite.weights
    if weights is not None and weights != PRETRAINED:
        weights = str((folder / Path(weights).expanduser()).resolve())
    return suite.model_copy(update={"known": absolute(suite.known_name, known), "unknown": unknown, "weights": weights})


def _line_of(text: str, keys: list[str]) -> str:
    """``, line 7`` for the line that sets the key, or the nearest table or key that it is in."""
    best, depth = 0, 0
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        # Nothing here can be matched in two ways, which on a long line would take for ever.
        header = re.match(r"\s*+\[++([^\[\]]++)\]", line)
        key = re.match(r"([\w.\"' \t-]++)=", line)
        if header:
            table = _parts(header.group(1))
        found = table if header else [*table, *_parts(key.group(1))] if key else None
        if found is not None and len(found) > depth and found == keys[: len(found)]:
            best, depth = number, len(found)
    return f", line {best}" if best else ""


def _parts(dotted: str) -> list[str]:
    return [part.strip(" \t\"'") for part in dotted.split(".")]


def _key_at(text: str, message: str) -> str:
    """``, key seeds``: the key that the line of a TOML syntax error sets."""
    line = re.search(r"line (\d+)", message)
    lines = text.splitlines()
    number = int(line.group(1)) if line else len(lines)
    for candidate in reversed(lines[:number]):
        key = re.match(r"\s*([\w.-]+)\s*=", candidate)
        if key:
            return f", key {key.group(1)}"
    return ""
