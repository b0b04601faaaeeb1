"""Adapter for lists of image files with their labels, as OpenOOD and many others use them."""

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.datasets.adapter import Card, DataMissingError, Pool, Request, dataset
from oodbench.datasets.decoding import read_pictures
from oodbench.datasets.layout import image_endings, pick_split
from oodbench.errors import UsageError, listed
from oodbench.files.bounded_io import MIB, UnreadableError, read_text

LARGEST = 256 * MIB
"""Maximum size of a list: more than the 1.3 million lines of ImageNet's training set need."""

UNLABELLED = "-1"
_Split = Literal["train", "validation", "test"]
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?")
_QUOTED = r'"(?:[^"\\]|\\.)*"|\'[^\']*\''
_QUOTED_PATH = re.compile(rf"({_QUOTED})(?:(?:\s*[\s,]\s*)({_QUOTED}|[^\s,\"'].*))?")
_QUOTED_LABEL = re.compile(rf"(.*?)\s*[\s,]\s*({_QUOTED})")


@dataclass(frozen=True)
class ImageList:
    """The lines of a list.

    Attributes:
        file: The list.
        paths: Paths of N images, as they are written there.
        labels: N labels, as they are written there; ``-1`` for an image without label.
    """

    file: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]


@dataset(
    "imagelist",
    card=Card(
        "Images that a list names, in lines of `path label`.",
        licence="its owner's",
        citation="its owner's",
        shape="any",
        source="your files",
    ),
)
def imagelist(
    request: Request,
    *,
    path: Path | None = None,
    train: Path | None = None,
    validation: Path | None = None,
    test: Path | None = None,
    root: Path | None = None,
    official: int | Mapping[_Split, int] | None = None,
    sha256: str | None = None,
    invert: bool = False,
) -> Pool:
    """Images of a list, or of a list a split; a line is ``path label``, separated by spaces, a tab or a comma.

    The label is the last field: a whole number, or the name of a class; −1 if the class is unknown. Paths and names
    with spaces may be quoted. Empty lines and those that begin with ``#`` are skipped.

    Args:
        request: The split to read.
        path: The only list, whose lines may lack labels; or else:
        train: The list of the training samples.
        validation: The list of the samples that detectors are fitted on, or tested on if there is no ``test``.
        test: The list of the samples that detectors are tested on.
        root: The folder that paths are relative to; by default that of the list.
        official: The number of lines that the official list has, or those of the lists of ``train``, ``validation`` and
            ``test``, so that boards say where a list is shorter; it changes nothing else.
        sha256: Hash of the official list that ``path`` names, with lines that end in a line feed, so that it is said if
            another one is used.
        invert: Whether the ink is dark on light ground and has to be inverted.
    """
    given = {"train": train, "validation": validation, "test": test}
    files = {split: file.expanduser() for split, file in given.items() if file is not None}
    if path is not None and not files:
        files = {"all": path.expanduser()}
    elif path is not None or not files:
        found = f"both path and {', '.join(files)}" if files else "no list"
        raise UsageError(f"imagelist has {found}; expected either path, or some of train, validation and test.")
    sizes = _official_sizes(official, files)
    if sha256 is not None and path is None:
        raise UsageError("imagelist has the parameter sha256 without path; expected it for a single list only.")
    split = pick_split(request, files, f"imagelist with {', '.join(map(str, files.values()))}")
    texts = {name: _content(file) for name, file in files.items()}
    lists = {name: parse(file, texts[name], needs_labels=path is None) for name, file in files.items()}
    numbers, classes = number_labels(list(lists.values()))
    used = (split, "validation") if split == "test" and "validation" in lists else (split,)
    folders = {name: root.expanduser() if root is not None else lists[name].file.parent for name in used}
    _refuse_missing([(lists[name], folders[name]) for name in used])
    pools = {
        name: Pool(
            read_pictures(folders[name], lists[name].paths, request.decoding, invert=invert),
            np.fromiter(map(numbers.__getitem__, lists[name].labels), dtype=np.int64, count=len(lists[name].labels)),
            name,
            classes,
            lists[name].paths,
            official=sizes.get(name),
            remarks=_remarks_on(lists[name], texts[name], sizes.get(name), sha256),
        )
        for name in used
    }
    return replace(pools[split], validation=pools["validation"]) if len(used) > 1 else pools[split]


def _official_sizes(official: int | Mapping[_Split, int] | None, lists: Collection[str]) -> dict[str, int]:
    """The official number of lines of each list, as far as it is stated.

    Raises:
        UsageError: There is one number for several lists, or one for a list that there is not.
    """
    if isinstance(official, int) and "all" in lists:
        return {"all": official}
    if isinstance(official, int) or not (official or {}).keys() <= set(lists):
        found = official if isinstance(official, int) else f"numbers for {', '.join(official or {})}"
        needed = "one number" if "all" in lists else f"a table with a number for each of {', '.join(lists)}"
        raise UsageError(f"the parameter official of imagelist has {found}; expected {needed}.")
    return {str(name): n for name, n in (official or {}).items()}


def parse(file: Path, text: str, *, needs_labels: bool) -> ImageList:
    """Read the lines of a list.

    Args:
        file: The list, for messages.
        text: Its content.
        needs_labels: Whether a line without label is a mistake.

    Raises:
        UsageError: Lines are malformed, of which the first ten are named; or there are none.
    """
    endings = image_endings()
    paths: list[str] = []
    labels: list[str] = []
    mistakes: list[str] = []
    for number, line in enumerate(_with_line_feeds(text).split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        fields = _fields(stripped, endings)
        if fields is None:
            mistakes.append(f"line {number} ({stripped:.60}) has quotes that do not enclose its path or label")
            continue
        image, label = fields
        if needs_labels and not label:
            mistakes.append(f"line {number} ({stripped:.60}) has no label")
        elif _FRACTION.fullmatch(label):
            mistakes.append(f"line {number} has the label {label}, which is no whole number")
        paths.append(image)
        labels.append(label or UNLABELLED)
    if mistakes:
        raise UsageError(f"the list {file} has lines other than `path label`: {listed(mistakes, separator='; ')}.")
    if not paths:
        raise UsageError(f"the list {file} names no image; expected lines of `path label`.")
    return ImageList(file, tuple(paths), tuple(labels))


def _fields(line: str, endings: frozenset[str]) -> tuple[str, str] | None:
    """Path and label of a line, the label empty if there is none; None if quotes are not closed.

    What ends like an image file is no label, so that a path with spaces may stand alone.
    """
    if line[0] in "\"'":
        match = _QUOTED_PATH.fullmatch(line)
        return None if match is None else (_unquoted(match[1]), _unquoted(match[2] or ""))
    if line[-1] in "\"'":
        match = _QUOTED_LABEL.fullmatch(line)
        return None if match is None else (match[1], _unquoted(match[2]))
    if "\t" in line:
        image, _, label = line.rpartition("\t")
    else:
        image, _, label = line.rpartition(" ")
        if "," in label:
            image, _, label = line.rpartition(",")
    image, label = image.rstrip(" \t,"), label.strip()
    if not image or ("." in label and os.path.splitext(label)[1].lower() in endings):
        return line, ""
    return image, label


def _unquoted(field: str) -> str:
    if field[:1] == '"':
        return re.sub(r'\\(["\\])', r"\1", field[1:-1])
    return field[1:-1] if field[:1] == "'" else field


def number_labels(lists: Sequence[ImageList]) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """The numbers of the labels of all lists together, and the names of the classes, sorted, if the labels are names.

    Labels that are numbers keep them, and −1 is always −1.

    Raises:
        UsageError: Some labels are numbers, others names.
    """
    found = sorted({label for one in lists for label in one.labels} - {UNLABELLED})
    numeric = [_NUMBER.fullmatch(label) is not None for label in found]
    if all(numeric):
        return {label: int(label) for label in [*found, UNLABELLED]}, ()
    if any(numeric):
        name = found[numeric.index(False)]
        raise UsageError(
            f"the lists {', '.join(str(one.file) for one in lists)} have labels that are numbers, such as "
            f"{found[numeric.index(True)]}, and labels that are names, such as {name}; expected one kind."
        )
    return {UNLABELLED: -1} | {name: number for number, name in enumerate(found)}, tuple(found)


def _remarks_on(read: ImageList, text: str, official: int | None, sha256: str | None) -> dict[str, int]:
    """That a list is another one than the official one, unless it is shorter, which is said anyway."""
    n = len(read.paths)
    if official is not None and n != official:
        is_other = n > official
    else:
        content = _with_line_feeds(text).encode()
        is_other = sha256 is not None and hashlib.sha256(content).hexdigest() != sha256.lower()
    return {"are in another list than the official one": n} if is_other else {}


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _content(file: Path) -> str:
    """The text of a list.

    Raises:
        DataMissingError: There is no such file.
        UsageError: It is no text, or too large.
    """
    try:
        text = read_text(file, LARGEST)
    except FileNotFoundError as cause:
        raise DataMissingError(f"the list {file}", downloadable=False) from cause
    except OSError as cause:
        raise UsageError(f"the list {file} cannot be read: {cause.strerror}.") from cause
    except UnreadableError as cause:
        raise UsageError(f"the list {file} {cause}; expected lines of `path label`.") from cause
    if "\0" in text:
        raise UsageError(f"the list {file} is no text; expected lines of `path label`.")
    return text


def _refuse_missing(lists: Sequence[tuple[ImageList, Path]]) -> None:
    """Stop if images of the lists are missing in their folders.

    Raises:
        DataMissingError: Some are; the message has their number, and names the first ten.
    """
    missing: list[str] = []
    for one, folder in lists:
        base = str(folder)
        missing += [image for image in one.paths if not os.path.isfile(os.path.join(base, image))]
    if missing:
        named = sum(len(one.paths) for one, _ in lists)
        folders = " and ".join(dict.fromkeys(str(folder) for _, folder in lists))
        raise DataMissingError(
            f"{len(missing):,} of the {named:,} images of {' and '.join(str(one.file) for one, _ in lists)}, in "
            f"{folders}: {listed(missing)}",
            downloadable=False,
        )
