"""Corrupted images, made on the spot."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

import oodbench
from oodbench.datasets.adapter import Request, load_dataset
from oodbench.datasets.corruption import CORRUPTIONS, LARGE, SMALL
from oodbench.errors import LeakError, UsageError

PIXELS = np.random.default_rng(0).integers(40, 200, (6, 32, 32, 3), dtype=np.uint8)
SUITE = """
name = "corrupted"
version = 1
known = { adapter = "npz", name = "coloured", path = "known.npz" }
seeds = [0]
[input]
size = 16
channels = 3
[sizes]
train = 60
meta = 30
test = 30
[training]
epochs = 1
[unknown]
noise = { n = 40, group = "far" }
blurred = { adapter = "corruption", kind = "gaussian-blur", severity = 5, group = "covariate" }
noisy = { adapter = "corruption", kind = "gaussian-noise", severity = 2, group = "covariate" }
"""


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "few.npz", images=PIXELS, labels=np.arange(6) % 3)
    return tmp_path


def read(folder, kind, **parameters):
    of = {"adapter": "npz", "path": str(folder / "few.npz")}
    return load_dataset("corruption").read(Request(folder, "test"), {"of": of, "kind": kind, **parameters})


def pixels(pool):
    return np.stack([np.asarray(image) for image in pool.images])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_is_further_from_itself_the_more_severe_the_corruption(folder, kind):
    changes = []
    for severity in range(1, 6):
        pool = read(folder, kind, severity=severity)
        found = pixels(pool)
        assert (found.dtype, found.shape) == (np.uint8, PIXELS.shape)
        assert list(pool.labels) == [0, 1, 2, 0, 1, 2]
        changes.append(np.abs(found.astype(int) - PIXELS).mean())
    assert changes[0] > 0.2
    assert changes == sorted(changes)


@pytest.mark.parametrize("strengths", [SMALL, LARGE], ids=["cifar", "imagenet"])
def test_each_corruption_has_five_strengths(strengths):
    assert strengths.keys() == CORRUPTIONS.keys()
    assert {len(values) for values in strengths.values()} == {5}


def test_noise_follows_from_the_seed_and_the_place_alone(folder):
    first, again, other = (read(folder, "gaussian-noise", seed=seed) for seed in (0, 0, 1))
    backwards = np.stack([np.asarray(again.images[i]) for i in range(5, -1, -1)])[::-1]
    np.testing.assert_array_equal(pixels(first), backwards)
    assert (pixels(first) != pixels(other)).mean() > 0.5
    difference = pixels(first).astype(float) - PIXELS
    assert difference.std() / 255 == pytest.approx(SMALL["gaussian-noise"][2], rel=0.05)
    assert abs(np.corrcoef(difference[0].ravel(), difference[1].ravel())[0, 1]) < 0.1


def test_corruptions_are_pillows_own_where_it_has_them(folder):
    buffer = io.BytesIO()
    Pillow.fromarray(PIXELS[0]).save(buffer, "JPEG", quality=58)
    np.testing.assert_array_equal(np.asarray(read(folder, "jpeg").images[0]), np.asarray(Pillow.open(buffer)))
    grey = PIXELS[0].mean(axis=2).astype(np.uint8)
    even = np.full_like(grey, int(grey.mean() + 0.5))
    expected = np.asarray(Pillow.blend(Pillow.fromarray(even), Pillow.fromarray(grey), 0.4)).astype(int)
    found = CORRUPTIONS["contrast"](grey, 0.4, np.random.default_rng(0)).astype(int)
    assert np.abs(found - expected).max() <= 1
    # The value of HSV is raised, hue and saturation stay.
    brighter = CORRUPTIONS["brightness"](PIXELS[0], 0.15, np.random.default_rng(0))
    before, after = (np.asarray(Pillow.fromarray(image).convert("HSV")).astype(int) for image in (PIXELS[0], brighter))
    assert np.abs(after[..., 2] - before[..., 2] - 0.15 * 255).max() <= 1
    assert np.abs(after[..., 1] - before[..., 1]).max() <= 3


def test_grey_and_black_images_are_corrupted_too():
    for image in (np.zeros((8, 8), dtype=np.uint8), np.zeros((8, 8, 3), dtype=np.uint8), PIXELS[0][..., 0]):
        for kind, corrupt in CORRUPTIONS.items():
            found = corrupt(image, LARGE[kind][4], np.random.default_rng(0))
            assert (found.dtype, found.shape) == (np.uint8, image.shape), kind


def test_a_suite_without_more_has_its_known_test_samples_corrupted_and_no_training_image(tmp_path):
    generator = np.random.default_rng(1)
    labels = np.arange(120) % 3
    images = generator.integers(0, 120, (120, 16, 16, 3)) + 60 * (np.arange(3) == labels[:, None])[:, None, None, :]
    np.savez(tmp_path / "known.npz", images=images.astype(np.uint8), labels=labels)
    (tmp_path / "suite.toml").write_text(SUITE)
    found = oodbench.run(tmp_path / "suite.toml", ["entropy"], protocols=["covariate"], out=tmp_path / "out")
    (record,) = found
    assert [result.dataset for result in record.results] == ["coloured", "blurred", "noisy"]
    assert {result.n_known for result in record.results} == {30}
    assert record.datasets["blurred"].adapter == "corruption:kind=gaussian-blur,severity=5"

    table = pq.read_table(tmp_path / "out" / record.scores.path).to_pandas()
    by_set = {name: set(of_set["index"]) for name, of_set in table.groupby("dataset", observed=True)}
    assert by_set["blurred"] == by_set["noisy"] == by_set["coloured"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "fog"}, "fog"),
        ({"kind": "jpeg", "severity": 6}, "severity"),
        ({}, "needs the parameter 'kind'"),
    ],
)
def test_parameters_that_are_wrong_are_named(folder, parameters, message):
    with pytest.raises(UsageError, match=message):
        load_dataset("corruption").read(Request(folder, "test"), {"of": "npz:few.npz", **parameters})


def test_it_is_of_something(folder):
    with pytest.raises(UsageError, match="corruption names no data set; expected one as `of`"):
        load_dataset("corruption").read(Request(folder, "test"), {"kind": "jpeg"})
    with pytest.raises(UsageError, match="corruption is of 'corruption'"):
        load_dataset("corruption").read(Request(folder, "test"), {"kind": "jpeg", "of": "corruption"})


SPLIT = """
name = "split"
version = 1
known = {{ adapter = "imagefolder", name = "digits", path = "known" }}
seeds = [0]
[input]
size = 8
[training]
epochs = 1
[sizes]
exposed = 0
[unknown]
other = {{ adapter = "imagefolder", path = "other", group = "far" }}
{more}
"""
BLUR = 'kind = "gaussian-blur", severity = 1'


@pytest.fixture
def split_folder(tmp_path):
    """A known set with a training and a test split, and an unknown set; all images differ."""
    generator = np.random.default_rng(0)
    for name, n in (("known/train/a", 20), ("known/train/b", 20), ("known/test/a", 20), ("known/test/b", 20)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(n):
            Pillow.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "other").mkdir()
    for i in range(30):
        Pillow.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "other" / f"{i}.png")
    return tmp_path


def run_split(folder, more):
    (folder / "split.toml").write_text(SPLIT.format(more=more))
    return oodbench.run(folder / "split.toml", ["entropy"], ["unknown-unknowns"], out=folder / "out")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            f'bl = {{ adapter = "corruption", {BLUR}, group = "covariate", split = "train" }}',
            r"images of bl \(covariate\) are made from images of digits \(train\)",
        ),
        (
            f'bl = {{ adapter = "corruption", {BLUR}, group = "covariate", '
            'of = { adapter = "imagefolder", path = "known", split = "train" } }',
            r"images of bl \(covariate\) are made from images of digits \(train\)",
        ),
        (
            f'bl = {{ adapter = "corruption", {BLUR}, group = "near" }}',
            r"images of bl \(unknown\) are made from images of digits \(meta\)",
        ),
        (
            f"[validation]\ncorruption = {{ {BLUR} }}",
            r"images of corruption \(validation\) are made from images of digits \(meta\)",
        ),
        (
            f'[validation]\nva = {{ adapter = "corruption", {BLUR}, '
            'of = { adapter = "imagefolder", path = "other" } }',
            r"30 of the 30 images of va \(validation\) are made from images of other \(unknown\)",
        ),
        (
            f'[validation]\nva = {{ adapter = "corruption", {BLUR}, '
            'of = { adapter = "imagefolder", path = "known", split = "test" } }',
            r"images of va \(validation\) are made from images of digits \((meta|test)\)",
        ),
    ],
)
def test_images_that_are_made_from_those_of_another_split_are_a_leak(split_folder, more, message):
    with pytest.raises(LeakError, match=message):
        run_split(split_folder, more)


def test_known_test_samples_and_samples_of_their_own_may_be_corrupted(split_folder):
    (record,) = run_split(
        split_folder,
        f'bl = {{ adapter = "corruption", {BLUR}, group = "covariate" }}\n'
        f'br = {{ adapter = "corruption", kind = "brightness", severity = 5, group = "covariate" }}',
    )
    assert record.status == "ok"
