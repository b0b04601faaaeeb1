"""The checks of data set adapters."""

import hashlib
import socket
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from oodbench.conformance.check import Check, NonconformityError, NotApplicableError, promise
from oodbench.datasets.adapter import Card, DataMissingError, DatasetPlugin, NoSuchSplitError, Pool, Request
from oodbench.errors import OodbenchError

# How many images are looked at, spread evenly.
SOME = 64
MANY = 5000

CHECKS: list[Check] = []


@dataclass
class CheckedDataset:
    """An adapter that is checked.

    Attributes:
        plugin: The adapter.
        parameters: Its parameters.
        root: The data folder.
    """

    plugin: DatasetPlugin
    parameters: Mapping[str, object] = field(default_factory=dict)
    root: Path = Path()

    def read(self, split: Literal["train", "test"] = "test", root: Path | None = None) -> Pool:
        """Read one split without network.

        Raises:
            NotApplicableError: The files of the data set are not there, or it has no such split.
        """
        try:
            with _no_network():
                return self.plugin.read(Request(root or self.root, split), self.parameters)
        except DataMissingError as missing:
            raise NotApplicableError(f"its files are not there: {missing}") from missing
        except NoSuchSplitError as missing:
            raise NotApplicableError(f"it has no split {split}: {missing}") from missing


@promise("its card says what it is", CHECKS)
def has_a_card(checked: CheckedDataset) -> None:
    """Every field that people and boards need has a text."""
    card = checked.plugin.card
    texts = {entry.name: getattr(card, entry.name) for entry in fields(Card) if entry.name != "size"}
    empty = [name for name, text in texts.items() if not (isinstance(text, str) and text.strip())]
    if empty:
        raise NonconformityError(f"its card has no text about: {', '.join(empty)}")


@promise("its splits hold images and labels", CHECKS)
def holds_images_and_labels(checked: CheckedDataset) -> None:
    """Images are uint8 (H, W) or (H, W, 3), labels int64 (N,), and a split is what was asked for, or everything."""
    for split in ("train", "test"):
        pool = checked.read(split)
        n = len(pool.images)
        if n == 0:
            raise NonconformityError(f"its {split} split is empty")
        if pool.split not in (split, "all"):
            raise NonconformityError(f"asked for {split}, it returns the split {pool.split!r}; expected that, or 'all'")
        if pool.labels.dtype != np.int64 or pool.labels.shape != (n,):
            raise NonconformityError(
                f"its labels are {pool.labels.dtype} {pool.labels.shape}; expected int64 ({n},), one an image"
            )
        for position in _spread(n, SOME):
            image = np.asarray(pool.images[position])
            shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
            if image.dtype != np.uint8 or not shaped or not image.size:
                raise NonconformityError(
                    f"its image {position} is {image.dtype} {image.shape}; expected uint8 (H, W) or (H, W, 3)"
                )


@promise("reading it again gives the same", CHECKS)
def repeats_itself(checked: CheckedDataset) -> None:
    """The same images and labels in the same order."""
    first, second = checked.read(), checked.read()
    if not np.array_equal(first.labels, second.labels) or _digests(first, SOME) != _digests(second, SOME):
        raise NonconformityError("read twice, its images or labels differ; expected the same in the same order")


@promise("an image depends on its index alone", CHECKS)
def depends_on_the_index_alone(checked: CheckedDataset) -> None:
    """Neither the order of reading nor the number of threads matters."""
    pool = checked.read()
    positions = _spread(len(pool.images), SOME)
    expected = [_digest(pool, position) for position in positions]
    backwards = [_digest(pool, position) for position in reversed(positions)][::-1]
    with ThreadPoolExecutor(4) as workers:
        together = list(workers.map(lambda position: _digest(pool, position), positions))
    if not expected == backwards == together:
        raise NonconformityError(
            "read in another order or by several workers, some of its images are others; expected image i to be the "
            "same whenever it is asked for"
        )


@promise("its images are a sequence", CHECKS)
def is_a_sequence(checked: CheckedDataset) -> None:
    """Indexing beyond its end raises IndexError, and slices hold the images of their indices."""
    images = checked.read().images
    n = len(images)
    try:
        images[n]
    except IndexError:
        pass
    else:
        raise NonconformityError(f"it has {n} images and returns one at index {n}; expected an IndexError")
    if not np.array_equal(np.asarray(images[n - 1 : n][0]), np.asarray(images[n - 1])):
        raise NonconformityError("the slice of its last image holds another image")


@promise("train and test share no image", CHECKS)
def separates_its_splits(checked: CheckedDataset) -> None:
    """Compared by content; otherwise a classifier would be tested on images that it was trained on."""
    train, test = checked.read("train"), checked.read("test")
    if test.split == "all" or train.split == "all":
        raise NotApplicableError("it has no splits of its own")
    shared = set(_digests(train, MANY)) & set(_digests(test, MANY))
    if shared:
        raise NonconformityError(f"{len(shared)} images are in both its splits; expected none")


@promise("its classes have names, or none has", CHECKS)
def names_its_classes(checked: CheckedDataset) -> None:
    """Every label has a name."""
    pool = checked.read()
    if not pool.classes:
        raise NotApplicableError("it names no classes")
    if pool.labels.min() < 0 or pool.labels.max() >= len(pool.classes):
        raise NonconformityError(
            f"its labels go from {pool.labels.min()} to {pool.labels.max()}, and it names {len(pool.classes)} classes"
        )


@promise("it is no larger than its card says", CHECKS)
def fits_its_card(checked: CheckedDataset) -> None:
    """The official number of samples of a split is an upper limit."""
    pool = checked.read()
    official = checked.plugin.card.size.get(pool.split)
    if official is None:
        raise NotApplicableError(f"its card gives no size of the split {pool.split}")
    if len(pool.images) > official:
        raise NonconformityError(f"its split {pool.split} has {len(pool.images)} images; its card says {official}")


@promise("reading it writes nothing", CHECKS)
def writes_nothing(checked: CheckedDataset) -> None:
    """The data folder is as it was."""
    before = _listing(checked.root)
    checked.read()
    changed = before ^ _listing(checked.root)
    if changed:
        raise NonconformityError(f"reading it changes {sorted(changed)[0][0]} in the data folder; expected nothing")


@promise("in an empty folder it says what it looked for", CHECKS)
def says_what_it_looked_for(checked: CheckedDataset) -> None:
    """It needs no files or raises DataMissingError; it downloads nothing unless asked to."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            checked.read(root=Path(folder))
        except NotApplicableError as missing:
            if folder not in str(missing) and not checked.parameters:
                raise NonconformityError(
                    f"without its files it says {str(missing)!r}; expected the folder it looked in"
                ) from missing
        except OodbenchError as error:
            raise NonconformityError(
                f"without its files it raises {type(error).__name__}: {error}; expected a DataMissingError"
            ) from error


def _spread(n: int, some: int) -> list[int]:
    return sorted({int(position) for position in np.linspace(0, n - 1, min(n, some))})


def _digest(pool: Pool, position: int) -> str:
    image = np.asarray(pool.images[position])
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def _digests(pool: Pool, some: int) -> list[str]:
    return [_digest(pool, position) for position in _spread(len(pool.images), some)]


def _listing(folder: Path) -> set[tuple[str, int]]:
    """Names and times of change of at most ``MANY`` files below a folder, as a home folder may hold very many."""
    entries: set[tuple[str, int]] = set()
    for path in folder.rglob("*"):
        entries.add((str(path), path.lstat().st_mtime_ns))
        if len(entries) >= MANY:
            break
    return entries


@contextmanager
def _no_network() -> Iterator[None]:
    """Inside, opening a network connection raises NonconformityError."""
    original = socket.socket.connect

    def refuse(*_: Any) -> NoReturn:  # noqa: ANN401
        raise NonconformityError("it uses the network though `download` is False")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = original  # type: ignore[method-assign]
