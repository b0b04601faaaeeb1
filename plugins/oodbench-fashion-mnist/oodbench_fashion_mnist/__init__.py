"""The data set ``fashion-mnist`` for oodbench."""

import numpy as np

import oodbench
from oodbench.datasets.adapter import DataMissingError, Request
from oodbench.errors import MissingPrerequisiteError, UsageError


@oodbench.dataset(
    "fashion-mnist",
    card=oodbench.Card(
        summary="Articles of clothing, ten classes, in the format of MNIST.",
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf 2017: Fashion-MNIST, a novel image dataset for benchmarking machine learning "
        "algorithms, arXiv 1708.07747",
        shape="28×28",
        size={"train": 60_000, "test": 10_000},
        source="torchvision.datasets.FashionMNIST",
    ),
)
def fashion_mnist(request: Request) -> oodbench.Pool:
    """Fashion-MNIST, from ``FashionMNIST/raw`` in the data folder, where torchvision puts it."""
    from torchvision.datasets import FashionMNIST

    raw = request.root / "FashionMNIST" / "raw"
    # torchvision wants all four, whichever split is asked for.
    files = [raw / f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    missing = [file for file in files if not file.exists()]
    if missing and not request.download:
        raise DataMissingError(str(missing[0]), downloadable=True)
    try:
        found = FashionMNIST(request.root, train=request.split == "train", download=bool(missing))
    except Exception as cause:  # a RuntimeError, a URLError, an AssertionError, an EOFError …
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        if missing:
            raise MissingPrerequisiteError(
                f"the download of Fashion-MNIST to {raw} failed: {reason}; check the connection, or put the files "
                "there by hand."
            ) from cause
        raise UsageError(f"the files in {raw} are damaged ({reason}); delete them and fetch them again.") from cause
    return oodbench.Pool(
        found.data.numpy(), found.targets.numpy().astype(np.int64), request.split, tuple(FashionMNIST.classes)
    )
