"""Error messages about a suite file: a sentence with the file, line and key."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from oodbench.errors import UsageError
from oodbench.suites.schema import Group, Input, Sizes, Suite, Training

# Keys of [input] that say how pictures are decoded.
OF_DECODING = ("ground", "orientation", "depth")


def mistake(file: Path, text: str, keys: Sequence[str], message: str) -> UsageError:
    """The error for a mistake in a suite file.

    Args:
        file: The suite file.
        text: Its content.
        keys: Path of the wrong key, from the outermost table.
        message: What is wrong with the key.
    """
    where = f", key {'.'.join(keys)}" if keys else ""
    end = "" if message.endswith((".", "?")) else "."
    return UsageError(f"the suite file {file}{_line_of(text, keys)}{where}: {message}{end}")


def in_our_words(error: ErrorDetails) -> str:
    """A validation error of pydantic in the words of suite files, for use as ``message`` of ``mistake``."""
    table = str(error["loc"][0])
    match error["type"]:
        case "missing":
            return "it is missing"
        case "too_short" if table != "classes":
            return "it is empty; expected at least one"
        case "extra_forbidden":
            tables: dict[str, type[BaseModel]] = {"input": Input, "sizes": Sizes, "training": Training}
            offered = tables.get(table, Suite).model_fields
            return f"there is no such key; expected one of: {', '.join(offered)}"
        case _ if table == "classes":
            expected = "a file, a number from 2, or a list of at least two names"
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


def contradictions(suite: Suite) -> Iterator[tuple[list[str], str]]:
    """Mistakes in a suite whose keys are all of the right type: the path of the key and a sentence for each."""
    if not isinstance(suite.known, str) and not isinstance(suite.known.get("adapter"), str):
        yield ["known"], "it names no adapter"
    for name, table in suite.unknown.items():
        if table.get("group", "-") not in get_args(Group):
            yield ["unknown", name, "group"], f"the group is {table['group']!r}; expected 'near', 'far' or 'covariate'"
        if not isinstance(table.get("adapter", name), str):
            yield ["unknown", name, "adapter"], f"the adapter is {table['adapter']!r}; expected a name"
    for name, table in suite.validation.items():
        if "group" in table:
            yield ["validation", name, "group"], "sets of [validation] are never tested on, so they have no group"
        if not isinstance(table.get("adapter", name), str):
            yield ["validation", name, "adapter"], f"the adapter is {table['adapter']!r}; expected a name"
        if name in suite.unknown or name == suite.known_name:
            yield ["validation", name], "a set that is tested on has this name, too; give one of them another name"
    if suite.is_one_training and "seeds" in suite.model_fields_set and len(suite.seeds) > 1:
        yield (
            ["seeds"],
            (
                f"the weights {suite.weights} are those of one training, and there are {len(suite.seeds)} seeds; write "
                "{seed} where the names of several files have the seed, or leave one seed"
            ),
        )
    yield from _wrong_normalisation(suite.input, has_preset=suite.has_preset)
    yield from _wrong_preprocessing(suite)
    if suite.known_name in suite.unknown:
        yield ["unknown", suite.known_name], "it is both the known and an unknown set; give one of them another name"


def _wrong_normalisation(input: Input, *, has_preset: bool) -> Iterator[tuple[list[str], str]]:
    for key, values, partner in (("mean", input.mean, "std"), ("std", input.std, "mean")):
        if values is None and getattr(input, partner) is not None and not has_preset:
            yield ["input", partner], f"there is no {key} to go with it; expected both or neither"
        # A preset says how many channels there are.
        if values is not None and len(values) != input.channels and not has_preset:
            count = f"{len(values)} number{'s' if len(values) != 1 else ''}"
            expected = f"{input.channels} number{'s' if input.channels != 1 else ''}"
            yield ["input", key], f"it has {count}; expected {expected}, one for each channel"


def _wrong_preprocessing(suite: Suite) -> Iterator[tuple[list[str], str]]:
    input, given = suite.input, suite.input.model_fields_set
    others = [key for key in Input.model_fields if key in given and key not in ("transform", *OF_DECODING)]
    if input.transform is not None and others:
        yield ["input", others[0]], "there is a transform, which stands instead of it; expected one of both"
    if input.resize is not None and input.resize < input.size and "size" in given:
        yield ["input", "resize"], f"it is below the size {input.size} that is cut out; expected at least as much"
    squares = [key for key in ("resolution", "levels") if key in given]
    if squares and (input.resize is not None or suite.has_preset):
        with_what = "resize" if input.resize is not None else "the preset of the classifier's weights"
        yield ["input", squares[0]], f"it does not go together with {with_what}; expected one of both"
    if suite.drawing == "prepared" and (input.transform is not None or suite.has_preset):
        yield (
            ["drawing"],
            "splits cannot be drawn by the prepared images of a transform or preset; expected drawing = 'source'",
        )


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _line_of(text: str, keys: Sequence[str]) -> str:
    """``, line 7``: the line that sets the key, or else the nearest table or key around it; empty if there is none."""
    best, depth = 0, 0
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        # Possessive quantifiers: backtracking on a long line would take for ever.
        header = re.match(r"\s*+\[++([^\[\]]++)\]", line)
        key = re.match(r"([\w.\"' \t-]++)=", line)
        if header:
            table = _split_key(header.group(1))
        path = table if header else [*table, *_split_key(key.group(1))] if key else None
        if path is not None and len(path) > depth and path == list(keys[: len(path)]):
            best, depth = number, len(path)
    return f", line {best}" if best else ""


def _split_key(dotted: str) -> list[str]:
    return [key.strip(" \t\"'") for key in dotted.split(".")]


def key_at(text: str, message: str) -> str:
    """``, key seeds``: the key at or before the line that a TOML syntax error names; empty if there is none."""
    line = re.search(r"line (\d+)", message)
    lines = text.splitlines()
    number = int(line.group(1)) if line else len(lines)
    for candidate in reversed(lines[:number]):
        key = re.match(r"\s*([\w.-]+)\s*=", candidate)
        if key:
            return f", key {key.group(1)}"
    return ""
