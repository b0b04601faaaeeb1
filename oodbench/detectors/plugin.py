"""The contract of a detector, and ``@oodbench.detector`` that makes one of a function or a class."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from oodbench import registry
from oodbench.errors import UsageError
from oodbench.parameters import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from oodbench.evidence import Evidence

NEEDS = ("logits", "features", "gradients", "confounding")


class Detector(Protocol):
    """What a detector class implements."""

    def fit(self, evidence: "Evidence", labels: "Tensor") -> None:
        """Learn from the fitting split, forgetting what was learnt before.

        Args:
            evidence: Of N samples.
            labels: int64 (N,): the true class of known samples, −1 of unknown (exposed) ones.

        Raises:
            CellSkippedError: These samples cannot teach it anything.
        """
        ...

    def score(self, evidence: "Evidence") -> "Tensor":
        """Score N samples, (N,) of float32 or float64; larger = more likely wrong or unknown."""
        ...


@dataclass
class FunctionDetector:
    """A detector without fitting: a function of parts of the evidence."""

    function: Callable[..., "Tensor"]
    needs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, evidence: "Evidence", labels: "Tensor") -> None:
        """Nothing to learn."""

    def score(self, evidence: "Evidence") -> "Tensor":
        """Call the function."""
        return self.function(*(getattr(evidence, part) for part in self.needs), **self.parameters)


@dataclass(frozen=True)
class DetectorPlugin:
    """A named detector: what ``@oodbench.detector`` makes of a function or a class.

    Attributes:
        name: The name that users type.
        target: The function or class.
        needs: The parts of the evidence that a function takes, or that a class says it works on.
    """

    name: str
    target: Callable[..., Any]
    needs: tuple[str, ...] = ()

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


def detector(name: str, *, needs: str | Sequence[str] = ()) -> Callable[[Callable[..., Any]], DetectorPlugin]:
    """Make a detector of a function or a class.

    A function gets the parts of the evidence that it needs, in the order of ``needs``, and returns the scores (N,).
    Its keyword-only arguments are the detector's parameters. A class has ``fit(evidence, labels)`` and
    ``score(evidence)`` as in ``Detector``; the arguments of its constructor are its parameters. A parameter named
    ``seed`` gets the run's seed.

    Args:
        name: The name that users type.
        needs: One or several of ``logits``, ``features``, ``gradients``, ``confounding``. A class gets all evidence
            whatever it says; its cost is counted by what it says, and by all parts if it says nothing.

    Raises:
        UsageError: ``needs`` names nothing that there is, or the class is no detector.
    """
    parts = (needs,) if isinstance(needs, str) else tuple(needs)

    def decorate(target: Callable[..., Any]) -> DetectorPlugin:
        unknown = [part for part in parts if part not in NEEDS]
        if unknown:
            raise UsageError(f"the detector {name!r} needs {unknown[0]!r}; expected some of: {', '.join(NEEDS)}.")
        if inspect.isclass(target):
            if not (hasattr(target, "fit") and hasattr(target, "score")):
                raise UsageError(f"the detector class {target.__name__} of {name!r} needs methods fit and score.")
        elif not parts:
            raise UsageError(f"the detector function of {name!r} says not what it needs; one of: {', '.join(NEEDS)}.")
        plugin = DetectorPlugin(name, target, parts)
        registry.declare("detectors", name, plugin, target.__module__, target.__qualname__)
        return plugin

    return decorate
