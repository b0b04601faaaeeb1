"""Progress of long loops."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Passes on the items of a loop, and shows its progress."""

    def __call__(
        self, items: Iterable[T], total: int, description: str, *, images: Sequence[int] | None = None
    ) -> Iterable[T]:
        """Yield the items, of which there are ``total``; with ``images``, each stands for so many of them."""
        ...


def silent(items: Iterable[T], total: int, description: str, *, images: Sequence[int] | None = None) -> Iterator[T]:
    """A ``Track`` that shows nothing."""
    yield from items
