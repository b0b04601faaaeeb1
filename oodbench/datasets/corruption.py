"""Adapter for images of another data set under a common corruption, made on the spot."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFilter
from pydantic import Field

from oodbench.datasets.adapter import Card, Decoded, Image, LazyImages, Pool, Request, dataset, load_dataset
from oodbench.errors import UsageError
from oodbench.suites.schema import source_of

Kind = Literal["gaussian-noise", "shot-noise", "gaussian-blur", "brightness", "contrast", "jpeg", "pixelate"]
Strengths = Mapping[str, tuple[float, float, float, float, float]]

SMALL: Strengths = {
    "gaussian-noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot-noise": (500, 250, 100, 75, 50),
    "gaussian-blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "jpeg": (80, 65, 58, 50, 40),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
}
"""Strength of each severity from 1 to 5 for images of 32×32 (CIFAR-10-C of Hendrycks, Dietterich 2019)."""

LARGE: Strengths = {
    "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot-noise": (60, 25, 12, 5, 3),
    "gaussian-blur": (1, 2, 3, 4, 6),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "jpeg": (25, 18, 15, 10, 7),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
}
"""The same for photographs of 224×224 (ImageNet-C)."""


@dataset(
    "corruption",
    card=Card(
        "Images of another data set under noise, blur, compression and the like.",
        licence="that of the images",
        citation="Hendrycks, Dietterich 2019, arXiv 1903.12261, and that of the images",
        shape="that of the images",
        source="made from the other data set",
    ),
)
def corruption(
    request: Request,
    *,
    of: dict[str, Any] | str | None = None,
    kind: Kind,
    severity: Annotated[int, Field(ge=1, le=5)] = 3,
    strengths: Literal["cifar", "imagenet"] = "cifar",
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Pool:
    """Corrupted images, in the style of CIFAR-10-C and ImageNet-C, with the labels of the others.

    The corruption of an image follows from the seed and its place, so that it is the same in each run. Of the known set
    of a suite, the test samples alone are taken.

    Args:
        request: The split to read.
        of: The other data set, as a suite file describes it; by default the suite's known set.
        kind: The corruption.
        severity: How strong it is, from 1 to 5.
        strengths: Whether the severities are those for small images (``cifar``) or for photographs (``imagenet``).
        seed: Seed of noise.
    """
    if of is None:
        raise UsageError("corruption names no data set; expected one as `of`, or a suite, whose known set is taken.")
    source = source_of("of", {"adapter": of} if isinstance(of, str) else of)
    if source.adapter in ("of", "corruption"):
        raise UsageError(f"corruption is of {source.adapter!r}; expected the adapter of a data set.")
    chosen = request if source.split is None else replace(request, chosen=source.split)
    pool = load_dataset(source.adapter).read(chosen, source.parameters)
    strength = (SMALL if strengths == "cifar" else LARGE)[kind][severity - 1]

    def image(index: int) -> Decoded:
        original = pool.images[index]
        remarks = original.remarks if isinstance(original, Decoded) else ()
        generator = np.random.default_rng([seed, index])
        return Decoded(CORRUPTIONS[kind](np.asarray(original), strength, generator), remarks)

    return replace(pool, images=LazyImages(len(pool.images), image), validation=None, made_from=pool)


def _rounded(values: NDArray[np.floating]) -> Image:
    """Values from 0 to 1 as whole ones from 0 to 255."""
    whole: Image = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return whole


def _gaussian_noise(image: Image, std: float, generator: np.random.Generator) -> Image:
    return _rounded(image / 255 + generator.normal(scale=std, size=image.shape))


def _shot_noise(image: Image, photons: float, generator: np.random.Generator) -> Image:
    return _rounded(generator.poisson(image / 255 * photons) / photons)


def _gaussian_blur(image: Image, sigma: float, _: np.random.Generator) -> Image:
    return np.asarray(Pillow.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def _brightness(image: Image, more: float, _: np.random.Generator) -> Image:
    """Added to the value of HSV, which is the largest of the channels; hue and saturation stay."""
    values = image / 255
    largest = values if values.ndim == 2 else values.max(axis=2, keepdims=True)
    brighter = (largest + more).clip(0, 1)
    return _rounded(np.where(largest > 0, values * brighter / np.where(largest > 0, largest, 1), brighter))


def _contrast(image: Image, share: float, _: np.random.Generator) -> Image:
    """A share of the distance from the mean of each channel is left."""
    values = image / 255
    mean = values.mean(axis=(0, 1), keepdims=True)
    return _rounded((values - mean) * share + mean)


def _jpeg(image: Image, quality: float, _: np.random.Generator) -> Image:
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Pillow.open(buffer))


def _pixelate(image: Image, share: float, _: np.random.Generator) -> Image:
    picture = Pillow.fromarray(image)
    small = (max(1, int(picture.width * share)), max(1, int(picture.height * share)))
    return np.asarray(picture.resize(small, Pillow.Resampling.BOX).resize(picture.size, Pillow.Resampling.BOX))


CORRUPTIONS: Mapping[str, Callable[[Image, float, np.random.Generator], Image]] = {
    "gaussian-noise": _gaussian_noise,
    "shot-noise": _shot_noise,
    "gaussian-blur": _gaussian_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "pixelate": _pixelate,
}
