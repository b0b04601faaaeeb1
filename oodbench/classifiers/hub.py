"""Models of torchvision and timm by name."""

import difflib
from collections.abc import Sequence
from importlib.metadata import version

from torch import nn

from oodbench.classifiers.spec import ClassifierSpec
from oodbench.errors import MissingPrerequisiteError, UsageError


def torchvision(model: str, channels: int) -> ClassifierSpec:
    """A classifier of ``torchvision.models``.

    Args:
        model: Name of the model.
        channels: Number of channels of the images, which has to be 3.

    Raises:
        UsageError: There is no model of that name, or the images are grey.
    """
    from torchvision import models

    name = f"torchvision:{model}"
    _check_name(name, model, models.list_models(module=models))
    if channels != 3:
        raise UsageError(f"the classifier {name} takes images of 3 channels; set channels = 3 in [input].")

    def build(channels: int, size: int, classes: int) -> nn.Module:
        network: nn.Module = models.get_model(model, weights=None, num_classes=classes)
        return network

    def pretrained(channels: int, size: int, classes: int) -> nn.Module:
        weights = models.get_model_weights(model).DEFAULT
        _check_classes(name, len(weights.meta["categories"]), classes)
        network = build(channels, size, classes)
        # As the model's own function, but with weights_only.
        network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
        return network

    return ClassifierSpec(name, build, (name, "torchvision", version("torchvision")), pretrained=pretrained)


def timm(model: str, channels: int) -> ClassifierSpec:
    """A classifier of timm.

    Args:
        model: Name of the model, maybe with a tag of pretrained weights.
        channels: Number of channels of the images.

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
    _check_name(name, model.partition(".")[0], library.list_models())

    def build(channels: int, size: int, classes: int) -> nn.Module:
        return library.create_model(model, pretrained=False, num_classes=classes, in_chans=channels)

    def pretrained(channels: int, size: int, classes: int) -> nn.Module:
        config = library.get_pretrained_cfg(model)
        if config is None or not config.has_weights:
            raise UsageError(f"timm has no pretrained weights for the classifier {name}; give a file of weights.")
        _check_classes(name, config.num_classes, classes)
        return library.create_model(model, pretrained=True, in_chans=channels)

    return ClassifierSpec(name, build, (name, "timm", version("timm")), pretrained=pretrained)


def _check_name(name: str, model: str, offered: Sequence[str]) -> None:
    if model not in offered:
        close = difflib.get_close_matches(model, offered, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "see its documentation."
        raise UsageError(f"there is no classifier {name}; {hint}")


def _check_classes(name: str, pretrained: int, classes: int) -> None:
    if pretrained != classes:
        raise UsageError(
            f"the pretrained weights of the classifier {name} are for {pretrained} classes and the known set has "
            f"{classes}; train it on the known set, or give a file of weights."
        )
