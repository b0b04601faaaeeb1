"""The preprocessing of a suite's classifier: of its own weights, of the suite, or of both, key by key."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from oodbench.classifiers.lookup import load_own
from oodbench.classifiers.spec import ClassifierSpec
from oodbench.datasets.preparation import Function, Preprocessing, Transform
from oodbench.errors import UsageError
from oodbench.registry.code import source_of
from oodbench.suites.mistakes import OF_DECODING
from oodbench.suites.schema import Input, Suite


def preprocessing_of(
    suite: Suite, spec: ClassifierSpec, folders: Sequence[Path], given: Function | None = None
) -> Preprocessing:
    """The preprocessing of a suite's classifier.

    Args:
        suite: The suite.
        spec: The classifier.
        folders: Folders that are searched for the file of a transform.
        given: A transform that was given as an object, instead of its name.

    Raises:
        UsageError: The transform or preset cannot be used, or images have a number of channels that the classifier does
            not take.
        MissingPrerequisiteError: The file of a transform is missing.
    """
    input = suite.input
    if given is not None:
        preprocessing = Preprocessing(input, _given_transform(given))
    elif input.transform is not None:
        preprocessing = Preprocessing(input, _own_transform(input.transform, folders))
    elif suite.has_preset and (spec.preset is not None or input.preset == "model"):
        preprocessing = _with_preset(input, spec)
    else:
        preprocessing = Preprocessing(input)
    channels = preprocessing.input.channels
    if preprocessing.transform is None and spec.channels not in (None, channels):
        raise UsageError(
            f"the classifier {spec.name} takes images of {spec.channels} channels; set channels = {spec.channels} in "
            "[input]."
        )
    return preprocessing


def _given_transform(function: Function) -> Transform:
    """A transform that was given as an object in Python."""
    name = getattr(function, "__qualname__", None) or repr(function)
    return Transform(" ".join(re.sub(r" at 0x[0-9a-f]+", "", name).split()), function, source_of(function))


def _own_transform(name: str, folders: Sequence[Path]) -> Transform:
    target, code = load_own("transform", name, folders)
    if not callable(target):
        raise UsageError(
            f"the transform {name} is a {type(target).__name__}; expected a function of a PIL image to float32 "
            "(C, H, W)."
        )
    function: Callable[[Any], Any] = target() if isinstance(target, type) else target
    return Transform(name, function, code)


def _with_preset(input: Input, spec: ClassifierSpec) -> Preprocessing:
    """The preset of a classifier, overridden by the keys that the suite has beside it.

    Raises:
        UsageError: The classifier has no preset, or one that keys cannot override.
    """
    if spec.preset is None:
        raise UsageError(
            f"the classifier {spec.name} has no preprocessing of its own, as those of torchvision and timm have; give "
            "the keys of [input] (channels, size, mean, std, …) instead of preset."
        )
    given = {key: getattr(input, key) for key in input.model_fields_set if key != "preset"}
    preset = spec.preset()
    if not isinstance(preset, Transform):
        filled = input.model_copy(update={**preset, **given})
        for key in ("mean", "std"):
            if len(getattr(filled, key)) != filled.channels:
                raise UsageError(
                    f"{key} has {len(getattr(filled, key))} numbers; expected {filled.channels}, one for each channel "
                    f"of the preset of {spec.name}."
                )
        if given.keys() & {"size", "resize"} and filled.resize is not None and filled.resize < filled.size:
            raise UsageError(
                f"resize is {filled.resize}, as the preset of {spec.name} and the keys beside it have it, which is "
                f"below the size {filled.size} that is cut out; give both resize and size."
            )
        return Preprocessing(filled)
    overriding = sorted(given.keys() - {*OF_DECODING})
    if overriding:
        raise UsageError(
            f"the preprocessing of the classifier {spec.name} cannot be put in keys of [input], so that "
            f"{overriding[0]} cannot override it; leave it out, or give a transform."
        )
    return Preprocessing(input, preset)
