"""Progress of long loops, told to whoever wants to show it."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Passes on the items of a loop and shows how far it is."""

    def __call__(self, items: Iterable[T], total: int, description: str) -> Iterable[T]:
        """The same items; ``total`` is their number."""
        ...


def silent(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Shows nothing."""
    yield from items
