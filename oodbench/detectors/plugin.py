"""The contract of a detector, and ``@oodbench.detector`` that makes one of a function or a class."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, get_args

from torch import Tensor

from oodbench import registry
from oodbench.errors import UsageError
from oodbench.evidence.evidence import OF_ONE_PASS, PARTS, Evidence
from oodbench.parameters import defaults, resolve

FittedOn = Literal["nothing", "training", "meta", "exposed"]
"""What a detector learns from: nothing; the known training split; the known meta split; or that together with the
exposed samples of unknown sets, where a protocol exposes any."""


class Detector(Protocol):
    """What a detector class implements."""

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Learn from the samples it is declared to be fitted on, forgetting what was learnt before.

        Args:
            evidence: Of N samples, with the parts that it needs.
            labels: int64 (N,): the true class of known samples, −1 of unknown (exposed) ones.

        Raises:
            CellSkippedError: These samples cannot teach it anything.
        """
        ...

    def score(self, evidence: Evidence) -> Tensor:
        """Score N samples, (N,) of float32 or float64; larger = more likely wrong or unknown."""
        ...


@dataclass
class FunctionDetector:
    """A detector without fitting: a function of parts of the evidence."""

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
    """A named detector: what ``@oodbench.detector`` makes of a function or a class.

    Attributes:
        name: The name that users type.
        target: The function or class.
        needs: The parts of the evidence that it gets.
        fitted_on: What it learns from.
        version: Its own version, if it has one beside its package's.
        inert: Parameters that change no score by themselves.
        by_chance: Whether its scores are drawn, so that they depend on the batch though a seed repeats them.
    """

    name: str
    target: Callable[..., Any]
    needs: tuple[str, ...] = ()
    fitted_on: FittedOn = "nothing"
    version: str | None = None
    inert: tuple[str, ...] = ()
    by_chance: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Call the function, or make an instance of the class, as if it were not decorated."""
        return self.target(*args, **kwargs)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0]

    def parameters(self, given: Mapping[str, object]) -> dict[str, Any]:
        """All parameters with their values.

        Raises:
            UsageError: A parameter is unknown or cannot be converted.
        """
        return resolve(self.name, self.target, given)

    def build(self, parameters: Mapping[str, Any]) -> Detector:
        """A fresh detector."""
        if inspect.isclass(self.target):
            return cast(Detector, self.target(**parameters))
        return FunctionDetector(self.target, self.needs, parameters)


def detector(
    name: str,
    *,
    needs: str | Sequence[str] = (),
    fitted_on: FittedOn | None = None,
    version: str | None = None,
    inert: Sequence[str] = (),
    by_chance: bool = False,
) -> Callable[[Callable[..., Any]], DetectorPlugin]:
    """Make a detector of a function or a class.

    A function gets the parts of the evidence that it needs, in the order of ``needs``, and returns the scores (N,).
    Its keyword-only arguments are the detector's parameters. A class has ``fit(evidence, labels)`` and
    ``score(evidence)`` as in ``Detector``; the arguments of its constructor are its parameters. A parameter named
    ``seed`` gets the run's seed.

    Args:
        name: The name that users type.
        needs: One or several parts of :class:`~oodbench.evidence.Evidence`. A class that says nothing gets
            ``logits``, ``features``, ``gradients`` and ``confounding``. One that needs ``scores`` is a meta classifier,
            and names the detectors whose scores it gets in its parameter ``inputs``.
        fitted_on: What a class learns from: ``training`` (the known training split), ``meta`` (the known meta split,
            the default) or ``exposed`` (that and the exposed samples of unknown sets, labelled −1).
        version: The detector's own version, to be raised when its scores change; by default its package's.
        inert: Names of parameters that change no score by themselves, or on some classifiers only: the size of a batch,
            the seed of a model that is not drawn.
        by_chance: Whether the scores are drawn at random, so that they depend on the batch.

    Raises:
        UsageError: ``needs`` or ``fitted_on`` names nothing that there is, or the target cannot be called that way.
    """
    parts = (needs,) if isinstance(needs, str) else tuple(needs)

    def decorate(target: Callable[..., Any]) -> DetectorPlugin:
        _check(name, target, parts, fitted_on)
        learns = (fitted_on or "meta") if inspect.isclass(target) else "nothing"
        plugin = DetectorPlugin(name, target, parts or OF_ONE_PASS, learns, version, tuple(inert), by_chance)
        registry.declare("detectors", name, plugin, target.__module__, target.__qualname__)
        # The module has the plugin under this name and the target in it, which is where pickle finds the target.
        target.__qualname__ = f"{target.__qualname__}.target"
        return plugin

    return decorate


def _check(name: str, target: Callable[..., Any], needs: Sequence[str], fitted_on: str | None) -> None:
    """Refuse what could not be called.

    Raises:
        UsageError: Says what was found and what was expected.
    """
    unknown = [part for part in needs if part not in PARTS]
    if unknown:
        raise UsageError(f"the detector {name!r} needs {unknown[0]!r}; expected some of: {', '.join(PARTS)}.")
    if inspect.isclass(target):
        _check_class(name, target, needs, fitted_on)
    else:
        _check_function(name, target, needs, fitted_on)


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
        raise UsageError(f"the detector function of {name!r} says not what it needs; one of: {', '.join(PARTS)}.")
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
