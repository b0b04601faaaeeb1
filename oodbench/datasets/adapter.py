"""The contract of a data set adapter: a card that describes the data set, and a function that reads a split."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench import registry
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.registry.parameters import resolve_parameters

Image = NDArray[np.uint8]
HELD_OUT = ("test", "validation")
"""Names of splits that no classifier was trained on, in the order in which one is preferred for tests."""


class DataMissingError(MissingPrerequisiteError):
    """The files of a data set are missing.

    Attributes:
        looked_for: Description of the missing files, with their path.
        downloadable: Whether ``download=True`` would get them.
    """

    def __init__(self, looked_for: str, *, downloadable: bool, sentence: str | None = None) -> None:
        super().__init__(sentence or f"looked for {looked_for}")
        self.looked_for = looked_for
        self.downloadable = downloadable


class NoSuchSplitError(UsageError):
    """A data set has no such split, although its files are there."""


class UnreadableImageError(UsageError):
    """A file of a data set cannot be decoded; others can."""


@dataclass(frozen=True)
class Decoding:
    """How pictures become arrays of 8 bits a channel, where there is more than one way.

    Attributes:
        ground: Colour that transparent pixels are composited on: a name or ``#rrggbb``.
        orientation: ``stored`` takes the pixels as they are stored, as torchvision and timm do; ``exif`` turns them as
            the orientation in the EXIF data says.
        depth: Number of bits that pixels of more than 8 bits use; None takes 16, and refuses sets that seem to use
            fewer.
    """

    ground: str = "white"
    orientation: Literal["stored", "exif"] = "stored"
    depth: int | None = None


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes:
        pixels: uint8 (H, W) or (H, W, 3).
        remarks: What was converted or assumed, in words that follow "3 images", such as "are animated: their first
            frame is taken".
    """

    pixels: Image
    remarks: tuple[str, ...] = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Image:  # noqa: ANN401
        return np.array(self.pixels, dtype=dtype, copy=copy)


@dataclass(frozen=True)
class Card:
    """Description of a data set, shown to users and on leaderboards.

    Attributes:
        summary: One sentence.
        licence: Terms of use, as its authors state them.
        citation: Whom to cite.
        shape: Shape of an image as it is stored, such as ``28×28``.
        size: Official number of samples of each split; empty if there are no official splits.
        source: Where the data set can be obtained.
    """

    summary: str
    licence: str
    citation: str
    shape: str
    source: str
    size: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request to an adapter to read a split.

    Attributes:
        root: The data folder (``--data``).
        split: ``train``, or ``test`` for samples that are held out: the split ``test``, else a validation split, else
            all there is.
        download: Whether the adapter may use the network.
        channels: Number of channels of the suite's input, for adapters that generate images.
        resolution: Height and width that images are first resized to, for adapters that generate images.
        chosen: Name of the split that the suite asks for instead of ``test``; None leaves the choice to the adapter.
        decoding: How pictures become arrays.
    """

    root: Path
    split: Literal["train", "test"]
    download: bool = False
    channels: int = 1
    resolution: int = 28
    chosen: str | None = None
    decoding: Decoding = Decoding()


@dataclass(frozen=True)
class Pool:
    """The samples that an adapter returns for a request.

    Attributes:
        images: N arrays of uint8, (H, W) or (H, W, 3), light ink on dark ground where there is ink, or ``Decoded``
            ones. They may be read lazily and differ in size.
        labels: int64 (N,), the class of each image; ignored in unknown sets.
        split: The split that was read: ``train``, ``test``, ``validation``, or another name of the data set's;
            ``all`` if the data set has no splits.
        classes: Names of the classes, by label; empty if the adapter does not know them.
        names: What each image is called in messages, such as its file; empty if they have no names.
        left_out: Number of files that are left out, by the reason, in words that follow "3 files", such as "are no
            images".
        validation: Further held-out samples that detectors are fitted on (the known meta split), so that all of the
            test split is tested on; None cuts both from the test split.
        official: Number of samples of this split in the authors' release; None if only the card may state it.
        remarks: Number of images that something has to be said of, in words that follow "3 images", such as "are in
            another list than the official one".
        made_from: The samples that these are made from, at the same positions; None if they are no one else's.
    """

    images: "Sequence[Image | Decoded] | Image"
    labels: NDArray[np.int64]
    split: str = "all"
    classes: tuple[str, ...] = ()
    names: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    validation: "Pool | None" = None
    official: int | None = None
    remarks: Mapping[str, int] = field(default_factory=dict)
    made_from: "Pool | None" = None


def official_size(pool: Pool, card: Card) -> int | None:
    """Number of samples of a pool's split in the authors' release; None if neither the pool nor the card states it."""
    return card.size.get(pool.split) if pool.official is None else pool.official


@dataclass(frozen=True)
class DatasetPlugin:
    """A named adapter, made by the decorator ``@oodbench.dataset`` from a function."""

    name: str
    card: Card
    function: Callable[..., Pool]

    def read(self, request: Request, parameters: Mapping[str, object]) -> Pool:
        """Read a split.

        Raises:
            DataMissingError: Its files are missing.
            NoSuchSplitError: It has no such split.
            UsageError: A parameter is wrong, or the files are broken.
        """
        return self.function(request, **resolve_parameters(self.name, self.function, parameters))


def dataset(name: str, *, card: Card) -> Callable[[Callable[..., Pool]], DatasetPlugin]:
    """Decorator that makes a function ``(request, *, parameters…) -> Pool`` a data set adapter.

    Args:
        name: The name that users type.
        card: Description of the data set.
    """

    def decorate(function: Callable[..., Pool]) -> DatasetPlugin:
        plugin = DatasetPlugin(name, card, function)
        registry.declare("datasets", name, plugin, function.__module__, function.__qualname__)
        return plugin

    return decorate


def load_dataset(name: str) -> DatasetPlugin:
    """Import a data set adapter.

    Raises:
        UsageError: The name is unknown, or its target is not a data set adapter.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    entry = registry.get("datasets", name)
    plugin = registry.load("datasets", name)
    if type(plugin) is not DatasetPlugin:
        raise UsageError(f"the data set {entry.name} of {entry.distribution} is not decorated with @oodbench.dataset.")
    return plugin


@dataclass(frozen=True)
class LazyImages(Sequence[Image | Decoded]):
    """A sequence of n images, each of which ``make(index)`` reads or generates when it is accessed.

    Attributes:
        n: Their number.
        make: Makes an image from its index.
        made_of: All that generated images follow from, beside their index (see :func:`made_of`); what is equal in this
            has equal images, which are not made again to be told apart. Empty if nobody says.
    """

    n: int
    make: Callable[[int], Image | Decoded]
    made_of: str = field(default="", kw_only=True)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        if isinstance(index, slice):
            return [self.make(position) for position in range(*index.indices(self.n))]
        if not -self.n <= index < self.n:
            raise IndexError(index)
        return self.make(index % self.n)


def made_of(code: str, packages: Sequence[str], *values: object) -> str:
    """All that generated images follow from, for :class:`LazyImages`.

    Args:
        code: The file of the code that generates them.
        packages: The distributions that it uses, whose versions count.
        values: The values of its parameters.
    """
    versions = [f"{package} {version(package)}" for package in packages]
    return " ".join([hashlib.sha256(Path(code).read_bytes()).hexdigest(), *versions, repr(values)])
