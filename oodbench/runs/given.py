"""Objects that are given in Python instead of names: a network, its weights, a transform."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from oodbench.classifiers.lookup import make_builder
from oodbench.classifiers.spec import ClassifierSpec
from oodbench.classifiers.weights import load_weights
from oodbench.errors import UsageError
from oodbench.gradients.copying import copied
from oodbench.registry.code import source_of
from oodbench.suites.schema import GIVEN


@dataclass(frozen=True)
class GivenObjects:
    """Objects that were given in Python.

    Attributes:
        classifier: A network with its weights, or a function or class that builds one; None for a name.
        weights: A state dict; None for a file, or for the network's own.
        transform: A function of a PIL image to float32 (C, H, W); None for a name.
    """

    classifier: nn.Module | Callable[..., nn.Module] | None = None
    weights: Mapping[str, Any] | None = None
    transform: Callable[..., Any] | None = None

    @property
    def what(self) -> list[str]:
        """Which arguments are objects."""
        return [name for name in ("classifier", "weights", "transform") if getattr(self, name) is not None]


NOTHING = GivenObjects()


def take_objects(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], GivenObjects]:
    """Take the objects out of the arguments of a run, and leave names that stand for them.

    Raises:
        UsageError: An argument is neither a name nor such an object.
    """
    values = dict(arguments)
    objects: dict[str, Any] = {}
    expected: dict[str, tuple[Any, str]] = {
        "classifier": (Callable, "the name of a classifier, a torch.nn.Module, or a function that builds one"),
        "weights": (Mapping, "a file, or a state dict"),
        "transform": (Callable, "file.py:function, or a function of a PIL image to float32 (C, H, W)"),
    }
    for name, (kind, wanted) in expected.items():
        value = values.get(name)
        if value is None or isinstance(value, str | Path):
            continue
        if not isinstance(value, kind):
            raise UsageError(f"{name} is a {type(value).__name__}; expected {wanted}.")
        objects[name] = value
        values[name] = GIVEN if name == "weights" else _name_of(value)
    if isinstance(objects.get("classifier"), nn.Module) and values.get("weights") is None:
        values["weights"] = GIVEN  # those that it has
    return values, GivenObjects(**objects)


def with_given(spec: ClassifierSpec, given: GivenObjects) -> ClassifierSpec:
    """The classifier whose weights are given as a state dict, if they are."""
    weights = given.weights
    if weights is None:
        return spec

    def build(channels: int, size: int, classes: int) -> nn.Module:
        network = spec.build(channels, size, classes)
        load_weights(network, weights, classes, unused=spec.unused)
        return network

    return replace(spec, given=build)


def given_classifier(name: str, classifier: nn.Module | Callable[..., nn.Module]) -> ClassifierSpec:
    """How a classifier that was given as an object is built."""
    if not isinstance(classifier, nn.Module):
        code = hashlib.sha256(json.dumps([name, source_of(classifier)]).encode()).hexdigest()
        return ClassifierSpec(name, make_builder(name, classifier), (name, "", code), code)
    network = classifier
    sources = sorted({source_of(module) for module in network.modules()})
    code = hashlib.sha256(json.dumps([name, *sources]).encode()).hexdigest()

    def build(channels: int, size: int, classes: int) -> nn.Module:
        return copied(network)

    return ClassifierSpec(name, build, (name, "", code), code, given=build)


def _name_of(thing: object) -> str:
    """A name for messages and records: that of a function or class, or of an object's class."""
    return getattr(thing, "__qualname__", None) or type(thing).__name__
