"""Reads suites from their files, and applies what a user overrides."""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from oodbench import registry
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.files.bounded_io import MIB, UnreadableError, read_text
from oodbench.suites.mistakes import OF_DECODING, contradictions, in_our_words, key_at, mistake
from oodbench.suites.schema import CLASS_LISTS, PRETRAINED, Input, Source, Suite, source_of

LARGEST = MIB // 4
# The time to parse a dotted key grows with the square of the number of its dots.
MOST_DOTS = 2000
# Parameters of adapters that are paths.
PATHS = ("path", "root")
LISTS = ("train", "validation", "test")
DEEPEST = 50


@dataclass(frozen=True)
class LoadedSuite:
    """A suite, and where its values come from.

    Attributes:
        suite: The suite, with the user's replacements and overrides applied.
        asked_for: The name or file that the user typed.
        file: The file that it was read from.
        text: Content of that file.
        plugin: Plugin that registered the suite; None for a file of the user's.
        replaced: Names of the data sets whose source the user replaced.
        overridden: Keys whose values the user overrode.
    """

    suite: Suite
    asked_for: str
    file: Path
    text: str
    plugin: registry.PluginEntry | None = None
    replaced: frozenset[str] = frozenset()
    overridden: frozenset[str] = frozenset()

    @property
    def code_folders(self) -> list[Path]:
        """Folders to search for the classifier's code: first the place where its name was given, then the other."""
        here, beside = Path.cwd(), self.file.parent.absolute()
        return [here, beside] if "classifier" in self.overridden else [beside, here]

    def replacing(self, replacements: Mapping[str, str]) -> "LoadedSuite":
        """The suite with some data sets read by another adapter: ``{"cifar10": "imagefolder:PATH"}``.

        Raises:
            UsageError: The suite has no data set of that name.
        """
        suite = self.suite
        known: str | dict[str, Any] = suite.known
        unknown, validation = dict(suite.unknown), dict(suite.validation)
        for name, adapter in replacements.items():
            if name == suite.known_name:
                known = {"adapter": adapter, "name": name}
            elif name in unknown:
                unknown[name] = {"adapter": adapter, "group": unknown[name].get("group", "-")}
            elif name in validation:
                validation[name] = {"adapter": adapter}
            else:
                names = ", ".join([suite.known_name, *unknown, *validation])
                raise UsageError(f"the suite {suite.name} has no data set {name!r} to replace; it has: {names}.")
        updated = suite.model_copy(update={"known": known, "unknown": unknown, "validation": validation})
        return replace(self, suite=updated, replaced=self.replaced | replacements.keys())

    def with_classifier(
        self, classifier: str | None, weights: str | None, penultimate: str | None, transform: str | None = None
    ) -> "LoadedSuite":
        """The suite with another classifier, weights, penultimate layer or transform; None keeps the suite's.

        A new classifier does not inherit the suite's weights and penultimate layer: they belong to the old classifier.
        One that is trained has an output for each known class, in sorted order.
        A transform stands instead of the suite's preprocessing, and splits are drawn by the source images then.
        """
        options = {"classifier": classifier, "weights": weights, "penultimate": penultimate}
        changed: dict[str, Any] = {
            key: value for key, value in options.items() if value is not None or classifier is not None
        }
        if classifier is not None and weights is None:
            changed["classes"] = None
        if transform is not None:
            decoding = {key: getattr(self.suite.input, key) for key in OF_DECODING}
            changed |= {"input": Input(transform=transform, **decoding), "drawing": "source"}
        return replace(self, suite=self.suite.model_copy(update=changed), overridden=self.overridden | changed.keys())

    @contextmanager
    def blamed(self, *keys: str) -> Iterator[None]:
        """Add the file, line and key to a UsageError raised inside the context; overridden keys are not in the file."""
        try:
            yield
        except UsageError as error:
            if keys[0] in self.overridden:
                raise
            raise mistake(self.file, self.text, keys, str(error)) from error

    @contextmanager
    def blamed_source(self, name: str) -> Iterator[None]:
        """As ``blamed``, for the data set ``name``; if the user replaced it, the error names the replacement."""
        if name in self.replaced:
            try:
                yield
            except UsageError as error:
                raise UsageError(f"the replacement of {name}: {error}") from error
        else:
            table = "unknown" if name in self.suite.unknown else "validation"
            with self.blamed(*(["known"] if name == self.suite.known_name else [table, name])):
                yield


def read_suite(name_or_file: str) -> LoadedSuite:
    """Read a suite by its registered name or from a TOML file.

    Paths inside a user's own file are relative to that file. Those of the data sets of a registered suite are relative
    to the data folder, which is not known yet, and are left as they are.

    Raises:
        UsageError: The name is unknown, or the file is broken; the message names the line and the key.
        MissingPrerequisiteError: The file does not exist or cannot be read.
    """
    if name_or_file.endswith(".toml"):
        file, plugin = Path(name_or_file), None
    else:
        file, plugin = _registered(name_or_file), registry.get("suites", name_or_file)
    suite, text = _parse(file, is_registered=plugin is not None)
    return LoadedSuite(suite, name_or_file, file, text, plugin)


def _registered(name: str) -> Path:
    """The file of a registered suite.

    Raises:
        UsageError: The plugin is not the path of a file.
    """
    file = registry.load("suites", name)
    if not isinstance(file, (str, Path)):
        raise UsageError(f"the suite {name} is a {type(file).__name__}; expected the path of a TOML file.")
    return Path(file)


def _parse(path: Path, *, is_registered: bool) -> tuple[Suite, str]:
    """The suite in a file, with its paths made absolute, and the text of the file."""
    try:
        text = read_text(path, LARGEST).replace("\r\n", "\n")
    except OSError as cause:
        raise MissingPrerequisiteError(f"the suite file {path} cannot be read: {cause.strerror}.") from cause
    except UnreadableError as cause:
        raise UsageError(f"the suite file {path} {cause}; expected a TOML file.") from cause
    if text.count(".") > MOST_DOTS:
        raise UsageError(f"the suite file {path} has {text.count('.'):,} dots; expected at most {MOST_DOTS:,}.")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise UsageError(f"the suite file {path} is not TOML: {cause}{key_at(text, str(cause))}.") from cause
    except RecursionError as cause:
        raise UsageError(f"the suite file {path} is nested too deeply; expected tables of values.") from cause
    except ValueError as cause:  # a number of more digits than Python converts, or of more bits than TOML has
        raise UsageError(f"the suite file {path} is not TOML: {cause}.") from cause
    try:
        suite = Suite.model_validate(table)
    except ValidationError as cause:
        first = cause.errors()[0]
        # Below these, pydantic lists the type that it tried, which is not a key.
        keys = [str(key) for key in first["loc"]]
        raise mistake(path, text, keys[:1] if keys[0] in ("known", "classes") else keys, in_our_words(first)) from cause
    for keys, message in contradictions(suite):
        raise mistake(path, text, keys, message)
    try:
        _refuse_strange(table)
    except ValueError as cause:
        raise UsageError(f"the suite file {path} cannot be used: {cause}.") from cause
    try:
        return _with_absolute_paths(suite, path.parent, of_data=not is_registered), text
    except (OSError, RuntimeError, ValueError) as cause:
        raise UsageError(f"the suite file {path} names a path that is none: {cause}.") from cause


def _refuse_strange(value: object, depth: int = 0) -> None:
    """Refuse values that Python's TOML reader accepts although TOML does not allow them.

    Raises:
        ValueError: Tables are nested too deeply, a number has more than 64 bits, or a key is not printable.
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


def paths_below(folder: Path, source: Source) -> dict[str, Any]:
    """The parameters of a data set's adapter, with relative paths resolved against ``folder``."""
    paths = {
        key: str((folder / Path(str(value)).expanduser()).resolve())
        for key, value in source.parameters.items()
        if key in PATHS or (key in LISTS and source.adapter == "imagelist")
    }
    if source.adapter == "huggingface" and not Path(paths.get("path", "")).is_dir():
        return source.parameters  # a name on the Hub
    of = source.parameters.get("of")
    if isinstance(of, str | dict):  # another data set, which this one is made from
        table = {"adapter": of} if isinstance(of, str) else of
        return source.parameters | paths | {"of": table | paths_below(folder, source_of("of", table))}
    return source.parameters | paths


def _with_absolute_paths(suite: Suite, folder: Path, *, of_data: bool) -> Suite:
    """The suite with relative paths of weights resolved against ``folder``, and of adapters (``imagefolder:images``).

    Args:
        suite: The suite.
        folder: The folder of its file.
        of_data: Whether paths of adapters are resolved, too.
    """

    def absolute(name: str, table: dict[str, Any]) -> dict[str, Any]:
        source = source_of(name, table)
        located = paths_below(folder, source)
        if not of_data or located == source.parameters:
            return table
        kept = {key: table[key] for key in ("name",) if key in table}
        chosen = {} if source.split is None else {"split": source.split}
        return {"adapter": source.adapter, "group": source.group, **kept, **chosen, **located}

    known = {"adapter": suite.known, "name": suite.known_name} if isinstance(suite.known, str) else suite.known
    tables = {
        key: {name: absolute(name, table) for name, table in getattr(suite, key).items()}
        for key in ("unknown", "validation")
    }
    weights, classes = suite.weights, suite.classes
    if weights is not None and weights != PRETRAINED:
        weights = str((folder / Path(weights).expanduser()).resolve())
    if isinstance(classes, str) and classes not in CLASS_LISTS:
        classes = str((folder / Path(classes).expanduser()).resolve())
    paths = {"known": absolute(suite.known_name, known), **tables, "weights": weights, "classes": classes}
    return suite.model_copy(update=paths)
