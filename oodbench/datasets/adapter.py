"""The contract of a data set adapter: a card that says what it is, and a function that reads one of its splits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench import registry
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.parameters import resolve

Image = NDArray[np.uint8]


class DataMissingError(MissingPrerequisiteError):
    """The files of a data set are not there.

    Attributes:
        looked_for: What was looked for, and where.
        downloadable: Whether ``download=True`` would get them.
    """

    def __init__(self, looked_for: str, *, downloadable: bool) -> None:
        super().__init__(f"looked for {looked_for}")
        self.looked_for = looked_for
        self.downloadable = downloadable


@dataclass(frozen=True)
class Card:
    """What a data set is, for people and for boards.

    Attributes:
        summary: One sentence.
        licence: Terms of use, as its authors state them.
        citation: Whom to cite.
        shape: Shape of one image as it is stored, such as ``28×28``.
        size: Official number of samples of each split; empty if there is none.
        source: Where it comes from.
    """

    summary: str
    licence: str
    citation: str
    shape: str
    source: str
    size: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What an adapter is asked for.

    Attributes:
        root: The data folder (``--data``).
        split: ``train`` or ``test``.
        download: Whether it may use the network.
        channels: Channels of the suite's input, for adapters that make images up.
        resolution: Height and width that images are first brought to, for the same adapters.
    """

    root: Path
    split: Literal["train", "test"]
    download: bool = False
    channels: int = 1
    resolution: int = 28


@dataclass(frozen=True)
class Pool:
    """The samples that an adapter found.

    Attributes:
        images: N arrays of uint8, (H, W) or (H, W, 3), light ink on dark ground where there is ink. They may be read
            lazily and differ in size.
        labels: int64 (N,), the class of each image; of no meaning in unknown sets.
        split: The split it really is: ``all`` where the data set has no train and test splits.
        classes: The name of each class by its number, where the adapter knows it.
    """

    images: Sequence[Image] | Image
    labels: NDArray[np.int64]
    split: str = "all"
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetPlugin:
    """A named adapter: what ``@oodbench.dataset`` makes of a function."""

    name: str
    card: Card
    function: Callable[..., Pool]

    def read(self, request: Request, parameters: Mapping[str, object]) -> Pool:
        """Read one split.

        Raises:
            DataMissingError: Its files are not there.
            UsageError: A parameter is wrong, or the files are broken.
        """
        return self.function(request, **resolve(self.name, self.function, parameters))


def dataset(name: str, *, card: Card) -> Callable[[Callable[..., Pool]], DatasetPlugin]:
    """Make a data set adapter of a function ``(request, *, parameters…) -> Pool``.

    Args:
        name: The name that users type.
        card: What the data set is.
    """

    def decorate(function: Callable[..., Pool]) -> DatasetPlugin:
        plugin = DatasetPlugin(name, card, function)
        registry.declare("datasets", name, plugin, function.__module__, function.__qualname__)
        return plugin

    return decorate


def load_dataset(name: str) -> DatasetPlugin:
    """Import a data set adapter.

    Raises:
        UsageError: The name is unknown, or what it is loaded from is no adapter.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    entry = registry.get("datasets", name)
    plugin = registry.load("datasets", name)
    if type(plugin) is not DatasetPlugin:
        raise UsageError(f"the data set {entry.name} of {entry.distribution} is not decorated with @oodbench.dataset.")
    return plugin


@dataclass(frozen=True)
class LazyImages(Sequence[Image]):
    """N images of which each is made or read when it is asked for."""

    n: int
    make: Callable[[int], Image]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        if isinstance(index, slice):
            return [self.make(position) for position in range(*index.indices(self.n))]
        if not -self.n <= index < self.n:
            raise IndexError(index)
        return self.make(index % self.n)
