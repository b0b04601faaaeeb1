"""The contract of a detector, and the decorator ``@oodbench.detector`` for functions and classes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, cast, get_args

from torch import Tensor

from oodbench import registry
from oodbench.errors import UsageError
from oodbench.evidence.evidence import Evidence
from oodbench.evidence.parts import BASIC, is_part, part_names
from oodbench.registry.parameters import defaults, resolve_parameters

FittedOn = Literal["nothing", "training", "meta", "exposed"]
"""What a detector is fitted on: nothing, the known training split, the known meta split (``meta``), or the known meta
split together with samples of unknown sets that a protocol exposes (``exposed``)."""

KNOWN_SPLITS: tuple[FittedOn, ...] = ("training", "meta")
CHOICE = "fitted_on"
"""The parameter by which users have any detector that learns from known samples fitted on other known samples."""


class Detector(Protocol):
    """The methods that a detector class implements."""

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Fit on the samples that ``fitted_on`` declares, forgetting earlier fits.

        Args:
            evidence: Evidence of N samples, with the parts that the detector needs.
            labels: int64 (N,): the true class of known samples, −1 for unknown (exposed) samples.

        Raises:
            CellSkippedError: The detector cannot be fitted on these samples.
        """
        ...

    def score(self, evidence: Evidence) -> Tensor:
        """Score N samples, (N,) of float32 or float64; larger = more likely wrong or unknown."""
        ...


NeedsBy = Callable[[Mapping[str, Any]], Sequence[str]]
"""The parts of the evidence that a detector needs, from all its parameters."""


@dataclass
class FunctionDetector:
    """A detector without fitting, made of a function of parts of the evidence."""

    function: Callable[..., Tensor]
    needs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Nothing to learn."""

    def score(self, evidence: Evidence) -> Tensor:
        """Call the function."""
        return self.function(*(getattr(evidence, part) for part in self.needs), **self.parameters)


@dataclass(frozen=True)
class DetectorPlugin:
    """A named detector, made by the decorator ``@oodbench.detector`` from a function or a class.

    Attributes:
        name: The name that users type.
        target: The function or class.
        needs: The parts of the evidence that it gets.
        fitted_on: What it is fitted on.
        version: Version of the detector; None for the version of its package.
        no_effect_on_scores: Parameters that change no score by themselves.
        stochastic: Whether its scores are random: a seed repeats them, but they depend on the batch.
        needs_by: The parts that it needs, from all its parameters; None if they do not depend on those.
        search_space: Values of parameters that ``tuned`` tries, by parameter.
        only_in_scoring: Parameters that ``fit`` does not use. The detector has them as attributes, so that a fitted one
            is given other values without another fit.
    """

    name: str
    target: Callable[..., Any]
    needs: tuple[str, ...] = ()
    fitted_on: FittedOn = "nothing"
    version: str | None = None
    no_effect_on_scores: tuple[str, ...] = ()
    stochastic: bool = False
    needs_by: NeedsBy | None = None
    search_space: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    only_in_scoring: tuple[str, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Call the undecorated function or class."""
        return self.target(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        """The undecorated class as the base of ``class Mine(decorated)``.

        Raises:
            UsageError: A function is decorated, which cannot be a base.
        """
        if not inspect.isclass(self.target):
            raise UsageError(
                f"the detector {self.name!r} is made of a function, which has no subclasses; expected a class, or call "
                "the function."
            )
        return (self.target,)

    def __instancecheck__(self, instance: object) -> bool:
        return inspect.isclass(self.target) and isinstance(instance, self.target)

    def __subclasscheck__(self, subclass: type) -> bool:
        return inspect.isclass(self.target) and issubclass(subclass, self.target)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0]

    def parameters(self, given: Mapping[str, object]) -> dict[str, Any]:
        """All parameters with their values: those given, converted to their type, else the defaults.

        Raises:
            UsageError: A parameter is unknown or cannot be converted.
        """
        own = {key: value for key, value in given.items() if key != CHOICE}
        chosen = {CHOICE: given[CHOICE]} if CHOICE in given else {}
        return resolve_parameters(self.name, self.target, own) | chosen

    @property
    def through(self) -> Literal["tuning", "members"] | None:
        """How it works through another detector: by choosing its parameters, or by an ensemble's members; else None."""
        return cast(Literal["tuning", "members"] | None, getattr(self.target, "through", None))

    def lacks(self, given: Mapping[str, object]) -> str | None:
        """A parameter that has no default and is not given; None if there is none."""
        offered = defaults(self.target)
        missing = (name for name in offered if offered[name].default is inspect.Parameter.empty and name not in given)
        return next(missing, None)

    def configured(self, given: Mapping[str, object]) -> "DetectorPlugin":
        """The detector as parameters make it: they can decide what it needs, and what it is fitted on.

        Raises:
            UsageError: A parameter is wrong.
        """
        plugin, choice = self, given.get(CHOICE)
        if CHOICE in given:
            if self.fitted_on not in KNOWN_SPLITS:
                raise UsageError(
                    f"{self.name!r} is fitted on {self.fitted_on} by definition; {CHOICE} is for detectors that are "
                    f"fitted on {' or '.join(KNOWN_SPLITS)}."
                )
            if choice not in KNOWN_SPLITS:
                raise UsageError(f"{CHOICE} of {self.name!r} is {choice!r}; expected {' or '.join(KNOWN_SPLITS)}.")
            plugin = replace(plugin, fitted_on=choice)
        if self.needs_by is not None:
            plugin = replace(plugin, needs=tuple(self.needs_by(self.parameters(given))))
        return plugin

    def build(self, parameters: Mapping[str, Any]) -> Detector:
        """Make a new, unfitted detector."""
        own = {key: value for key, value in parameters.items() if key != CHOICE}
        if inspect.isclass(self.target):
            return cast(Detector, self.target(**own))
        return FunctionDetector(self.target, self.needs, own)


def detector(
    name: str,
    *,
    needs: str | Sequence[str] | NeedsBy = (),
    fitted_on: FittedOn | None = None,
    version: str | None = None,
    no_effect_on_scores: Sequence[str] = (),
    stochastic: bool = False,
    search_space: Mapping[str, Sequence[Any]] | None = None,
    only_in_scoring: Sequence[str] = (),
    inert: Sequence[str] = (),
    by_chance: bool = False,
) -> Callable[[Callable[..., Any]], DetectorPlugin]:
    """Decorator that makes a function or a class a detector.

    A function gets the parts of the evidence that it needs, in the order of ``needs``, and returns the scores (N,).
    Its keyword-only arguments are the detector's parameters. A class has ``fit(evidence, labels)`` and
    ``score(evidence)`` as in ``Detector``; the arguments of its constructor are the detector's parameters.
    A parameter named ``seed`` gets the run's seed.

    Args:
        name: The name that users type.
        needs: One or several parts of :class:`~oodbench.evidence.Evidence`, those of plugins too. By default, a class
            gets ``logits``, ``features``, ``gradients`` and ``confounding``. Where parameters decide, a function from
            all parameters, by name, to the parts. A class that needs ``scores`` is a meta
            classifier; its parameter ``inputs`` names the detectors whose scores it gets.
        fitted_on: What a class is fitted on: ``training`` (the known training split), ``meta`` (the known meta split,
            the default) or ``exposed`` (the known meta split and exposed samples of unknown sets, labelled −1).
        version: Version of the detector, to be raised when its scores change; by default that of its package.
        no_effect_on_scores: Names of parameters that change no score by themselves, or on some classifiers only, such
            as a batch size, or a seed that is not always used.
        stochastic: Whether the scores are random, so that they depend on the batch.
        search_space: Values that ``tuned`` tries, by the name of the parameter; all combinations, the last one fastest.
        only_in_scoring: Names of parameters that ``fit`` does not use, and that the detector keeps in attributes of the
            same names: ``tuned`` sets these on a copy of a fitted detector, instead of fitting again.
        inert: The earlier name of ``no_effect_on_scores``.
        by_chance: The earlier name of ``stochastic``.

    Raises:
        UsageError: ``needs`` or ``fitted_on`` is unknown, or the target does not have the expected signature.
    """

    def decorate(target: Callable[..., Any]) -> DetectorPlugin:
        needs_by = needs if callable(needs) else None
        by_default = needs(resolve_parameters(name, target, {})) if callable(needs) else needs
        parts = (by_default,) if isinstance(by_default, str) else tuple(by_default)
        _check(name, target, parts, fitted_on)
        _check_parameters(name, target, [*(search_space or {}), *only_in_scoring])
        learns = (fitted_on or "meta") if inspect.isclass(target) else "nothing"
        plugin = DetectorPlugin(
            name,
            target,
            parts or BASIC,
            learns,
            version,
            (*no_effect_on_scores, *inert),
            stochastic or by_chance,
            needs_by,
            search_space or {},
            tuple(only_in_scoring),
        )
        registry.declare("detectors", name, plugin, target.__module__, target.__qualname__)
        # In the module this name is the plugin, so pickle has to look up its attribute ``target``.
        target.__qualname__ = f"{target.__qualname__}.target"
        return plugin

    return decorate


def _check(name: str, target: Callable[..., Any], needs: Sequence[str], fitted_on: str | None) -> None:
    """Check that a target can be used as a detector.

    Raises:
        UsageError: It cannot; the message says what is expected.
    """
    unknown = [part for part in needs if not is_part(part)]
    if unknown:
        raise UsageError(f"the detector {name!r} needs {unknown[0]!r}; expected some of: {part_names()}.")
    if inspect.isclass(target):
        _check_class(name, target, needs, fitted_on)
    else:
        _check_function(name, target, needs, fitted_on)


def _check_parameters(name: str, target: Callable[..., Any], named: Sequence[str]) -> None:
    """Check the parameters of a target, and those that its decorator names.

    Raises:
        UsageError: There is no such parameter, or one has a reserved name.
    """
    offered = defaults(target)
    if CHOICE in offered:
        raise UsageError(f"the detector {name!r} has a parameter {CHOICE!r}, which every detector has; rename it.")
    for parameter in named:
        if parameter not in offered:
            raise UsageError(
                f"the decorator of {name!r} names the parameter {parameter!r}; expected one of: "
                f"{', '.join(offered) or 'none'}."
            )


def _check_class(name: str, target: type, needs: Sequence[str], fitted_on: str | None) -> None:
    if not (hasattr(target, "fit") and hasattr(target, "score")):
        raise UsageError(f"the detector class {target.__name__} of {name!r} needs methods fit and score.")
    for method, arguments in (("fit", ("evidence", "labels")), ("score", ("evidence",))):
        signature = inspect.signature(getattr(target, method))
        try:
            signature.bind("self", *arguments)
        except TypeError as cause:
            raise UsageError(
                f"the method {method}{signature} of the detector {name!r} cannot be called as "
                f"{method}({', '.join(arguments)}): {cause}."
            ) from cause
    if fitted_on not in (None, "training", "meta", "exposed"):
        raise UsageError(
            f"the detector {name!r} is fitted on {fitted_on!r}; expected one of: {', '.join(get_args(FittedOn)[1:])}."
        )
    if "scores" in needs and "inputs" not in defaults(target):
        raise UsageError(f"the detector {name!r} needs scores; expected a parameter `inputs` that says whose.")


def _check_function(name: str, target: Callable[..., Any], needs: Sequence[str], fitted_on: str | None) -> None:
    if not needs:
        raise UsageError(f"the detector function of {name!r} says not what it needs; one of: {part_names()}.")
    if fitted_on not in (None, "nothing"):
        raise UsageError(f"the detector {name!r} is a function, which learns nothing; write a class to fit it.")
    if "scores" in needs:
        raise UsageError(f"the detector {name!r} needs scores; expected a class with a parameter `inputs`.")
    signature = inspect.signature(target)
    try:
        signature.bind(*needs, **defaults(target))
    except TypeError as cause:
        raise UsageError(
            f"the detector function {name!r}{signature} cannot be called with its needs ({', '.join(needs)}): {cause}."
        ) from cause
