"""Progress of long loops."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Passes on the items of a loop, and shows its progress."""

    def __call__(self, items: Iterable[T], total: int, description: str) -> Iterable[T]:
        """Yield the items, of which there are ``total``."""
        ...


def silent(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """A ``Track`` that shows nothing."""
    yield from items
