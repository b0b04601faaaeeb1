"""The parts of the evidence that are collected for each sample: what each is called and computed from.

A part is a function of the pass of a batch, ``@oodbench.evidence_part`` names it, and the registry finds it. A detector
that needs it reads ``evidence.NAME``.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from oodbench import registry
from oodbench.classifiers.network_parts import NETWORK_PARTS, NetworkParts
from oodbench.errors import FROM_OUTSIDE, CellSkippedError, OodbenchError, UsageError, described, is_exhausted
from oodbench.gradients.engine import Pass, forward
from oodbench.gradients.losses import Loss
from oodbench.machine.device import CPU, Computing
from oodbench.registry.code import is_ours, own_code
from oodbench.registry.parameters import defaults, resolve_parameters, split_spec

Values = Tensor | Mapping[str, Tensor]
"""A part for N samples: a tensor (N, …), or several (N,) by name."""
Needs = Literal["forward", "backward"]

BASIC = ("logits", "features", "gradients", "confounding")
"""Parts that a detector gets if it does not say what it needs."""
KEPT = (torch.float32, torch.float64, torch.int64, torch.uint8)
"""Types of values that are kept; half precision becomes float32."""
UNCOLLECTED = ("inputs", "scores", "member_logits", *NETWORK_PARTS)
"""Parts that are no values of a pass: they are read, come from other detectors or networks, or are modules."""


class NetworkPass:
    """The pass of a batch of N samples through the classifier; what is not asked for is not computed.

    Attributes:
        inputs: float32 (N, C, H, W), on the device of the network.
    """

    def __init__(self, parts: NetworkParts, inputs: Tensor, gradients: Pass | None, needs: Needs) -> None:
        self.inputs = inputs
        self._parts = parts
        self._gradients = gradients
        self._needs = needs
        # Not cached properties: in Python 3.11 these let one thread at a time compute, whatever the instance.
        self._forward: tuple[Tensor | None, Tensor] | None = None
        self._maps: Tensor | None = None

    @property
    def network(self) -> nn.Module:
        """The network, in eval mode."""
        return self._parts.network

    @property
    def logits(self) -> Tensor:
        """The logits, (N, classes)."""
        return self._features_and_logits[1] if self._gradients is None else self._gradients.logits

    @property
    def features(self) -> Tensor:
        """The penultimate features, (N, D).

        Raises:
            CellSkippedError: The network has none.
        """
        features = self._features_and_logits[0] if self._gradients is None else self._gradients.recording.features
        if features is None:
            raise CellSkippedError("it needs penultimate features, and the classifier has none")
        return features

    @property
    def feature_maps(self) -> Tensor:
        """The output of the last stage, (N, K, H, W).

        Raises:
            CellSkippedError: The network cannot be cut into stages.
        """
        if self._maps is None:
            self._maps = self.inputs
            for stage in self._parts.stages:
                self._maps = stage(self._maps)
        return self._maps

    def metrics(self, loss: Loss) -> dict[str, Tensor]:
        """The gradient metrics of ``oodbench.gradients.gradient_metrics`` at a loss, by a backward pass."""
        return self._backward.metrics(loss)

    def squared_norm(self, loss: Loss) -> Tensor:
        """Squared L2 norm of each sample's weight gradient at a loss, float64 (N,), by a backward pass."""
        return self._backward.squared_norm(loss)

    def squared_norms(self, loss: Loss) -> dict[str, Tensor]:
        """As ``squared_norm``, of the gradient by each parameter alone."""
        return self._backward.squared_norms(loss)

    def metrics_of(self, inputs: Tensor, loss: Loss) -> dict[str, Tensor]:
        """As ``metrics``, of other inputs than those of the pass, by a forward and a backward pass of their own."""
        _ = self._backward
        with forward(self.network, inputs) as run:
            return run.metrics(loss)

    @property
    def stages(self) -> Sequence[nn.Module]:
        """The modules from inputs to feature maps, applied in turn.

        Raises:
            CellSkippedError: The network cannot be cut into stages.
        """
        return self._parts.stages

    @property
    def head(self) -> nn.Module:
        """The module from feature maps to logits.

        Raises:
            CellSkippedError: The network cannot be cut into stages.
        """
        return self._parts.head

    @property
    def _backward(self) -> Pass:
        # Whatever other parts need: what is collected in the same pass must not matter.
        if self._gradients is None or self._needs == "forward":
            raise UsageError("it needs a backward pass, which its decorator does not say; give needs='backward'")
        return self._gradients

    @property
    def _features_and_logits(self) -> tuple[Tensor | None, Tensor]:
        if self._forward is None:
            if self._parts.has_features:
                self._forward = self._parts.encoder.features_and_logits(self.inputs)
            else:
                self._forward = None, self.network(self.inputs)
        return self._forward


@dataclass(frozen=True)
class EvidencePart:
    """A named part of the evidence, made by the decorator ``@oodbench.evidence_part`` from a function.

    Attributes:
        name: What detectors write in ``needs`` and read of the evidence.
        function: From the pass of a batch to its values.
        needs: Whether it takes the forward pass alone, or backward passes too.
        per_sample: Shape and type of the value of a sample, for readers.
        parameters: The keyword-only arguments of the function, where its name has parameters.
    """

    name: str
    function: Callable[..., Values]
    needs: Needs
    per_sample: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, run: NetworkPass) -> Values:
        """Call the undecorated function."""
        return self.function(run, **self.parameters)

    @property
    def code(self) -> str:
        """Hash of a third party's code, on which its values depend; empty for our own."""
        entry = registry.find("evidence", plain_name(self.name))
        return own_code(self.function, is_of_process=entry is not None and entry.origin == "process")


class PartFailedError(OodbenchError):
    """A part cannot be computed, which concerns the detectors that need it.

    Attributes:
        part: Its name.
        reason: What is raised for each of these detectors.
    """

    def __init__(self, part: str, reason: OodbenchError | CellSkippedError) -> None:
        super().__init__(str(reason))
        self.part = part
        self.reason = reason


def plain_name(part: str) -> str:
    """The name of a part without its parameters."""
    return part.partition(":")[0]


def evidence_part(
    name: str, *, needs: Needs = "forward", per_sample: str = ""
) -> Callable[[Callable[..., Values]], EvidencePart]:
    """Decorator that makes a function a part of the evidence, which detectors name in ``needs``.

    The function gets the pass of a batch, with ``inputs``, ``network``, ``logits``, ``features`` and ``feature_maps``;
    if it needs backward passes also ``metrics(loss)`` and ``squared_norm(loss)``. It returns a tensor (N, …), or
    several tensors (N,) by name. What it returns for a sample must not depend on the others of the batch. It is
    called when a detector of the run needs the part, and its values are kept in the cache. Its keyword-only arguments
    are parameters of the part, which detectors write in ``needs``: ``"flipped:axis=2"``.

    Args:
        name: A Python name, as detectors read it: ``evidence.NAME``.
        needs: ``forward``, or ``backward`` for a function that asks for gradients.
        per_sample: Shape and type of the value of a sample, for readers, such as ``float32 (D,)``.

    Raises:
        UsageError: The name cannot be used, or the function cannot be called with a pass.
    """

    def decorate(function: Callable[..., Values]) -> EvidencePart:
        if not name.isidentifier() or name in (
            *UNCOLLECTED,
            "parts",
            "predictions",
            "wrong",
            "copy",
            "concatenate",
            "device",
        ):
            raise UsageError(
                f"the evidence part {name!r} cannot be read as `evidence.{name}`; choose another name, such as a word "
                "or two_words."
            )
        if needs not in get_args(Needs):
            raise UsageError(f"the evidence part {name!r} needs {needs!r}; expected forward or backward.")
        try:
            inspect.signature(function).bind("a pass", **dict.fromkeys(defaults(function)))
        except TypeError as cause:
            raise UsageError(f"the evidence part {name!r} cannot be called with a pass: {cause}.") from cause
        part = EvidencePart(name, function, needs, per_sample)
        registry.declare("evidence", name, part, function.__module__, function.__qualname__)
        return part

    return decorate


@evidence_part("logits", per_sample="float32 (classes,)")
def logits(run: NetworkPass) -> Tensor:
    """The logits."""
    return run.logits.float()


@evidence_part("features", per_sample="float32 (D,)")
def features(run: NetworkPass) -> Tensor:
    """The penultimate features: the input of the last Linear layer."""
    return run.features.float()


@evidence_part("feature_maps", per_sample="float32 (K, H, W)")
def feature_maps(run: NetworkPass) -> Tensor:
    """The output of the last stage."""
    return run.feature_maps.float()


@evidence_part("gradients", needs="backward", per_sample="float32, by metric and layer")
def gradients(run: NetworkPass) -> dict[str, Tensor]:
    """The gradient metrics at the predicted label (Oberdiek, Rottmann, Gottschalk 2018, section 2)."""
    return run.metrics("predicted")


@evidence_part("confounding", needs="backward", per_sample="float64")
def confounding(run: NetworkPass) -> Tensor:
    """The squared L2 norm of the weight gradient at the confounding (all-ones) label (after Lee, AlRegib 2020)."""
    return run.squared_norm("confounding")


def is_part(name: str) -> bool:
    """Whether evidence may have a part of that name."""
    return name in UNCOLLECTED or registry.find("evidence", plain_name(name)) is not None


def part_names() -> str:
    """All parts that there are, for messages."""
    return ", ".join((*registry.entries("evidence"), *UNCOLLECTED))


def collected(needs: Collection[str]) -> list[EvidencePart]:
    """Those of the needed parts that are collected in passes over the samples.

    Raises:
        UsageError: A name is that of no part.
        MissingPrerequisiteError: The package of a part cannot be imported.
    """
    return [load_part(name) for name in sorted(set(needs).difference(UNCOLLECTED))]


def load_part(name: str) -> EvidencePart:
    """The part of a name.

    Raises:
        UsageError: There is none, or what was loaded is none.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    plain, given = split_spec(name)
    part = registry.load("evidence", plain)
    if not isinstance(part, EvidencePart):
        raise UsageError(
            f"the evidence part {plain} is a {type(part).__name__}; expected a function with @oodbench.evidence_part."
        )
    parameters = resolve_parameters(plain, part.function, given)
    return replace(part, name=name, parameters=parameters) if parameters else part


def ready(network: NetworkParts, parts: Sequence[EvidencePart]) -> NetworkParts:
    """The network, after all was done for the pass of some parts that cannot be done while other threads compute."""
    if any(part.name not in BASIC for part in parts):  # which may read feature maps
        network.cut()
    return network


def pass_device(parts: Sequence[EvidencePart], computing: Computing) -> torch.device:
    """Where the pass of some parts is done."""
    return computing.gradient_device if any(part.needs == "backward" for part in parts) else computing.device


def parts_of_batch(
    network: NetworkParts, inputs: Tensor, parts: Sequence[EvidencePart], computing: Computing
) -> dict[str, Values]:
    """Some parts of the evidence of a batch, from a single forward pass and as many backward passes as they need.

    Args:
        network: The trained classifier.
        inputs: (N, C, H, W), on its device.
        parts: The parts.
        computing: The precision.

    Returns:
        The parts by name, on the processor.

    Raises:
        PartFailedError: A part cannot be computed.
    """
    with _gradients_of(network, inputs, parts, computing) as gradients:
        runs = {needs: NetworkPass(network, inputs, gradients, needs) for needs in get_args(Needs)}
        return {part.name: _values_of(part, runs[part.needs]) for part in parts}


@contextmanager
def _gradients_of(
    network: NetworkParts, inputs: Tensor, parts: Sequence[EvidencePart], computing: Computing
) -> Iterator[Pass | None]:
    """In the precision: the pass that gradients are measured from, if a part needs any."""
    with computing.autocast(inputs.device):
        if any(part.needs == "backward" for part in parts):
            with forward(network.network, inputs, last_layer=network.penultimate) as gradients:
                yield gradients
        else:
            yield None


def _values_of(part: EvidencePart, run: NetworkPass) -> Values:
    try:
        with torch.set_grad_enabled(part.needs == "backward"):
            values: Any = part(run)
        checked = _checked(values, len(run.inputs))
        return checked if is_ours(part.function) else _without_surprises(checked)
    except CellSkippedError as skipped:
        raise PartFailedError(part.name, skipped) from skipped
    except FROM_OUTSIDE:
        raise
    except BaseException as cause:
        if is_exhausted(cause) or is_ours(part.function):
            raise
        said = str(cause).rstrip(".") if isinstance(cause, OodbenchError) else f"it raised {described(cause)}"
        reason = OodbenchError(f"the part {part.name} of the evidence cannot be computed: {said}")
        reason.__cause__ = cause  # whose traceback records keep
        raise PartFailedError(part.name, reason) from cause


def _checked(values: Any, n: int) -> Values:  # noqa: ANN401
    """The values of a batch, on the processor.

    Raises:
        UsageError: They are no values of n samples.
    """
    if isinstance(values, Mapping) and values:
        tensors = {name: _tensor(value) for name, value in values.items()}
        strange = next((name for name, value in tensors.items() if value is None or value.shape != (n,)), None)
        if strange is None:
            return {str(name): value for name, value in tensors.items() if value is not None}
        raise UsageError(f"its values {strange!r} are {_shape_of(values[strange])}; expected a tensor ({n},)")
    tensor = _tensor(values)
    if tensor is None or tensor.dim() == 0 or len(tensor) != n:
        raise UsageError(f"it returned {_shape_of(values)}; expected a tensor ({n}, …), or tensors ({n},) by name")
    return tensor


def _without_surprises(values: Values) -> Values:
    """The values of a third party's part, with names in the same order in all batches.

    Raises:
        UsageError: There are NaN among them.
    """
    tensors = values.values() if isinstance(values, Mapping) else [values]
    n = sum(
        int(tensor.isnan().flatten(1).any(1).sum() if tensor.dim() > 1 else tensor.isnan().sum()) for tensor in tensors
    )
    if n:
        raise UsageError(f"it returned NaN for {n} samples of a batch; expected numbers")
    return dict(sorted(values.items())) if isinstance(values, Mapping) else values


def _tensor(value: Any) -> Tensor | None:  # noqa: ANN401
    """A tensor as it is kept; None for anything else."""
    if not isinstance(value, Tensor):
        return None
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise UsageError("its values are a sparse, quantized or meta tensor; expected a dense one")
    kept = value.detach().to(CPU)
    if kept.dtype in (torch.float16, torch.bfloat16):  # of mixed precision
        return kept.float()
    if kept.dtype not in KEPT:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in KEPT)
        raise UsageError(f"its values are of {kept.dtype}; expected one of: {expected}")
    return kept


def _shape_of(value: Any) -> str:  # noqa: ANN401
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
