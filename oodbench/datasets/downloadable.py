"""Public data sets, read by torchvision; the network is used only if the request allows it."""

import io
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from oodbench.datasets.adapter import Card, DataMissingError, Image, LazyImages, Pool, Request, dataset
from oodbench.datasets.layout import pick_split
from oodbench.errors import MissingPrerequisiteError, UsageError

_SPLITS = ("train", "test")
_IDX = ("images-idx3-ubyte", "labels-idx1-ubyte")
_EMNIST_CITATION = "Cohen, Afshar, Tapson, van Schaik 2017: EMNIST, an extension of MNIST to handwritten letters"


@dataset(
    "emnist-digits",
    card=Card(
        summary="Handwritten digits of NIST Special Database 19, classes balanced.",
        licence="public domain (NIST Special Database 19)",
        citation=f"{_EMNIST_CITATION}, arXiv 1702.05373",
        shape="28×28",
        size={"train": 240_000, "test": 40_000},
        source="torchvision.datasets.EMNIST, split digits",
    ),
)
def emnist_digits(request: Request) -> Pool:
    """EMNIST digits, turned upright."""
    return _emnist(request, "digits")


@dataset(
    "emnist-letters",
    card=Card(
        summary="Handwritten letters of NIST Special Database 19, upper and lower case merged into 26 classes.",
        licence="public domain (NIST Special Database 19)",
        citation=f"{_EMNIST_CITATION}, arXiv 1702.05373",
        shape="28×28",
        size={"train": 124_800, "test": 20_800},
        source="torchvision.datasets.EMNIST, split letters",
    ),
)
def emnist_letters(request: Request) -> Pool:
    """EMNIST letters, turned upright."""
    return _emnist(request, "letters")


@dataset(
    "mnist",
    card=Card(
        summary="Handwritten digits.",
        licence="CC BY-SA 3.0",
        citation="LeCun, Cortes, Burges 1998: The MNIST database of handwritten digits",
        shape="28×28",
        size={"train": 60_000, "test": 10_000},
        source="torchvision.datasets.MNIST",
    ),
)
def mnist(request: Request) -> Pool:
    """MNIST."""
    from torchvision.datasets import MNIST

    raw = request.root / "MNIST" / "raw"
    files = [
        raw / f"{prefix}-{kind}" for prefix in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    split = pick_split(request, _SPLITS, "mnist")
    samples = _open_or_download(
        lambda download: MNIST(request.root, train=split == "train", download=download), request, files
    )
    return Pool(samples.data.numpy(), samples.targets.numpy().astype(np.int64), split)


@dataset(
    "cifar10",
    card=Card(
        summary="Small colour photographs of ten classes of animals and vehicles.",
        licence="not stated by its authors; for research",
        citation="Krizhevsky 2009: Learning multiple layers of features from tiny images",
        shape="32×32×3",
        size={"train": 50_000, "test": 10_000},
        source="torchvision.datasets.CIFAR10",
    ),
)
def cifar10(request: Request) -> Pool:
    """CIFAR-10; torchvision checks the MD5 of its batches before it reads them."""
    from torchvision.datasets import CIFAR10

    folder = request.root / CIFAR10.base_folder
    split = pick_split(request, _SPLITS, "cifar10")
    samples = _open_or_download(
        lambda download: CIFAR10(request.root, train=split == "train", download=download), request, [folder]
    )
    return Pool(samples.data, np.asarray(samples.targets, dtype=np.int64), split)


@dataset(
    "omniglot",
    card=Card(
        summary="Handwritten characters of 30 alphabets, 20 drawings each (the background set), or of the ten "
        "alphabets of the two small background sets.",
        licence="MIT",
        citation="Lake, Salakhutdinov, Tenenbaum 2015: Human-level concept learning through probabilistic program "
        "induction, Science 350",
        shape="105×105, black and white",
        size={"all": 19_280},
        source="torchvision.datasets.Omniglot, or images_background_small1.zip and images_background_small2.zip of "
        "github.com/brendenlake/omniglot",
    ),
)
def omniglot(request: Request) -> Pool:
    """Omniglot's background set, or its author's small background archives; inverted to light ink on dark ground."""
    from torchvision.datasets import Omniglot

    folder = request.root / "omniglot-py"
    archives = sorted(folder.glob("images_background_small[12].zip"))
    whole = (folder / "images_background.zip").exists()
    if archives and not whole:
        return _omniglot_archives(archives)
    files = [folder / "images_background.zip", folder / "images_background"]
    drawings = _open_or_download(
        lambda download: Omniglot(request.root, background=True, download=download),
        request,
        files,
        otherwise="images_background_small1.zip and images_background_small2.zip",
    )
    labels = np.asarray([label for _, label in drawings._flat_character_images], dtype=np.int64)
    return Pool(LazyImages(len(drawings), lambda index: 255 - np.asarray(drawings[index][0])), labels)


def _emnist(request: Request, kind: str) -> Pool:
    from torchvision.datasets import EMNIST

    split = pick_split(request, _SPLITS, f"emnist-{kind}")
    raw = request.root / "EMNIST" / "raw"
    files = [raw / f"emnist-{kind}-{split}-{content}" for content in _IDX]
    samples = _open_or_download(
        lambda download: EMNIST(request.root, split=kind, train=split == "train", download=download), request, files
    )
    upright = np.ascontiguousarray(samples.data.numpy().transpose(0, 2, 1))  # EMNIST is stored transposed
    return Pool(upright, samples.targets.numpy().astype(np.int64), split)


def _open_or_download(
    open_dataset: Callable[[bool], Any], request: Request, files: list[Path], otherwise: str = ""
) -> Any:  # noqa: ANN401
    """Let torchvision read the data set; missing files are downloaded first if the request allows it.

    Args:
        open_dataset: Opens the data set of torchvision; the argument says whether to download it.
        request: Says whether to download.
        files: Files that have to be there.
        otherwise: Alternative files, for the message.

    Raises:
        DataMissingError: The files are missing and must not be downloaded.
        MissingPrerequisiteError: The download failed.
        UsageError: The files are damaged.
    """
    if not all(file.exists() for file in files):
        if not request.download:
            places = f"{files[0]}{f' (or {otherwise})' if otherwise else ''}"
            raise DataMissingError(places, downloadable=True)
        try:
            return open_dataset(True)
        except Exception as cause:
            raise MissingPrerequisiteError(
                f"the download of {files[0].name} to {files[0].parent} failed: {cause}; check the connection, or put "
                "the files there by hand."
            ) from cause
    try:
        return open_dataset(False)
    except Exception as cause:  # torchvision raises RuntimeError, AssertionError, EOFError … for damaged files
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        raise UsageError(f"{files[0]} is damaged ({reason}); delete it and fetch it again.") from cause


_PNG = re.compile(r".*/[^/]+/[^/]+/[^/]+\.png")
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, ValueError, SyntaxError)
# A drawing of 105 by 105 pixels takes some hundred bytes.
_LARGEST_DRAWING = 1 << 20


def _omniglot_archives(archives: list[Path]) -> Pool:
    """The drawings ``…/Alphabet/characterNN/….png`` in the archives, in the order of archives and names."""
    names: list[tuple[int, str]] = []
    opened = []
    for number, path in enumerate(archives):
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as cause:
            raise UsageError(f"the archive {path} cannot be read: {cause}; fetch it again.") from cause
        opened.append(archive)
        names += [(number, name) for name in sorted(archive.namelist()) if _PNG.fullmatch(name)]
    characters = {character: label for label, character in enumerate(sorted({_character(name) for _, name in names}))}

    def make(index: int) -> Image:
        number, name = names[index]
        try:
            if opened[number].getinfo(name).file_size > _LARGEST_DRAWING:
                raise OSError(f"it is larger than {_LARGEST_DRAWING >> 20} MiB")
            drawing = Pillow.open(io.BytesIO(opened[number].read(name))).convert("L")
        except (*_DAMAGED, Pillow.DecompressionBombError) as cause:
            raise UsageError(f"{name} in {archives[number]} cannot be read: {cause}; fetch it again.") from cause
        return 255 - np.asarray(drawing)

    return Pool(LazyImages(len(names), make), np.asarray([characters[_character(name)] for _, name in names]))


def _character(name: str) -> tuple[str, str]:
    alphabet, character = name.split("/")[-3:-1]
    return alphabet, character
