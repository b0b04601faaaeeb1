"""How pictures become arrays: Pillow's own conversions are the oracle, and compositing by its formula."""

import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as Pillow
from PIL import ImageOps

from oodbench.datasets.adapter import Decoding, UnreadableImageError
from oodbench.datasets.decoding import (
    CMYK,
    NARROW,
    NOT_TURNED,
    SEVERAL_FRAMES,
    TURNED,
    WIDE,
    decode,
    ground_colour,
    read_picture,
    read_pictures,
)
from oodbench.errors import UsageError

RULE = Decoding()
ON_WHITE = "have transparent pixels, which are composited on white"
ORIENTATION = 0x0112


def pixels(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def png(depth, colour, lines, *chunks, width):
    """A PNG file with chosen bits a channel, which Pillow itself does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(lines), depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*one) for one in chunks)]
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))), chunk(b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def tiff_of_12_bits(values):
    """A grey TIFF of two 12-bit pixels a row, packed."""
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values)
    tags = {256: 2, 257: len(values), 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: len(values), 279: len(packed)}
    listed = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, v) for tag, v in tags.items())
    return io.BytesIO(
        b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + listed + b"\0" * 4
    )


def composited(colour, alpha, ground):
    """Porter and Duff's `over` on an opaque ground."""
    return colour * (alpha / 255) + ground * (1 - alpha / 255)


# Opaque pictures


OPAQUE = [
    pytest.param("PNG", "L", id="grey"),
    pytest.param("PNG", "1", id="black-and-white"),
    pytest.param("PNG", "RGB", id="colour"),
    pytest.param("PNG", "P", id="palette"),
    pytest.param("PNG", "RGBA", id="opaque-alpha"),
    pytest.param("PNG", "LA", id="opaque-grey-alpha"),
    pytest.param("GIF", "P", id="gif"),
    pytest.param("JPEG", "L", id="grey-jpeg"),
    pytest.param("JPEG", "RGB", id="jpeg"),
    pytest.param("JPEG", "CMYK", id="cmyk"),
    pytest.param("TIFF", "YCbCr", id="ycbcr"),
    pytest.param("TIFF", "LAB", id="lab"),
    pytest.param("WEBP", "RGB", id="webp"),
]


def opaque(mode, shape=(7, 5)):
    if mode in ("YCbCr", "LAB"):
        return Pillow.frombytes(mode, shape[::-1], pixels(*shape, 3).tobytes())
    picture = Pillow.fromarray(pixels(*shape, 3))
    return picture.quantize(16) if mode == "P" else picture.convert(mode)


@pytest.mark.parametrize(("kind", "mode"), OPAQUE)
def test_an_opaque_file_is_as_pillow_converts_it(tmp_path, kind, mode):
    file = tmp_path / "picture"
    opaque(mode).save(file, kind)
    with Pillow.open(file) as picture:
        assert picture.mode == mode or kind in ("WEBP", "TIFF")
        is_grey = picture.mode in ("1", "L", "LA")
        expected = np.asarray(picture.convert("L" if is_grey else "RGB"))
    decoded = read_picture(file, RULE)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.remarks == ((CMYK,) if mode == "CMYK" else ())


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(4))),
    st.sampled_from(["RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV"]),
)
def test_any_opaque_picture_is_as_pillow_converts_it(values, mode):
    colour = Pillow.fromarray(np.ascontiguousarray(values[..., :3]))
    picture = colour.quantize(8) if mode == "P" else colour.convert(mode)
    expected = picture.convert("L" if mode in ("1", "L") else "RGB")
    np.testing.assert_array_equal(decode(picture, RULE).pixels, np.asarray(expected))


# Transparency


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(4))),
    st.sampled_from(["white", "black", "#102030", "RGB(9, 200, 77)"]),
)
def test_transparent_pixels_are_composited_on_the_ground(values, ground):
    decoded = decode(Pillow.fromarray(values), Decoding(ground=ground))
    expected = composited(values[..., :3], values[..., 3:], np.array(ground_colour(ground)))
    assert np.abs(decoded.pixels - expected).max() <= 0.501
    transparent = bool((values[..., 3] < 255).any())
    assert decoded.remarks == ((f"have transparent pixels, which are composited on {ground}",) if transparent else ())


def icon(mode):
    """A red (or grey) square whose left column is transparent, as an icon, and the grey or colour of the square."""
    if mode == "P":
        picture = Pillow.new("P", (3, 3), 1)
        picture.putpalette([0, 0, 0, 200, 10, 10])
        picture.paste(0, (0, 0, 1, 3))
        return picture, {"transparency": 0}
    if mode in ("L", "RGB", "1"):
        ink, none = {"L": (200, 7), "RGB": ((200, 10, 10), (7, 7, 7)), "1": (1, 0)}[mode]
        picture = Pillow.new(mode, (3, 3), ink)
        picture.paste(none, (0, 0, 1, 3))
        return picture, {"transparency": none}
    picture = Pillow.new("LA" if mode == "LA" else "RGBA", (3, 3), (200, 255) if mode == "LA" else (200, 10, 10, 255))
    picture.paste((0, 0) if mode == "LA" else (0, 0, 0, 0), (0, 0, 1, 3))
    return picture, {}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "1"])
def test_every_kind_of_transparency_shows_the_ground(tmp_path, mode):
    picture, options = icon(mode)
    picture.save(tmp_path / "icon.png", **options)
    decoded = read_picture(tmp_path / "icon.png", RULE)
    assert decoded.remarks == (ON_WHITE,)
    assert (decoded.pixels[:, 0] == 255).all()
    ink = {"L": 200, "LA": 200, "1": 255}.get(mode, [200, 10, 10])
    assert (decoded.pixels[:, 1:] == ink).all()
    assert decoded.pixels.ndim == (2 if mode in ("L", "LA", "1") else 3)


@pytest.mark.parametrize("mode", ["PA", "RGBa", "La"])
def test_transparent_pictures_of_other_modes_show_the_ground(mode):
    picture = Pillow.new("P", (2, 2)) if mode == "PA" else Pillow.new(f"{mode[:-1]}A", (2, 2), 0)
    picture.info |= {"transparency": 0} if mode == "PA" else {}
    decoded = decode(picture.convert(mode), RULE)
    assert (decoded.pixels == 255).all()
    assert decoded.remarks == (ON_WHITE,)


@pytest.mark.parametrize(("ground", "shape"), [("grey", (3, 3)), ("black", (3, 3)), ("red", (3, 3, 3))])
def test_grey_with_alpha_stays_grey_on_a_grey_ground(ground, shape):
    decoded = decode(icon("LA")[0], Decoding(ground=ground))
    assert decoded.pixels.shape == shape
    assert decoded.pixels[0, 0].tolist() == {"grey": 128, "black": 0, "red": [255, 0, 0]}[ground]


def test_an_alpha_channel_that_hides_nothing_is_no_remark():
    decoded = decode(Pillow.new("LA", (2, 2), (9, 255)), Decoding(ground="red"))
    assert (decoded.pixels.tolist(), decoded.remarks) == ([[9, 9]] * 2, ())


def test_a_gif_with_an_unused_transparent_colour_is_opaque(tmp_path):
    picture = Pillow.new("P", (2, 2), 1)
    picture.putpalette([0, 0, 0, 1, 2, 3])
    picture.save(tmp_path / "1.gif", transparency=0)
    decoded = read_picture(tmp_path / "1.gif", RULE)
    assert (decoded.pixels[0, 0].tolist(), decoded.remarks) == ([1, 2, 3], ())


@pytest.mark.parametrize("ground", ["no colour", "#12345", "#ff000080", ""])
def test_a_ground_that_is_no_colour_is_refused_for_every_picture(ground):
    with pytest.raises(UsageError, match=r"is no colour to composite .*; expected a name such as white, or #rrggbb\.$"):
        decode(Pillow.new("L", (2, 2)), Decoding(ground=ground))


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_if_it_is_asked_for(tmp_path, kind, orientation):
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    file = tmp_path / "photo"
    Pillow.fromarray(pixels(6, 4, 3)).save(file, kind, exif=exif)
    with Pillow.open(file) as picture:
        stored, turned = np.asarray(picture.convert("RGB")), np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    as_stored, applied = read_picture(file, RULE), read_picture(file, Decoding(orientation="exif"))
    np.testing.assert_array_equal(as_stored.pixels, stored)
    np.testing.assert_array_equal(applied.pixels, turned)
    assert as_stored.remarks == (() if orientation == 1 else (NOT_TURNED,))
    assert applied.remarks == (() if orientation == 1 else (TURNED,))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_pictures_of_every_mode_are_turned(tmp_path, mode):
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    wide = Pillow.fromarray(pixels(3, 2, dtype=np.uint16))
    picture = wide if mode == "I;16" else Pillow.fromarray(pixels(3, 2, 4)).convert(mode)
    picture.save(tmp_path / "1.png", exif=exif)
    stored, turned = (read_picture(tmp_path / "1.png", Decoding(orientation=way)).pixels for way in ("stored", "exif"))
    np.testing.assert_array_equal(turned, np.rot90(stored, -1))


def test_the_orientation_of_a_tiff_is_applied_by_pillow_in_any_case(tmp_path):
    values = pixels(3, 2)
    Pillow.fromarray(values).save(tmp_path / "1.tif", tiffinfo={ORIENTATION: 6})
    for way in ("stored", "exif"):
        decoded = read_picture(tmp_path / "1.tif", Decoding(orientation=way))
        np.testing.assert_array_equal(decoded.pixels, np.rot90(values, -1))
        assert decoded.remarks == ()


DAMAGED_EXIF = {
    "no TIFF": b"Exif\0\0garbage",
    "far offset": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "many tags": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    "short": b"II*\0",
    "text": b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHI4s", ORIENTATION, 2, 2, b"6\0\0\0") + bytes(4),
    "bytes": b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHI4s", ORIENTATION, 7, 4, b"\6\0\0\0") + bytes(4),
}


@pytest.mark.parametrize("exif", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("way", ["stored", "exif"])
def test_damaged_exif_data_spoil_no_picture(tmp_path, kind, exif, way):
    file = tmp_path / "1.jpg"
    Pillow.fromarray(pixels(8, 8)).save(file, kind, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = read_picture(file, Decoding(orientation=way))
        warnings.simplefilter("ignore")
        with Pillow.open(file) as picture:
            np.testing.assert_array_equal(decoded.pixels, np.asarray(picture))
    assert decoded.remarks == ()


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_an_orientation_that_means_nothing_is_no_remark(tmp_path, orientation):
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    Pillow.fromarray(pixels(3, 2)).save(tmp_path / "1.png", exif=exif)
    assert read_picture(tmp_path / "1.png", RULE).remarks == ()


# More than 8 bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("depth", [None, 16])
def test_of_16_bits_the_highest_8_are_kept(tmp_path, kind, depth):
    values = np.arange(0, 65536, 97, dtype=np.uint16).reshape(2, -1)
    Pillow.fromarray(values).save(tmp_path / "1", kind)
    decoded = read_picture(tmp_path / "1", Decoding(depth=depth))
    np.testing.assert_array_equal(decoded.pixels, values // 256)
    assert decoded.remarks == (WIDE,)


@pytest.mark.parametrize(("largest", "remarks"), [(4095, (WIDE, NARROW)), (1023, (WIDE, NARROW)), (4096, (WIDE,))])
def test_values_that_seem_to_have_12_bits_are_remarked(tmp_path, largest, remarks):
    Pillow.fromarray(np.array([[0, largest]], dtype=np.uint16)).save(tmp_path / "1.png")
    assert read_picture(tmp_path / "1.png", RULE).remarks == remarks


@pytest.mark.parametrize("depth", [9, 10, 12, 14])
def test_the_depth_of_the_suite_scales_the_values(tmp_path, depth):
    values = np.arange(1 << depth, dtype=np.uint16)[None]
    Pillow.fromarray(values).save(tmp_path / "1.png")
    decoded = read_picture(tmp_path / "1.png", Decoding(depth=depth))
    np.testing.assert_array_equal(decoded.pixels, values.astype(int) * 256 // (1 << depth))
    assert decoded.remarks == (WIDE,)


def test_a_value_beyond_the_depth_of_the_suite_is_refused(tmp_path):
    Pillow.fromarray(np.array([[4096, 0]], dtype=np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(UnreadableImageError, match=r"1\.png cannot be read: it has the value 4096, .* 12 bits"):
        read_picture(tmp_path / "1.png", Decoding(depth=12))


def test_a_tiff_that_says_it_has_12_bits_needs_no_depth(tmp_path):
    (tmp_path / "1.tif").write_bytes(tiff_of_12_bits([(0, 0xFFF), (0x800, 0x123)]).getvalue())
    decoded = read_picture(tmp_path / "1.tif", RULE)
    assert decoded.pixels.tolist() == [[0, 0xFF], [0x80, 0x12]]
    assert decoded.remarks == (WIDE,)


@pytest.mark.parametrize("depth", [None, 12])
def test_a_pgm_says_its_largest_value(tmp_path, depth):
    values = np.array([0, 1023, 512], dtype=">u2")
    (tmp_path / "1.pgm").write_bytes(b"P5 3 1 1023\n" + values.tobytes())
    decoded = read_picture(tmp_path / "1.pgm", Decoding(depth=depth))
    assert decoded.pixels.tolist() == [[0, 255, 128]]
    assert decoded.remarks == (WIDE,)


def test_colours_of_16_bits_are_cut_to_8_by_pillow():
    values = np.array([0x0101, 0x80FF, 0xFFFF, 0x1234, 0x00FF, 0x0F0F], dtype=">u2")
    decoded = decode(Pillow.open(png(16, 2, [values.tobytes()], width=2)), RULE)
    assert decoded.pixels.tolist() == [[[0x01, 0x80, 0xFF], [0x12, 0x00, 0x0F]]]


def test_a_transparent_value_of_16_bits_shows_the_ground():
    values = np.array([0x0101, 0x80FF], dtype=">u2")
    decoded = decode(Pillow.open(png(16, 0, [values.tobytes()], (b"tRNS", b"\1\1"), width=2)), RULE)
    assert (decoded.pixels.tolist(), decoded.remarks) == ([[255, 0x80]], (WIDE, ON_WHITE))
    colours = np.array([0x0101, 0x80FF, 0xFFFF, 0x1234, 0x00FF, 0x0F0F], dtype=">u2").tobytes()
    decoded = decode(Pillow.open(png(16, 2, [colours], (b"tRNS", colours[:6]), width=2)), RULE)
    assert decoded.pixels.tolist() == [[[255, 255, 255], [0x12, 0x00, 0x0F]]]


@pytest.mark.parametrize(("mode", "what"), [("I", "32-bit integers"), ("F", "32-bit floats")])
def test_32_bits_are_refused(tmp_path, mode, what):
    Pillow.new("L", (2, 2), 200).convert(mode).save(tmp_path / "1.tif")
    with pytest.raises(
        UnreadableImageError, match=rf"1\.tif cannot be read: it has {what} \(mode {mode}\).*; expected 8 or 16 bits"
    ):
        read_picture(tmp_path / "1.tif", RULE)


# Several frames


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_taken(tmp_path, kind):
    first, *more = (Pillow.new("RGB", (4, 4), (value, 0, 0)) for value in (250, 120, 0))
    options = {"lossless": True} if kind == "WEBP" else {}
    first.save(tmp_path / "1", kind, save_all=True, append_images=more, **options)
    decoded = read_picture(tmp_path / "1", RULE)
    assert (decoded.pixels == [250, 0, 0]).all()
    assert decoded.pixels.shape == (4, 4, 3)
    assert decoded.remarks == (SEVERAL_FRAMES,)


def test_all_that_is_remarkable_is_remarked(tmp_path):
    exif = Pillow.Exif()
    exif[ORIENTATION] = 3
    first, second = (Pillow.new("RGBA", (4, 4), (value, 0, 0, 100)) for value in (250, 120))
    first.save(tmp_path / "1.webp", save_all=True, append_images=[second], exif=exif)
    assert read_picture(tmp_path / "1.webp", RULE).remarks == (SEVERAL_FRAMES, NOT_TURNED, ON_WHITE)


# Files that cannot be decoded


def noise_file(kind):
    written = io.BytesIO()
    Pillow.fromarray(pixels(64, 64, 3)).save(written, kind)
    return written.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("damage", ["half", "header", "zeros"])
def test_a_damaged_file_is_named_with_the_reason(tmp_path, kind, damage):
    whole = noise_file(kind)
    half = whole[: len(whole) // 2]
    content = {"half": half, "header": whole[:12], "zeros": whole[:8] + bytes(len(whole) - 8)}[damage]
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(
        UnreadableImageError, match=r"^the image .*/1\.png cannot be read: .+[^.]; replace or remove it\.$"
    ):
        read_picture(tmp_path / "1.png", RULE)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"<html>404</html>"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"1\.png cannot be read: "):
        read_picture(tmp_path / "1.png", RULE)


def test_a_file_that_went_away_is_named_once(tmp_path):
    with pytest.raises(UnreadableImageError) as error:
        read_picture(tmp_path / "1.png", RULE)
    assert str(error.value) == (
        f"the image {tmp_path / '1.png'} cannot be read: No such file or directory; replace or remove it."
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_raises_anything_else(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "PPM"]))
    content = bytearray(SMALL[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(content)
    with contextlib.suppress(UnreadableImageError):
        assert read_picture(file, Decoding(orientation="exif")).pixels.dtype == np.uint8


def small(kind):
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    written = io.BytesIO()
    frames = [Pillow.fromarray(pixels(5, 4, 3, seed=seed)) for seed in range(2)]
    options = {"GIF": {"save_all": True, "append_images": frames[1:]}, "PPM": {}}.get(kind, {"exif": exif})
    frames[0].save(written, kind, **options)
    return written.getvalue()


SMALL = {kind: small(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "PPM")}


def test_large_images_are_read_quietly_up_to_pillows_limit(tmp_path, monkeypatch):
    Pillow.fromarray(pixels(10, 10)).save(tmp_path / "1.png")
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "1.png", RULE).pixels.shape == (10, 10)
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(UnreadableImageError, match=r"1\.png cannot be read: .*decompression bomb"):
        read_picture(tmp_path / "1.png", RULE)


# Many files


def test_pictures_are_read_when_they_are_accessed_and_inverted_if_asked(tmp_path):
    picture, options = icon("LA")
    picture.save(tmp_path / "a b.png", **options)
    as_is = read_pictures(tmp_path, ["a b.png", "gone.png"], RULE, invert=False)
    inverted = read_pictures(tmp_path, ["a b.png"], RULE, invert=True)
    assert len(as_is) == 2
    np.testing.assert_array_equal(inverted[0].pixels, 255 - as_is[0].pixels)
    assert inverted[0].remarks == as_is[0].remarks == (ON_WHITE,)
    with pytest.raises(UnreadableImageError, match="gone"):
        as_is[1]
