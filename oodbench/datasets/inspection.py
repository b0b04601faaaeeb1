"""Decodes each image of a pool once: its digest, whether it can be read, and what was converted on the way."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.datasets.adapter import Decoded, Image, LazyImages, Pool, UnreadableImageError
from oodbench.datasets.decoding import NARROW, WIDE, Pictures
from oodbench.datasets.kept_digests import GENERATED, DigestStore, KeptDigests, Seen, Stamp, stamp_of
from oodbench.datasets.preparation import Preprocessing
from oodbench.errors import FROM_OUTSIDE, OodbenchError, UsageError, blaming, described, is_exhausted
from oodbench.machine.threads import processors

Drawing = Literal["source", "prepared"]
"""What splits are drawn by: the images as they are decoded, or as the classifier sees them."""
# Files that are looked at before what is seen of them is taken.
AT_ONCE = 1024
# Of these, those that a thread gets at once: few enough to share the work, and enough that sharing costs little.
OF_A_THREAD = 16
# What was seen is kept this often, so that a run that is killed need not look at all files again; less often where
# keeping takes more than a twentieth of the time.
EVERY_S, SHARE = 5.0, 20


@dataclass(frozen=True)
class InspectedPool:
    """A pool whose images were decoded once.

    Attributes:
        pool: The pool.
        digests: (N,): hash of each image; empty where it cannot be read.
        unreadable: Why images cannot be read, by position.
        remarks: What was converted or assumed, with the number of images.
        originals: (N,): hash of the image that each one is made from; None if they are made from none.
    """

    pool: Pool
    digests: NDArray[np.bytes_]
    unreadable: Mapping[int, str]
    remarks: Mapping[str, int]
    originals: NDArray[np.bytes_] | None = None

    def name_of(self, position: int) -> str:
        """What an image is called in messages."""
        names = self.pool.names
        return str(names[position]) if len(names) else f"image {position}"


def inspect_pool(
    pool: Pool, preprocessing: Preprocessing, drawing: Drawing, dataset: str, store: DigestStore
) -> InspectedPool:
    """Decode all images of a pool, but for files that are unchanged since, and for what was generated before.

    Args:
        pool: The pool.
        preprocessing: The classifier's preprocessing.
        drawing: What splits are drawn by.
        dataset: Name of the data set, for messages.
        store: The digests of files that were decoded before.

    Raises:
        UsageError: Nobody can say how many bits its images use.
    """

    def look(position: int) -> Seen | str:
        try:
            decoded = decoded_image(pool, position)
        except UnreadableImageError as error:
            return str(error)
        if drawing == "source":
            return Seen(source_digest(decoded.pixels), decoded.pixels.shape, decoded.remarks)
        with blaming(f"the data set {dataset}"):
            prepared = preprocessing.prepare([decoded.pixels])[0]
        return Seen(prepared_digest(prepared), decoded.pixels.shape, decoded.remarks)

    if drawing == "source" and isinstance(pool.images, Pictures):
        found = _of_files(pool.images, store.of(pool.images), look)
    elif isinstance(pool.images, LazyImages) and pool.images.made_of and preprocessing.transform is None:
        prepared_by = preprocessing.identity if drawing == "prepared" else None
        found = _of_generated(len(pool.images), store.of_generated(pool.images.made_of, prepared_by), look)
    else:
        found = map(look, range(len(pool.images)))
    digests: NDArray[np.bytes_] = np.zeros(len(pool.images), dtype="S32")
    unreadable: dict[int, str] = {}
    remarks: Counter[str] = Counter()
    for position, seen in enumerate(found):
        if isinstance(seen, str):
            unreadable[position] = seen
        else:
            digests[position] = seen.digest
            remarks.update(seen.remarks)
    if remarks[NARROW] and remarks[NARROW] == remarks[WIDE]:
        raise UsageError(
            f"{remarks[WIDE]:,} images of {dataset} have 16 bits a channel and no value above 4095, as those of 12 "
            "bits have; say how many bits they use by depth = 12 (or 16) in [input]."
        )
    del remarks[NARROW]
    return InspectedPool(pool, digests, unreadable, dict(remarks))


def _of_files(pictures: Pictures, kept: KeptDigests, look: Callable[[int], Seen | str]) -> Iterator[Seen | str]:
    """What is seen of each file, in order: what is kept, else what a look shows; several files are read at once."""

    def seen(positions: range) -> list[tuple[str, Stamp | None, Seen | str]]:
        names = [pictures.names[position] for position in positions]
        stamps = [stamp_of(pictures.folder / name) for name in names]
        return [
            (name, stamp, kept.find(name, stamp) or look(position))
            for position, name, stamp in zip(positions, names, stamps, strict=True)
        ]

    due = time.monotonic() + EVERY_S
    try:
        with ThreadPoolExecutor(processors()) as threads:
            for start in range(0, len(pictures), AT_ONCE):
                if (now := time.monotonic()) > due:
                    kept.write()
                    after = time.monotonic()
                    due = after + max(EVERY_S, SHARE * (after - now))
                positions = range(start, min(start + AT_ONCE, len(pictures)))
                tasks = [positions[i : i + OF_A_THREAD] for i in range(0, len(positions), OF_A_THREAD)]
                for name, stamp, found in chain.from_iterable(threads.map(seen, tasks)):
                    if isinstance(found, Seen):
                        kept.note(name, stamp, found)
                    yield found
    finally:
        kept.write()


def _of_generated(n: int, kept: KeptDigests, look: Callable[[int], Seen | str]) -> Iterator[Seen | str]:
    """What is seen of each generated image, in order: what is kept, else what a look shows."""
    for position in range(n):
        found = kept.find(str(position), GENERATED) or look(position)
        if isinstance(found, Seen):
            kept.note(str(position), GENERATED, found)
        yield found
    kept.write()


def source_digest(pixels: Image) -> bytes:
    """Hash of a decoded image: equal for a grey image and the same image with three equal channels."""
    is_grey = pixels.ndim == 3 and all(
        bool((some == some[..., :1]).all())
        for some in (pixels[0], pixels)  # the first row tells most pictures
    )
    plane = pixels[..., 0] if is_grey else pixels
    return _sha256(plane, f"{plane.shape}".encode())


def prepared_digest(prepared: NDArray[np.generic]) -> bytes:
    """Hash of a prepared image."""
    return _sha256(prepared)


def _sha256(pixels: NDArray[np.generic], before: bytes = b"") -> bytes:
    content = hashlib.sha256(before)
    content.update(np.ascontiguousarray(pixels).data)
    return content.hexdigest()[:32].encode()


def decoded_image(pool: Pool, position: int) -> Decoded:
    """An image with what was remarked in decoding it.

    Raises:
        UnreadableImageError: It cannot be read.
    """
    try:
        image = pool.images[position]
    except (OodbenchError, *FROM_OUTSIDE):
        raise
    except Exception as cause:
        if is_exhausted(cause):
            raise
        raise UnreadableImageError(f"image {position} raised {described(cause)}.") from cause
    decoded = image if isinstance(image, Decoded) else Decoded(np.asarray(image))
    pixels = decoded.pixels
    if pixels.dtype != np.uint8 or not pixels.size or not (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        raise UnreadableImageError(
            f"image {position} has dtype {pixels.dtype} and shape {pixels.shape}; expected uint8 (H, W) or (H, W, 3)."
        )
    return decoded
