"""The first samples of a split, by which networks are told apart: kept prepared, so that no image is opened."""

import torch

from oodbench.cache.entries import Cache
from oodbench.cache.tensor_files import Kept
from oodbench.datasets.preparation import Prepared, Preprocessing
from oodbench.datasets.splits import Split

SAMPLES = 8


def first_samples(split: Split, preprocessing: Preprocessing, cache: Cache) -> Prepared:
    """The first prepared images of a split, at most 8, (N, C, H, W).

    What a function of the user's returns is computed each time, since what it depends on is not known.
    """
    indices, digests = split.indices[:SAMPLES], split.digests[:SAMPLES]
    if preprocessing.transform is not None:
        return split.read(indices)

    def make() -> Kept:
        return {"images": torch.from_numpy(split.read(indices))}, {}

    identity = {"images": digests.tobytes().decode(), "preprocessing": preprocessing.identity}
    images: Prepared = cache.kept_or_made("samples", identity, make)[0]["images"].numpy()
    return images
