"""Decodes pictures to arrays of 8 bits a channel; whatever is converted or assumed is remarked."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, ImageColor
from PIL import Image as Pillow

from oodbench.datasets.adapter import Decoded, Decoding, LazyImages, UnreadableImageError
from oodbench.errors import FROM_OUTSIDE, OodbenchError, UsageError, is_exhausted, one_line

SEVERAL_FRAMES = "have several frames, of which the first is taken"
NOT_TURNED = 'have an EXIF orientation, which is not applied (orientation = "exif" applies it)'
TURNED = "have an EXIF orientation, which is applied"
CMYK = "are CMYK, converted to RGB without a colour profile"
WIDE = "have more than 8 bits a channel, of which the highest 8 are kept"
NARROW = "have no value above 4095, as if they used 12 of their 16 bits only"
"""Remarked beside ``WIDE``, if neither the file nor the rule says how many bits are used."""

_TRANSPOSITIONS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE = 258
_UNKNOWN_RANGE = {"I": "32-bit integers", "F": "32-bit floats"}


@dataclass(frozen=True)
class Pictures(LazyImages):
    """The pictures in files, each read when it is accessed; nothing but its file decides a picture.

    Attributes:
        folder: The folder that the names are relative to.
        names: Paths of N files.
        rule: How pictures become arrays.
        invert: Whether dark ink on light ground becomes light ink on dark ground.
    """

    folder: Path
    names: Sequence[str]
    rule: Decoding
    invert: bool


def read_pictures(folder: Path, names: Sequence[str], rule: Decoding, *, invert: bool) -> Pictures:
    """The pictures in files; the arguments are the attributes of ``Pictures``."""

    def make(index: int) -> Decoded:
        decoded = read_picture(folder / names[index], rule)
        return replace(decoded, pixels=255 - decoded.pixels) if invert else decoded

    return Pictures(len(names), make, folder, names, rule, invert)


def read_picture(file: Path, rule: Decoding) -> Decoded:
    """Read and decode an image file.

    Raises:
        UnreadableImageError: The file cannot be read or decoded.
        UsageError: The rule's ground is no colour.
    """
    # Not by its name: Pillow would map the file into memory, and take lines of a TIFF for columns that it turns later.
    with naming_unreadable(f"the image {file}"), file.open("rb") as opened, Pillow.open(opened) as picture:
        return decode(picture, rule)


@contextmanager
def naming_unreadable(what: str) -> Iterator[None]:
    """Turn whatever Pillow raises for a broken picture into a sentence; no warning of Pillow's is shown.

    Large images are welcome up to the size that Pillow takes for an attack and refuses.

    Args:
        what: The beginning of the sentence.

    Raises:
        UnreadableImageError: The picture cannot be read or decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (OodbenchError, *FROM_OUTSIDE):
        raise
    except Exception as cause:  # Pillow raises a dozen kinds for a damaged file
        if is_exhausted(cause):
            raise
        reason = (isinstance(cause, OSError) and cause.strerror) or one_line(cause).rstrip(".") or type(cause).__name__
        raise UnreadableImageError(f"{what} cannot be read: {reason}; replace or remove it.") from cause


def decode(picture: Pillow.Image, rule: Decoding) -> Decoded:
    """Decode a picture to 8 bits a channel: black-and-white and grey ones to (H, W), all others to (H, W, 3).

    - Opaque pictures of 8 bits are as Pillow's ``convert("L")`` and ``convert("RGB")`` make them, as in torchvision's
      and timm's loaders; so are CMYK, YCbCr, Lab and HSV, of which CMYK is remarked.
    - Transparent pixels, by an alpha channel or a transparent colour, are composited on ``rule.ground``. Grey pictures
      stay grey if the ground is grey.
    - Of more than 8 bits of grey, the highest 8 are kept. How many there are, the file says (TIFF of 12 bits; PGM,
      which Pillow scales to 16), else ``rule.depth``, else it is 16. Colours of 16 bits are cut to 8 by Pillow.
    - The EXIF orientation is applied if ``rule.orientation`` is ``exif``; but Pillow itself always applies that of a
      TIFF.
    - Of several frames or pages, the first is taken.

    Args:
        picture: A picture that Pillow opened, at its first frame.
        rule: How pictures become arrays.

    Raises:
        ValueError: Its values have an unknown range, or more bits than the rule says.
        UsageError: The rule's ground is no colour.
        OSError: The picture is damaged; Pillow raises several other kinds, too.
    """
    ground = ground_colour(rule.ground)
    remarks = [SEVERAL_FRAMES] if getattr(picture, "n_frames", 1) > 1 else []
    picture.load()
    transposition = _TRANSPOSITIONS.get(_orientation(picture))
    if transposition is not None:
        remarks.append(TURNED if rule.orientation == "exif" else NOT_TURNED)
    if picture.mode == "CMYK":
        remarks.append(CMYK)
    if _is_wide(picture):
        picture, about = _without_low_bits(picture, rule.depth)
        remarks += about
    elif picture.mode in _UNKNOWN_RANGE:
        raise ValueError(
            f"it has {_UNKNOWN_RANGE[picture.mode]} (mode {picture.mode}), whose range nobody knows; expected 8 or 16 "
            "bits a channel, so convert it"
        )
    if picture.has_transparency_data:
        picture, is_opaque = _composited(picture, ground)
        remarks += [] if is_opaque else [f"have transparent pixels, which are composited on {rule.ground}"]
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    if transposition is not None and rule.orientation == "exif":
        picture = picture.transpose(transposition)
    return Decoded(np.asarray(picture), tuple(remarks))


@cache
def ground_colour(ground: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour's name or ``#rrggbb``.

    Raises:
        UsageError: It is no colour, or a transparent one.
    """
    try:
        red, green, blue, *alpha = ImageColor.getrgb(ground)
        if alpha:
            raise ValueError("it has a fourth value")
    except ValueError as cause:
        raise UsageError(
            f"{ground!r} is no colour to composite transparent images on; expected a name such as white, or #rrggbb."
        ) from cause
    return red, green, blue


def _orientation(picture: Pillow.Image) -> int:
    """The orientation in the EXIF (or XMP) data; 1, as it is stored, if there is none or they are damaged."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except FROM_OUTSIDE:
        raise
    except Exception:  # damaged EXIF data raise half a dozen kinds, and no pixel depends on them
        return 1
    return orientation if isinstance(orientation, int) else 1


def _is_wide(picture: Pillow.Image) -> bool:
    """Whether it is grey and has more than 8, up to 16 bits, which Pillow opens as 32 bits in some formats."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))


def _without_low_bits(picture: Pillow.Image, depth: int | None) -> tuple[Pillow.Image, list[str]]:
    """The highest 8 bits of a wide picture (mode L, or LA if it has a transparent value), and remarks.

    Raises:
        ValueError: It has values of more than ``depth`` bits.
    """
    values = np.asarray(picture)
    stated = _stated_depth(picture)
    used = stated or depth or 16
    largest = int(values.max())
    if largest >= 1 << used:
        raise ValueError(f"it has the value {largest}, which needs more than the {used} bits of the suite's depth")
    narrow = stated is None and depth is None and largest < 1 << 12
    grey = Pillow.fromarray((values >> (used - 8)).astype(np.uint8))
    if "transparency" in picture.info:
        opaque = np.where(values == picture.info["transparency"], 0, 255).astype(np.uint8)
        grey = Pillow.merge("LA", [grey, Pillow.fromarray(opaque)])
    return grey, [WIDE, NARROW] if narrow else [WIDE]


def _stated_depth(picture: Pillow.Image) -> int | None:
    """The number of bits that the file itself says are used; None if it says no more than that it has room for 16."""
    if picture.format == "PPM":
        return 16  # Pillow scales by the maximum that the file states
    bits = int(getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0])
    return bits if bits < 16 else None


def _composited(picture: Pillow.Image, ground: tuple[int, int, int]) -> tuple[Pillow.Image, bool]:
    """A picture with transparency on a ground (mode L or RGB), and whether all its pixels are opaque anyway."""
    is_grey = picture.mode in ("1", "L", "LA", "La")
    transparent = picture.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:  # Pillow cuts a PNG's pixels to 8 bits, but not this
        picture = picture.copy()
        picture.info["transparency"] = tuple(value >> 8 for value in transparent)
    coloured = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
    alpha = coloured.getchannel("A")
    is_opaque = alpha.getextrema() == (255, 255)
    if is_grey and (is_opaque or len(set(ground)) == 1):
        result, layer = Pillow.new("L", picture.size, ground[0]), coloured.getchannel("R")
    else:
        result, layer = Pillow.new("RGB", picture.size, ground), coloured.convert("RGB")
    result.paste(layer, mask=alpha)
    return result, is_opaque
