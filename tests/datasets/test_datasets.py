"""Adapters that need no download, what `prepare` makes of their images, and the contact sheet."""

import io
import re
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from sklearn.datasets import load_digits, load_sample_images

from oodbench import registry
from oodbench.classifiers.contact_sheet import draw_sheet
from oodbench.datasets.adapter import DataMissingError, LazyImages, NoSuchSplitError, Request
from oodbench.datasets.embedded import LETTERS
from oodbench.datasets.inventory import Holding, take_inventory
from oodbench.datasets.preparation import Preprocessing
from oodbench.errors import UsageError
from oodbench.suites.reading import read_suite
from oodbench.suites.schema import Input

NOWHERE = Path("no such folder")
MADE_UP = [
    pytest.param("rendered-letters", {}, id="rendered-letters"),
    pytest.param("patches", {}, id="patches"),
    pytest.param("noise", {"kind": "uniform"}, id="noise-uniform"),
    pytest.param("noise", {"kind": "gaussian"}, id="noise-gaussian"),
]
DIGITS_INPUT = Input(channels=1, size=8, resolution=8, levels=17)


def prepare(images, input):
    return Preprocessing(input).prepare(images)


def read(name, *, root=NOWHERE, split="test", channels=1, resolution=28, **parameters):
    request = Request(Path(root), split, channels=channels, resolution=resolution)
    return registry.load("datasets", name).read(request, parameters)


def save(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(image).save(file)


def values(pool):
    return [int(np.asarray(image)[0, 0]) for image in pool.images]


def grey(value, side=9):
    return np.full((side, side), value, dtype=np.uint8)


# Every data set


@pytest.mark.parametrize("name", sorted(registry.entries("datasets")))
def test_the_card_of_every_data_set_is_complete(name):
    card = registry.load("datasets", name).card
    for key in ("summary", "licence", "citation", "shape", "source"):
        assert isinstance(getattr(card, key), str)
        assert getattr(card, key).strip(), key
    assert all(n > 0 for n in card.size.values())


# Embedded data sets


def test_digits_are_scikit_learns_digits_on_the_full_grey_scale():
    pool, truth = read("digits"), load_digits()
    assert pool.images.dtype == np.uint8
    assert pool.images.shape == (1797, 8, 8)
    assert pool.labels.dtype == np.int64
    assert np.array_equal(pool.labels, truth.target)
    assert np.array_equal(np.rint(pool.images * (16 / 255)), truth.images)
    assert pool.split == "all"


def test_digits_of_some_classes_are_those_images_with_their_own_labels():
    everything, some = read("digits"), read("digits", classes=[7, 9])
    chosen = np.isin(everything.labels, [7, 9])
    assert np.array_equal(some.images, everything.images[chosen])
    assert np.array_equal(some.labels, everything.labels[chosen])


@pytest.mark.parametrize("classes", [[], [10], [0, -1]])
def test_digits_refuse_classes_that_are_no_digits(classes):
    with pytest.raises(UsageError, match="0 to 9"):
        read("digits", classes=classes)


@pytest.mark.parametrize(("name", "parameters"), MADE_UP)
def test_made_up_images_are_uint8_with_a_label_each(name, parameters):
    pool = read(name, n=60, **parameters)
    assert len(pool.images) == len(list(pool.images)) == 60
    assert {image.dtype for image in pool.images} == {np.dtype(np.uint8)}
    assert pool.labels.shape == (60,)
    assert pool.labels.dtype == np.int64
    assert pool.split == "all"


@pytest.mark.parametrize(("name", "parameters"), MADE_UP)
def test_made_up_image_depends_on_its_index_alone(name, parameters):
    forwards = list(read(name, n=40, **parameters).images)
    longer = read(name, n=90, **parameters)
    backwards = [longer.images[index] for index in reversed(range(40))][::-1]
    shuffled = np.random.default_rng(0).permutation(40)
    with ThreadPoolExecutor(4) as workers:
        in_parallel = dict(zip(shuffled, workers.map(longer.images.__getitem__, shuffled), strict=True))
    for index, image in enumerate(forwards):
        assert np.array_equal(image, backwards[index])
        assert np.array_equal(image, in_parallel[index])
        assert np.array_equal(image, longer.images[index])


@pytest.mark.parametrize(("name", "parameters"), MADE_UP)
def test_made_up_images_of_different_indices_differ(name, parameters):
    images = read(name, n=200, **parameters).images
    assert len({image.tobytes() for image in images}) == 200


def test_rendered_letters_are_black_and_white_glyphs_that_fill_their_box():
    pool = read("rendered-letters", n=2 * len(LETTERS))
    for image in pool.images:
        assert image.shape == (32, 32)
        assert set(np.unique(image)) == {0, 255}
        top, bottom = np.flatnonzero(image.any(axis=1))[[0, -1]]
        assert bottom - top >= 29, "as tall as the box, but for a pixel at either end"
    assert np.mean([image.mean() for image in pool.images]) < 128, "light ink on dark ground"
    assert np.array_equal(pool.labels, [*range(len(LETTERS))] * 2)


def test_no_rendered_letter_reads_as_a_zero_or_a_one():
    assert not set(LETTERS) & set("OoQIli")


def test_patches_are_squares_cut_from_the_sample_photographs():
    photographs = [np.asarray(Pillow.fromarray(photo).convert("L")) for photo in load_sample_images().images]
    pool = read("patches", n=300)
    sides = [image.shape[0] for image in pool.images]
    assert all(image.shape == (side, side) for image, side in zip(pool.images, sides, strict=True))
    assert min(sides) >= 16
    assert max(sides) <= 200
    assert len(set(sides)) > 50
    for index in (0, 1):
        patch, side = pool.images[index], sides[index]
        corners = np.argwhere(photographs[index][: 1 - side, : 1 - side] == patch[0, 0])
        assert any(np.array_equal(photographs[index][y : y + side, x : x + side], patch) for y, x in corners)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
@pytest.mark.parametrize(("channels", "shape"), [(1, (12, 12)), (3, (12, 12, 3))])
def test_noise_has_the_resolution_and_channels_of_the_suite(kind, channels, shape):
    assert read("noise", kind=kind, n=2, channels=channels, resolution=12).images[1].shape == shape


def test_uniform_noise_takes_all_grey_values_equally_often():
    pixels = np.stack(list(read("noise", kind="uniform", n=300, resolution=32).images)).ravel()
    counts = np.bincount(pixels, minlength=256)
    assert len(counts) == 256
    assert np.abs(counts - counts.mean()).max() < 6 * np.sqrt(counts.mean())


def test_gaussian_noise_has_mean_127_and_standard_deviation_64_before_clipping():
    pixels = np.stack(list(read("noise", kind="gaussian", n=300, resolution=32).images)).ravel()
    # Quantiles do not feel the clipping: Φ(±1) of a normal distribution.
    assert np.quantile(pixels, [0.1587, 0.5, 0.8413]) == pytest.approx([63.5, 127.5, 191.5], abs=1)


def test_noise_of_another_seed_is_other_noise():
    assert not np.array_equal(read("noise", n=1).images[0], read("noise", n=1, seed=1).images[0])


def test_noise_of_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match=r"kind.*noise.*pink"):
        read("noise", kind="pink")


def test_lazy_images_behave_like_a_sequence():
    images = LazyImages(3, grey)
    assert [image[0, 0] for image in images[1:]] == [1, 2]
    assert images[-1][0, 0] == 2
    with pytest.raises(IndexError):
        images[3]


# Preparation


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(20, 20), (20, 20, 3), (9, 31), (31, 9, 3)])
@pytest.mark.parametrize("resolution", [None, 8])
def test_prepared_images_have_the_size_and_channels_of_the_input(channels, shape, resolution):
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    prepared = prepare(images, Input(channels=channels, size=16, resolution=resolution))
    assert prepared.shape == (4, channels, 16, 16)
    assert prepared.dtype == np.uint8


def test_images_of_different_sizes_and_colours_are_prepared_together():
    assert prepare([grey(9, 10), np.full((50, 40, 3), 9, np.uint8)], Input(size=16)).tolist() == [[[[9] * 16] * 16]] * 2


def test_grey_images_of_the_right_size_stay_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 12), dtype=np.uint8)
    assert np.array_equal(prepare(images, Input(size=12))[:, 0], images)
    assert np.array_equal(prepare(list(images), Input(size=12))[:, 0], images)


@pytest.mark.parametrize(("colour", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_colours_become_their_luma(colour, luma):
    image = np.full((10, 10, 3), colour, dtype=np.uint8)
    assert np.unique(prepare([image], Input(size=8))).tolist() == [luma]


def test_grey_images_get_three_equal_channels():
    image = np.random.default_rng(0).integers(0, 256, (10, 10), dtype=np.uint8)
    red, green, blue = prepare([image], Input(channels=3, size=10))[0]
    assert np.array_equal(red, image)
    assert np.array_equal(red, green)
    assert np.array_equal(red, blue)


def test_channels_come_first_and_stay_apart():
    image = np.zeros((10, 10, 3), dtype=np.uint8) + np.array([1, 2, 3], dtype=np.uint8)
    assert prepare([image], Input(channels=3, size=8))[0, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("input", [Input(size=8), Input(size=40), DIGITS_INPUT, Input(size=40, resolution=8, levels=2)])
def test_black_stays_black_and_white_stays_white(value, input):
    assert np.unique(prepare([grey(value, 20)], input)).tolist() == [value]


@pytest.mark.parametrize("turned", [False, True])
def test_the_central_square_is_kept(turned):
    image = grey(0, 30)[:10]
    image[:, 10:20] = 200
    assert np.unique(prepare([image.T if turned else image], Input(size=10))).tolist() == [200]


def test_images_shrink_by_area_averages():
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    averages = image.reshape(8, 4, 8, 4).mean(axis=(1, 3))
    assert np.abs(prepare([image], Input(size=8))[0, 0] - averages).max() <= 1


def test_grey_values_go_to_the_nearest_level():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    levels = np.array([0, 63.75, 127.5, 191.25, 255])
    nearest = levels[np.abs(ramp[..., None] - levels).argmin(axis=-1)]
    assert np.abs(prepare([ramp], Input(size=16, levels=5))[0, 0] - nearest).max() <= 0.5


def test_digits_keep_their_pixels_and_their_17_levels():
    images = read("digits").images
    prepared = prepare(images, DIGITS_INPUT)[:, 0]
    assert np.array_equal(prepared, images)
    assert len(np.unique(prepared)) == 17


@pytest.mark.parametrize(("name", "parameters"), MADE_UP)
def test_every_embedded_set_has_the_grey_levels_of_the_digits(name, parameters):
    levels = np.unique(read("digits").images)
    assert np.isin(prepare(read(name, n=100, resolution=8, **parameters).images, DIGITS_INPUT), levels).all()


@pytest.mark.parametrize(("name", "parameters"), [pytest.param("digits", {}, id="digits"), *MADE_UP])
def test_every_embedded_set_is_equally_blurred(name, parameters):
    """What the classifier sees is the linear interpolation of 8×8 pixels: sharpness gives no set away."""
    input = read_suite("digits").suite.input
    images = read(name, resolution=8, **parameters).images[:50]
    small = prepare(images, DIGITS_INPUT)[:, 0].astype(float)
    centres = np.clip((np.arange(input.size) + 0.5) * 8 / input.size - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(8)))
    assert np.abs(prepare(images, input)[:, 0] - weights @ small @ weights.T).max() <= 1


# Folders of images


def test_class_folders_are_the_classes_in_the_order_of_their_names(tmp_path):
    for name, value in (("b/1", 3), ("a/2", 2), ("a/1", 1), ("c/deep/1", 4)):
        save(tmp_path / f"{name}.png", grey(value))
    pool = read("imagefolder", path=tmp_path)
    assert values(pool) == [1, 2, 3, 4]
    assert pool.labels.tolist() == [0, 0, 1, 2]
    assert pool.labels.dtype == np.int64
    assert pool.split == "all"


@pytest.mark.parametrize(("split", "value"), [("train", 1), ("test", 2)])
def test_train_and_test_folders_are_the_splits(tmp_path, split, value):
    for name in "ab":
        save(tmp_path / "train" / name / "1.png", grey(1))
        save(tmp_path / "test" / name / "1.png", grey(2))
    pool = read("imagefolder", path=tmp_path, split=split)
    assert values(pool) == [value, value]
    assert pool.labels.tolist() == [0, 1]
    assert pool.split == split


def test_flat_folder_is_one_class(tmp_path):
    save(tmp_path / "1.png", grey(1))
    save(tmp_path / "2.jpg", grey(2))
    pool = read("imagefolder", path=tmp_path)
    assert pool.labels.tolist() == [0, 0]
    assert values(pool) == [1, 2]


@pytest.mark.parametrize("value", [True, "true"])
def test_invert_turns_dark_ink_light(tmp_path, value):
    save(tmp_path / "1.png", grey(250))
    assert np.unique(read("imagefolder", path=tmp_path, invert=value).images[0]).tolist() == [5]


def test_classes_have_the_same_labels_in_train_and_test(tmp_path):
    for name in ("train/a", "train/b", "train/c", "test/a", "test/c"):
        save(tmp_path / name / "1.png", grey(1))
    assert read("imagefolder", path=tmp_path, split="train").labels.tolist() == [0, 1, 2]
    assert read("imagefolder", path=tmp_path, split="test").labels.tolist() == [0, 2]


@pytest.mark.parametrize("name", ["there is none", ""])
def test_missing_or_empty_folder_is_missing_data(tmp_path, name):
    with pytest.raises(DataMissingError) as error:
        read("imagefolder", path=tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert error.value.exit_status == 3
    assert not error.value.downloadable


def test_imagefolder_needs_a_path():
    with pytest.raises(UsageError, match=r"imagefolder.*path"):
        read("imagefolder")


# Numpy archives


def test_npz_of_uint8_is_read_as_it_is(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(5, dtype=np.int16))
    pool = read("npz", path=tmp_path / "a.npz")
    assert np.array_equal(pool.images, images)
    assert pool.images.dtype == np.uint8
    assert pool.labels.tolist() == [0, 1, 2, 3, 4]
    assert pool.labels.dtype == np.int64
    assert pool.split == "all"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npz_of_floats_from_0_to_1_is_scaled(tmp_path, dtype):
    np.savez_compressed(tmp_path / "a.npz", images=np.array([[[0, 0.5], [0.2, 1]]], dtype=dtype))
    pool = read("npz", path=tmp_path / "a.npz")
    assert pool.images.dtype == np.uint8
    assert np.abs(pool.images.astype(int) - [[[0, 128], [51, 255]]]).max() <= 1


def test_npz_without_labels_is_one_class(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 4), dtype=np.uint8))
    assert read("npz", path=tmp_path / "a.npz").labels.tolist() == [0, 0, 0]


def test_npz_with_one_channel_is_grey(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 4, 1), dtype=np.uint8))
    assert read("npz", path=tmp_path / "a.npz").images.shape == (3, 4, 4)


PIXELS = np.zeros((3, 4, 4))
BROKEN_ARCHIVES = {
    "no images": ({"pictures": PIXELS, "labels": np.arange(3)}, "no array 'images'.*pictures, labels"),
    "flat": ({"images": np.zeros((3, 16))}, r"\(3, 16\)"),
    "channels first": ({"images": np.zeros((3, 3, 4, 4))}, r"\(3, 3, 4, 4\)"),
    "empty": ({"images": np.zeros((0, 4, 4))}, r"\(0, 4, 4\)"),
    "floats to 255": ({"images": PIXELS + 255}, "255.*0 to 1"),
    "negative": ({"images": PIXELS - 0.5}, "-0.5.*0 to 1"),
    "nan": ({"images": PIXELS * np.nan}, "nan.*0 to 1"),
    "wide integers": ({"images": np.zeros((3, 4, 4), dtype=np.int64)}, "int64.*uint8"),
    "too few labels": ({"images": PIXELS, "labels": np.arange(2)}, r"labels.*\(2,\).*\(3,\)"),
    "labels of text": ({"images": PIXELS, "labels": np.array(["a", "b", "c"])}, "labels.*integers"),
    "images of objects": ({"images": np.full((3, 4, 4), None)}, "pickle"),
    "labels of objects": ({"images": PIXELS, "labels": np.array([0, 1, None])}, "pickle"),
    "text": ({"images": np.full((3, 4, 4), "a")}, "uint8"),
}


@pytest.mark.parametrize(("arrays", "message"), BROKEN_ARCHIVES.values(), ids=BROKEN_ARCHIVES)
def test_npz_of_the_wrong_content_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=message) as error:
        read("npz", path=tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(error.value)


@pytest.mark.parametrize("content", ["text", "npy", "truncated"])
def test_file_that_is_no_numpy_archive_is_refused(tmp_path, content):
    file, written = tmp_path / "a.npz", io.BytesIO()
    if content == "npy":
        np.save(written, PIXELS)
    else:
        np.savez(written, images=PIXELS)
    whole = written.getvalue()
    file.write_bytes({"text": b"images?", "npy": whole, "truncated": whole[: len(whole) // 2]}[content])
    with pytest.raises(UsageError, match=r"expected a whole \.npz as np\.savez\(FILE, .* writes it\.$") as error:
        read("npz", path=file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("shape", [(4, 0, 5), (0, 5, 5), (4, 5, 0, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_npz_of_empty_images_is_refused_with_their_shape(tmp_path, shape, dtype):
    np.savez(tmp_path / "a.npz", images=np.zeros(shape, dtype))
    with pytest.raises(UsageError, match=re.escape(f"is empty, of shape {shape}")):
        read("npz", path=tmp_path / "a.npz")


def test_missing_npz_is_missing_data(tmp_path):
    with pytest.raises(DataMissingError) as error:
        read("npz", path=tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(error.value)


# Public data sets, in small copies of their layouts


def write_idx(folder, images, labels, prefix, suffixes=("images-idx3-ubyte", "labels-idx1-ubyte")):
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBBIII", 0, 8, 3, *images.shape)
    (folder / f"{prefix}-{suffixes[0]}").write_bytes(header + images.tobytes())
    (folder / f"{prefix}-{suffixes[1]}").write_bytes(struct.pack(">HBBI", 0, 8, 1, len(labels)) + bytes(labels))


def write_mnist(root):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for prefix in ("train", "t10k"):
        write_idx(root / "MNIST" / "raw", images, [3, 1, 4, 1, 5], prefix)
    return images


def test_mnist_is_read_from_its_raw_files(tmp_path):
    images = write_mnist(tmp_path)
    pool = read("mnist", root=tmp_path)
    assert np.array_equal(pool.images, images)
    assert pool.labels.tolist() == [3, 1, 4, 1, 5]
    assert pool.split == "test"


@pytest.mark.parametrize("name", ["mnist", "emnist-letters"])
def test_a_suite_can_choose_another_split_of_a_public_data_set(tmp_path, name):
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    for split, mnist_prefix, labels in (("train", "train", [1, 2]), ("test", "t10k", [3, 4])):
        write_idx(tmp_path / "MNIST" / "raw", images, labels, mnist_prefix)
        write_idx(tmp_path / "EMNIST" / "raw", images, labels, f"emnist-letters-{split}")

    def read_chosen(split, chosen):
        return registry.load("datasets", name).read(Request(tmp_path, split, chosen=chosen), {})

    for split, chosen, labels in (("test", "train", [1, 2]), ("test", "Testing", [3, 4]), ("train", "test", [1, 2])):
        pool = read_chosen(split, chosen)
        assert pool.labels.tolist() == labels
        assert pool.split == ("train" if labels == [1, 2] else "test")
    with pytest.raises(NoSuchSplitError, match=f"{name} has no split validation; it has: train, test"):
        read_chosen("test", "val")


@pytest.mark.parametrize("name", ["emnist-digits", "emnist-letters"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_emnist_is_turned_upright(tmp_path, name, split):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / "EMNIST" / "raw", images.transpose(0, 2, 1), [3, 1, 4, 1, 5], f"{name}-{split}")
    pool = read(name, root=tmp_path, split=split)
    assert np.array_equal(pool.images, images)
    assert pool.labels.tolist() == [3, 1, 4, 1, 5]
    assert pool.split == split


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage"])
def test_damaged_raw_files_are_broken_and_not_missing(tmp_path, damage):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    whole = file.read_bytes()
    file.write_bytes({"empty": b"", "truncated": whole[:-100], "garbage": b"<html>404</html>" * 9}[damage])
    with pytest.raises(UsageError, match="MNIST"):
        read("mnist", root=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "emnist-digits", "emnist-letters", "cifar10", "omniglot"])
def test_public_data_set_that_is_not_there_could_be_downloaded(tmp_path, name):
    with pytest.raises(DataMissingError) as error:
        read(name, root=tmp_path)
    assert str(tmp_path) in error.value.looked_for
    assert error.value.downloadable
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def write_omniglot(root, number, drawings):
    folder = root / "omniglot-py"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"images_background_small{number}.zip", "w") as archive:
        for name, ink in drawings.items():
            picture, written = Pillow.new("1", (105, 105), 1), io.BytesIO()
            picture.putpixel((ink, 0), 0)
            picture.save(written, format="PNG")
            archive.writestr(f"images_background_small{number}/{name}.png", written.getvalue())
        archive.writestr(f"images_background_small{number}/read me.txt", "not a drawing")


def test_omniglot_archives_are_read_together_as_light_ink_on_dark(tmp_path):
    write_omniglot(tmp_path, 1, {"Greek/character01/2": 2, "Greek/character01/1": 1, "Latin/character01/1": 3})
    write_omniglot(tmp_path, 2, {"Greek/character02/1": 4, "Latin/character01/1": 5})
    pool = read("omniglot", root=tmp_path)
    assert [np.argwhere(image == 255).tolist() for image in pool.images] == [
        [[0, column]] for column in (1, 2, 3, 4, 5)
    ]
    assert {image.shape for image in pool.images} == {(105, 105)}
    assert pool.labels.tolist() == [0, 0, 2, 1, 2], "a character is a class, whichever archive it is in"
    assert pool.split == "all"


def test_damaged_omniglot_archive_is_named(tmp_path):
    write_omniglot(tmp_path, 1, {"Greek/character01/1": 1})
    file = tmp_path / "omniglot-py" / "images_background_small1.zip"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError) as error:
        read("omniglot", root=tmp_path)
    assert str(file) in str(error.value)


# Inventory


def test_inventory_lists_a_set_without_train_and_test_once():
    assert take_inventory(read_suite("digits"), NOWHERE, download=False) == [
        Holding("digits-0-6", "all", 1264, 1797, None),
        Holding("digits-7-9", "all", 533, 1797, None),
        Holding("rendered-letters", "all", 1000, None, None),
        Holding("patches", "all", 1000, None, None),
        Holding("noise", "all", 1000, None, None),
    ]


def test_inventory_goes_on_after_missing_and_broken_sets(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"images?")
    suite = read_suite("digits").replacing({"patches": f"npz:{tmp_path / 'a.npz'}", "noise": "npz:there is none"})
    *there, broken, missing = take_inventory(suite, NOWHERE, download=False)
    assert [one.problem for one in there] == [None, None, None]
    assert (broken.dataset, broken.n) == ("patches", None)
    assert "not a readable numpy archive" in broken.problem
    assert (missing.dataset, missing.n) == ("noise", None)
    assert missing.problem.startswith("missing: ")


# Contact sheet


def test_contact_sheet_shows_images_as_the_classifier_sees_them(tmp_path):
    file = tmp_path / "new folder" / "sheet.png"
    assert draw_sheet("noise", None, NOWHERE, file, download=False) == "digits"
    with Pillow.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.size == (2 * (16 * 18 + 2), 2 * (8 * 18 + 2))
        sheet = np.asarray(picture.convert("RGB"))[::2, ::2]
    input = read_suite("digits").suite.input
    images = prepare(read("noise", n=1000, resolution=8).images, input)[:, 0]
    assert np.array_equal(sheet[2:18, 2:18, 0], images[0])
    assert np.array_equal(sheet[-18:-2, -18:-2, 0], images[-1])
    assert [path.name for path in file.parent.iterdir()] == ["sheet.png"]


def test_contact_sheet_of_few_images_of_ones_own(tmp_path):
    save(tmp_path / "images" / "1.png", np.full((50, 70, 3), 255, np.uint8))
    file = tmp_path / "sheet.PNG"
    assert draw_sheet(f"imagefolder:{tmp_path / 'images'}", "emnist", NOWHERE, file, download=False) == "emnist"
    sheet = np.asarray(Pillow.open(file))
    assert sheet.shape == (2 * (8 * 30 + 2), 2 * (16 * 30 + 2), 3)
    assert (sheet == 255).all(axis=2).sum() == 56 * 56


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet"])
def test_contact_sheet_is_a_png_or_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.png"):
        draw_sheet("noise", None, NOWHERE, tmp_path / name, download=False)
    assert not list(tmp_path.iterdir())


def test_contact_sheet_that_cannot_be_written_is_told_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"sheet\.png cannot be written: .*; choose another --sheet\.$"):
        draw_sheet("noise", None, NOWHERE, tmp_path / "file" / "sheet.png", download=False)
