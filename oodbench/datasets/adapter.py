"""The contract of a data set adapter: a card that describes the data set, and a function that reads a split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench import registry
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.registry.parameters import resolve_parameters

Image = NDArray[np.uint8]


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
        split: ``train`` or ``test``.
        download: Whether the adapter may use the network.
        channels: Number of channels of the suite's input, for adapters that generate images.
        resolution: Height and width that images are first resized to, for adapters that generate images.
    """

    root: Path
    split: Literal["train", "test"]
    download: bool = False
    channels: int = 1
    resolution: int = 28


@dataclass(frozen=True)
class Pool:
    """The samples that an adapter returns for a request.

    Attributes:
        images: N arrays of uint8, (H, W) or (H, W, 3), light ink on dark ground where there is ink. They may be read
            lazily and differ in size.
        labels: int64 (N,), the class of each image; ignored in unknown sets.
        split: The split that was read; ``all`` if the data set has no train and test splits.
        classes: Names of the classes, by label; empty if the adapter does not know them.
    """

    images: Sequence[Image] | Image
    labels: NDArray[np.int64]
    split: str = "all"
    classes: tuple[str, ...] = ()


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
class LazyImages(Sequence[Image]):
    """A sequence of n images, each of which ``make(index)`` reads or generates when it is accessed."""

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
