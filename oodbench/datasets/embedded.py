"""Data sets without files of their own: they come with scikit-learn and Pillow."""

import string
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from oodbench.datasets.adapter import Card, Image, LazyImages, Pool, Request, dataset, made_of
from oodbench.errors import UsageError

# O, o, I, l, i and Q are left out: at 8×8 pixels they cannot be told from 0 and 1.
LETTERS = "".join(sorted(set(string.ascii_letters) - set("OoIliQ")))
GLYPH_BOX = 32
BLACK_AND_WHITE = [255 * (value > 127) for value in range(256)]


@dataset(
    "digits",
    card=Card(
        summary="Handwritten digits of 8×8 pixels and 17 grey levels, the test part of UCI's optdigits.",
        licence="CC BY 4.0",
        citation="Alpaydin, Kaynak 1998: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository",
        shape="8×8",
        size={"all": 1797},
        source="comes with scikit-learn (sklearn.datasets.load_digits)",
    ),
)
def digits(request: Request, *, classes: tuple[int, ...] = tuple(range(10))) -> Pool:
    """scikit-learn's handwritten digits, all or some classes."""
    from sklearn.datasets import load_digits

    if not set(classes) <= set(range(10)) or not classes:
        raise UsageError(f"the classes of digits are {list(classes)}; expected some of 0 to 9.")
    everything = load_digits()
    chosen = np.isin(everything.target, classes)
    images = np.rint(everything.images[chosen] * (255 / 16)).astype(np.uint8)
    return Pool(images, everything.target[chosen].astype(np.int64))


@dataset(
    "rendered-letters",
    card=Card(
        summary="Latin letters in the font that Pillow ships, slanted, turned and thickened at random by index.",
        licence="made here; the font Aileron is CC0",
        citation="none",
        shape="32×32, black and white",
        source="rendered with Pillow (ImageFont.load_default)",
    ),
)
def rendered_letters(request: Request, *, n: int = 1000) -> Pool:
    """Letters that went the way of the digits: a black-and-white glyph in a 32×32 box (cf. optdigits)."""
    labels = np.arange(n, dtype=np.int64) % len(LETTERS)
    source = made_of(__file__, ["numpy", "pillow"], "letters")
    return Pool(LazyImages(n, lambda index: _glyph(LETTERS[labels[index]], index), made_of=source), labels)


@dataset(
    "patches",
    card=Card(
        summary="Grey square patches of two photographs, a temple and a flower, at random places and scales by index.",
        licence="CC BY 2.0",
        citation="china.jpg and flower.jpg by pnz, courtesy of flickr, as distributed with scikit-learn",
        shape="16×16 to 200×200",
        source="comes with scikit-learn (sklearn.datasets.load_sample_images)",
    ),
)
def patches(request: Request, *, n: int = 1000) -> Pool:
    """Patches of scikit-learn's sample photographs."""
    return Pool(
        LazyImages(n, _patch, made_of=made_of(__file__, ["numpy", "pillow", "scikit-learn"], "patches")),
        np.zeros(n, dtype=np.int64),
    )


def _glyph(letter: str, index: int) -> Image:
    random = np.random.default_rng([index, ord(letter)])
    canvas = Pillow.new("L", (160, 160))
    stroke = int(random.integers(0, 5))
    ImageDraw.Draw(canvas).text((80, 80), letter, fill=255, font=_font(), anchor="mm", stroke_width=stroke)
    slant = float(random.uniform(-0.25, 0.25))
    canvas = canvas.rotate(float(random.uniform(-15, 15)), resample=Pillow.Resampling.BICUBIC)
    canvas = canvas.transform(
        canvas.size, Pillow.Transform.AFFINE, (1, slant, -80 * slant, 0, 1, 0), resample=Pillow.Resampling.BICUBIC
    )
    glyph = canvas.crop(canvas.getbbox())
    width = min(GLYPH_BOX, max(4, round(GLYPH_BOX * glyph.width / glyph.height)))
    glyph = glyph.resize((width, GLYPH_BOX), Pillow.Resampling.BOX).point(BLACK_AND_WHITE)
    boxed = Pillow.new("L", (GLYPH_BOX, GLYPH_BOX))
    boxed.paste(glyph, ((GLYPH_BOX - width) // 2, 0))
    return np.asarray(boxed)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=96)


@cache
def _photographs() -> list[NDArray[np.uint8]]:
    from sklearn.datasets import load_sample_images

    return [np.asarray(Pillow.fromarray(photo).convert("L")) for photo in load_sample_images().images]


def _patch(index: int) -> Image:
    photographs = _photographs()
    photo = photographs[index % len(photographs)]
    random = np.random.default_rng([index, 0])
    side = int(random.integers(16, 201))
    top, left = (int(random.integers(0, extent - side + 1)) for extent in photo.shape)
    return photo[top : top + side, left : left + side]
