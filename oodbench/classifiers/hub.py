"""Models of torchvision and timm by name, with the preprocessing that belongs to their pretrained weights."""

import difflib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, get_args

from torch import nn

from oodbench.classifiers.spec import ClassifierSpec
from oodbench.datasets.preparation import Transform
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.suites.schema import Interpolation

# Heads of torchvision's models that only training uses.
_AUXILIARY = ("AuxLogits", "aux1", "aux2")
# Models that reorder and rescale the channels themselves where they are built for the pretrained weights.
_TRANSFORM_INPUT = ("googlenet", "inception_v3")
# What timm's configurations have that keys of [input] can say.
_USUAL = {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}


def torchvision(model: str, *, as_pretrained: bool) -> ClassifierSpec:
    """A classifier of ``torchvision.models``.

    Args:
        model: Name of the model, maybe with that of its weights: ``resnet50.IMAGENET1K_V1``.
        as_pretrained: Whether hidden parts of the network are built as for the pretrained weights.

    Raises:
        UsageError: There is no model of that name.
    """
    from torchvision import models

    name = f"torchvision:{model}"
    architecture, _, tag = model.partition(".")
    check_name(name, architecture, models.list_models(module=models))
    enum = models.get_model_weights(architecture)
    if tag and tag not in enum.__members__:
        raise UsageError(f"{name} has no weights {tag}; expected one of: {', '.join(enum.__members__)}.")
    weights = enum[tag] if tag else enum.DEFAULT

    def build(channels: int, size: int, classes: int) -> nn.Module:
        hidden: dict[str, Any] = {}
        if architecture.startswith("vit_"):
            hidden["image_size"] = size
        elif architecture == "maxvit_t":
            hidden["input_size"] = (size, size)
        elif architecture in _TRANSFORM_INPUT:
            hidden |= {"transform_input": as_pretrained, "init_weights": True}
        return _without_auxiliary(models.get_model(architecture, weights=None, num_classes=classes, **hidden))

    def pretrained(channels: int, size: int, classes: int) -> nn.Module:
        _check_classes(name, len(weights.meta["categories"]), classes)
        with _weights_only():
            return _without_auxiliary(models.get_model(architecture, weights=weights, progress=False))

    def preset() -> Mapping[str, Any]:
        transform = weights.transforms()
        return {
            "channels": 3,
            "size": transform.crop_size[0],
            "resize": transform.resize_size[0],
            "interpolation": transform.interpolation.value,
            "mean": list(transform.mean),
            "std": list(transform.std),
        }

    return ClassifierSpec(
        name,
        build,
        (name, "torchvision", version("torchvision")),
        code=hashed([name, as_pretrained]),
        pretrained=pretrained,
        preset=preset,
        channels=3,
        unused=_AUXILIARY,
    )


def timm(model: str) -> ClassifierSpec:
    """A classifier of timm.

    Args:
        model: Name of the model, maybe with a tag of pretrained weights.

    Raises:
        UsageError: There is no model of that name.
        MissingPrerequisiteError: timm is not installed.
    """
    name = f"timm:{model}"
    try:
        import timm as library
    except ImportError as cause:
        raise MissingPrerequisiteError(
            f"the classifier {name} needs the package timm; install it by pip install 'oodbench[hub]'."
        ) from cause
    # A name may have a tag that says which pretrained weights.
    check_name(name, model.partition(".")[0], library.list_models())
    config = library.get_pretrained_cfg(model)

    def sized(size: int) -> dict[str, Any]:
        """The argument for networks that are built for images of a size, where it is another than usual."""
        is_other = config is not None and config.fixed_input_size and config.input_size[-1] != size
        return {"img_size": size} if is_other else {}

    def build(channels: int, size: int, classes: int) -> nn.Module:
        return library.create_model(model, pretrained=False, num_classes=classes, in_chans=channels, **sized(size))

    def pretrained(channels: int, size: int, classes: int) -> nn.Module:
        if config is None or not config.has_weights:
            raise UsageError(f"timm has no pretrained weights for the classifier {name}; give a file of weights.")
        _check_classes(name, config.num_classes, classes)
        with _weights_only():
            return library.create_model(model, pretrained=True, in_chans=channels, **sized(size))

    def preset() -> Mapping[str, Any] | Transform:
        if config is None:
            raise UsageError(
                f"timm does not say how images are prepared for the classifier {name}; give the keys of [input] "
                'instead of preset = "model".'
            )
        return _timm_preset(name, _data_config(config))

    return ClassifierSpec(
        name,
        build,
        (name, "timm", version("timm")),
        code=hashed([name]),
        pretrained=pretrained,
        preset=preset,
    )


def _data_config(config: Any) -> dict[str, Any]:  # noqa: ANN401
    """Timm's own reading of a configuration of pretrained weights."""
    from timm.data.config import resolve_data_config

    resolved: dict[str, Any] = resolve_data_config(  # type: ignore[no-untyped-call]
        pretrained_cfg=config.to_dict()
    )
    return resolved


def _timm_preset(name: str, config: Mapping[str, Any]) -> Mapping[str, Any] | Transform:
    """The keys of ``[input]`` for a configuration of timm, or timm's own transform where they do not suffice."""
    channels, height, width = config["input_size"]
    is_usual = set(config) <= _USUAL and config["interpolation"] in get_args(Interpolation)
    if is_usual and height == width and channels in (1, 3) and config["crop_mode"] == "center":
        return {
            "channels": channels,
            "size": height,
            "resize": math.floor(height / config["crop_pct"]),
            "interpolation": config["interpolation"],
            "mean": list(config["mean"]),
            "std": list(config["std"]),
        }
    from timm.data.transforms_factory import create_transform

    shown = {key: str(value) for key, value in config.items()}
    return Transform(f"of {name}", create_transform(**config, is_training=False), hashed([shown, version("timm")]))


def _without_auxiliary(network: nn.Module) -> nn.Module:
    """The network without heads that only training uses: evaluation does not, so they have no gradient."""
    for head in _AUXILIARY:
        if getattr(network, head, None) is not None:
            setattr(network, head, None)
    if hasattr(network, "aux_logits"):
        setattr(network, "aux_logits", False)  # noqa: B010 - torch declares attributes as tensors or modules
    return network


@contextmanager
def _weights_only() -> Iterator[None]:
    """Have torch read files without running code that may be in them, whatever a library asks for."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def hashed(values: Sequence[object]) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def check_name(name: str, model: str, offered: Sequence[str]) -> None:
    """Refuse the name of a model that there is not, with close ones.

    Raises:
        UsageError: There is no such model.
    """
    if model not in offered:
        close = difflib.get_close_matches(model, offered, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "see its documentation."
        raise UsageError(f"there is no classifier {name}; {hint}")


def _check_classes(name: str, pretrained: int, classes: int) -> None:
    if pretrained != classes:
        raise UsageError(
            f"the pretrained weights of the classifier {name} are for {pretrained} classes and the known set has "
            f"{classes}; say which output is which class by `classes` in the suite, train it on the known set, or give "
            "a file of weights."
        )
