"""How far a pass over images is: told to the journal every few seconds, and shown meanwhile."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from oodbench.journal.events import tell
from oodbench.machine.progress import Track

T = TypeVar("T")

# Seconds between two events of a pass.
EVERY_S = 5.0


def told(items: Iterable[T], images: Sequence[int], track: Track, description: str) -> Iterator[T]:
    """Yield the items of a pass over images, with events and a progress bar.

    Args:
        items: The items.
        images: For how many images each of them stands.
        track: Shows progress.
        description: What is done.
    """
    start = last = time.monotonic()
    done, total = 0, sum(images)
    try:
        for count, item in zip(images, track(items, len(images), description, images=images), strict=False):
            yield item
            done += count
            now = time.monotonic()
            if now - last >= EVERY_S:
                tell("images done", what=description, done=done, total=total, seconds=now - start)
                last = now
    finally:
        if last > start:
            tell("images done", what=description, done=done, total=total, seconds=time.monotonic() - start)
