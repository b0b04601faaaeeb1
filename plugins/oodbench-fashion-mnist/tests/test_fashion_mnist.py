"""The contract of oodbench, and the adapter on small files in the real format; nothing is downloaded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from oodbench_fashion_mnist import fashion_mnist
from torchvision.datasets import FashionMNIST

from oodbench.datasets.adapter import DataMissingError, Request
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.testing import parametrize_with_checks

Write = Callable[[Path], dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]


@parametrize_with_checks([fashion_mnist])
def test_conformance(plugin: object, check: Callable[[object], None]) -> None:
    """One test for each thing that the contract asks for."""
    check(plugin)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_files_of_each_split_are_read(tmp_path: Path, write: Write, split: str) -> None:
    """To the last pixel and label."""
    images, labels = write(tmp_path)[split]
    pool = fashion_mnist.read(Request(tmp_path, split), {})
    assert np.array_equal(np.stack(list(pool.images)), images)
    assert np.array_equal(pool.labels, labels)
    assert pool.labels.dtype == np.int64
    assert pool.split == split
    assert len(pool.classes) == 10
    assert pool.classes[9] == "Ankle boot"


def test_missing_files_are_told_by_name(tmp_path: Path, write: Write) -> None:
    """All of them, or the only one that is not there."""
    with pytest.raises(DataMissingError, match="train-images-idx3-ubyte") as told:
        fashion_mnist.read(Request(tmp_path, "test"), {})
    assert told.value.downloadable
    write(tmp_path)
    lost = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    lost.unlink()
    with pytest.raises(DataMissingError, match=f"looked for {lost}"):
        fashion_mnist.read(Request(tmp_path, "test"), {})


def test_damaged_files_are_told(tmp_path: Path, write: Write) -> None:
    """A file that ends too early."""
    write(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UsageError, match="damaged"):
        fashion_mnist.read(Request(tmp_path, "test"), {})


def test_it_downloads_only_where_that_is_allowed(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of torchvision's download, files are written; without, the network is unreachable."""
    monkeypatch.setattr(FashionMNIST, "download", lambda self: write(Path(self.root)))
    assert len(fashion_mnist.read(Request(tmp_path / "new", "test", download=True), {}).labels) == 20

    def fail(self: FashionMNIST) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(FashionMNIST, "download", fail)
    with pytest.raises(MissingPrerequisiteError, match="failed: no route to host; check the connection"):
        fashion_mnist.read(Request(tmp_path / "other", "test", download=True), {})
