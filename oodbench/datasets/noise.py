"""Noise images. Image i depends on the seed and i alone, not on the order of access or the number of workers."""

from typing import Literal

import numpy as np

from oodbench.datasets.adapter import Card, Image, LazyImages, Pool, Request, dataset, made_of


@dataset(
    "noise",
    card=Card(
        summary="Independent pixels, uniform over all grey values or Gaussian around the middle one, seeded by index.",
        licence="made here",
        citation="none",
        shape="the suite's resolution",
        source="numpy.random.Philox",
    ),
)
def noise(
    request: Request, *, kind: Literal["uniform", "gaussian"] = "uniform", n: int = 10_000, seed: int = 0
) -> Pool:
    """Uniform noise on 0…255, or Gaussian noise of mean 127.5 and standard deviation 64, clipped."""
    side = request.resolution
    shape = (side, side) if request.channels == 1 else (side, side, request.channels)

    def make(index: int) -> Image:
        random = np.random.Generator(np.random.Philox(key=[seed, index]))
        if kind == "uniform":
            return random.integers(0, 256, size=shape, dtype=np.uint8)
        return np.clip(np.rint(random.normal(127.5, 64, size=shape)), 0, 255).astype(np.uint8)

    return Pool(
        LazyImages(n, make, made_of=made_of(__file__, ["numpy"], kind, seed, shape)), np.zeros(n, dtype=np.int64)
    )
