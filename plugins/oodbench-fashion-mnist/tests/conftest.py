"""Small files in the real format, which the kit reads where no data folder is named."""

import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Arrays = dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def write_idx(file: Path, array: NDArray[np.uint8]) -> None:
    """Big-endian: two zero bytes, 8 for unsigned bytes, the number of dimensions, the shape, the values."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    file.write_bytes(header + array.tobytes())


def write_files(root: Path) -> Arrays:
    """Random images and labels by split, more of them in the training split."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, part, n in (("train", "train", 30), ("test", "t10k", 20)):
        images = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, n, dtype=np.uint8)
        write_idx(root / "FashionMNIST" / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(root / "FashionMNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels)
        arrays[split] = (images, labels)
    return arrays


@pytest.fixture
def write() -> Callable[[Path], Arrays]:
    """The function that writes them to a data folder."""
    return write_files


# The kit asks for the folder while tests are collected, which is before any fixture.
_folder = tempfile.TemporaryDirectory()
write_files(Path(_folder.name))
os.environ.setdefault("OODBENCH_DATA", _folder.name)
