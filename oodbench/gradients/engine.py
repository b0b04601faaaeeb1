"""Gradient metrics of all samples from a single forward and backward pass, without building weight gradients.

The backward pass stops at each layer. There, the layer's input and its output gradient are reduced to sums over the
entries of the per-sample weight gradient, and freed.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial, reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from oodbench.errors import UsageError, one_line
from oodbench.gradients.graph import Graph
from oodbench.gradients.losses import Loss, label_gradient, logit_gradient
from oodbench.gradients.recording import Recording, head_sizes, owners, prepared, record
from oodbench.gradients.single_samples import sums_by_single_samples
from oodbench.gradients.statistics import Sums, Workspace, metrics_of, sums_of
from oodbench.gradients.stops import Probes, Stop, close, stops_of

logger = logging.getLogger(__name__)

# Values of a layer's input or output gradient that are processed at once: few enough to take little memory, and so many
# that what each call costs beside its work is little.
CHUNK = 2048 * 1024
# If the largest absolute entry of a gradient is between these, its powers are in the range of float32.
SMALL, LARGE = 1e-9, 1e9


@dataclass(frozen=True)
class Pass:
    """A forward pass of a batch, from which the gradients of several losses can be measured in turn.

    Attributes:
        model: The model, in eval mode and with gradients of all parameters.
        recording: Inputs, logits and layer calls of the forward pass.
        graph: The autograd graph of the forward pass.
        stops: Where backward passes stop.
        workspace: Memory that tiles are built in.
        last_layer: Name of the Linear layer whose input is the penultimate features; None finds the layer.
    """

    model: nn.Module
    recording: Recording
    graph: Graph
    stops: Sequence[Stop]
    workspace: Workspace
    last_layer: str | None = None

    @property
    def logits(self) -> Tensor:
        """The logits, (N, C)."""
        return self.recording.logits.detach()

    @property
    def has_features(self) -> bool:
        """Whether there are penultimate features, or a layer is named that has to have them."""
        return self.last_layer is not None or self.recording.features is not None

    @property
    def features(self) -> Tensor:
        """The penultimate features: the input of the last Linear layer, (N, D).

        Raises:
            UsageError: No Linear layer has an output for each class, or the named layer is not called.
        """
        if self.recording.features is not None:
            return self.recording.features
        if self.last_layer is not None:
            raise UsageError(f"its layer {self.last_layer} is not called, so there are no features before it.")
        size = min(head_sizes(self.logits))
        raise UsageError(
            f"the classifier has no Linear layer with {size} outputs, so its penultimate features cannot be "
            "found; end it in one, or name the layer whose input they are (penultimate)."
        )

    def metrics(self, loss: Loss = "predicted", *, per_layer: bool = True) -> dict[str, Tensor]:
        """The gradient metrics of a loss, as ``gradient_metrics`` returns them."""
        if loss == "exgrad":
            return self._expected_metrics(per_layer)
        return self._metrics_at(logit_gradient(loss, self.logits), per_layer)

    def squared_norm(self, loss: Loss) -> Tensor:
        """Squared L2 norm Σg² of each sample's gradient over all parameters, float64 (N,)."""
        sums, scale = self._sums(logit_gradient(loss, self.logits))
        return reduce(add, sums.values()).second * scale**2

    def squared_norms(self, loss: Loss) -> dict[str, Tensor]:
        """Squared L2 norm of each sample's gradient by each parameter, float64 (N,), by the parameter's name."""
        sums, scale = self._sums(logit_gradient(loss, self.logits))
        return {name: sums[id(p)].second * scale**2 for name, p in self.model.named_parameters()}

    def _expected_metrics(self, per_layer: bool) -> dict[str, Tensor]:
        p = self.logits.double().softmax(dim=1)
        expected: dict[str, Tensor] = {}
        for label in range(p.shape[1]):
            labels = torch.full((len(p),), label, device=p.device)
            for name, values in self._metrics_at(label_gradient(p, labels), per_layer).items():
                expected[name] = expected.get(name, 0) + p[:, label] * values.double()
        return {name: values.float() for name, values in expected.items()}

    def _metrics_at(self, d: Tensor, per_layer: bool) -> dict[str, Tensor]:
        sums, scale = self._sums(d)
        by_layer: dict[str, Tensor] = {}
        if per_layer:
            for name, module in owners(self.model).items():
                of_module = reduce(add, (sums[id(parameter)] for parameter in module.parameters(recurse=False)))
                by_layer |= {f"{metric}@{name}": value for metric, value in metrics_of(of_module, scale).items()}
        # Each parameter counts once, even if two modules share it.
        return metrics_of(reduce(add, sums.values()), scale) | by_layer

    def _sums(self, d: Tensor) -> tuple[dict[int, Sums], Tensor]:
        """Sums over the gradient of each parameter, for gradients divided by a scale for each sample.

        Gradients are linear in the logit gradient. It is scaled to a largest entry of 1 first, so that no power of a
        confident sample's tiny gradient leaves the range of float32.

        Args:
            d: Derivative of each sample's loss by its logits, float64 (N, C).

        Returns:
            The sums by the id of the parameter, and the scale, float64 (N,).
        """
        scale = d.abs().amax(dim=1)
        unit = (d / scale.where(scale > 0, 1)[:, None]).to(self.logits.dtype)
        parameters = {id(parameter): parameter for parameter in self.model.parameters()}
        # A parameter counts as reached only if all of its entries are.
        reached = {key: sums for key, sums in self._backward(unit).items() if sums.count == parameters[key].numel()}
        # No rule covers functions that use a weight, layers called twice, shared weights and unknown layers.
        left = [p for key, p in parameters.items() if key not in reached and self.graph.uses(p)]
        if left:
            _say_once(_names_of(self.model, left))
            reached |= sums_by_single_samples(self.model, self.recording.inputs, unit, left)
        n = len(unit)
        return {key: reached.get(key) or Sums.of_zeros(n, p.numel(), unit) for key, p in parameters.items()}, scale

    def _backward(self, unit: Tensor) -> dict[int, Sums]:
        measured: dict[int, Sums] = {}

        def take(stop: Stop, gradient: Tensor | None) -> None:
            if gradient is not None:
                for key, sums in self._measured(stop, gradient).items():
                    measured[key] = measured[key] + sums if key in measured else sums

        # A backward pass to the innermost stops passes all others, where hooks get the gradient before it is freed.
        innermost = self.graph.innermost({stop.node for stop in self.stops})
        ends = [stop for stop in self.stops if stop.node in innermost]
        with ExitStack() as stack:
            for stop in self.stops:
                if stop.node not in innermost:
                    hook = partial(lambda stop, gradients: take(stop, gradients[stop.output]), stop)
                    stack.callback(stop.node.register_prehook(hook).remove)
            if ends:
                edges = [GradientEdge(stop.node, stop.output) for stop in ends]
                gradients = torch.autograd.grad(
                    self.recording.logits, edges, unit, retain_graph=True, allow_unused=True
                )
                for stop, gradient in zip(ends, gradients, strict=True):
                    take(stop, gradient)
        return measured

    def _measured(self, stop: Stop, gradient: Tensor) -> dict[int, Sums]:
        """Sums over the gradients of the stop's parameters by their id, computed for a chunk of samples at a time."""
        with torch.no_grad():
            x, d = stop.arguments(gradient)
        if d.is_complex() or x.is_complex():
            return {}
        if d.dtype not in (torch.float32, torch.float64):
            x, d = x.float() if x.is_floating_point() else x, d.float()
        step = max(1, CHUNK // max(1, x[0].numel(), d[0].numel()))
        chunks = [
            _sums_of_chunk(stop, some_x, some_d, self.workspace)
            for some_x, some_d in zip(torch.split(x, step), torch.split(d, step), strict=True)
        ]
        return {key: Sums.of_samples([chunk[key] for chunk in chunks]) for key in chunks[0]}


def gradient_metrics(
    model: nn.Module, inputs: Tensor, *, loss: Loss = "predicted", per_layer: bool = True
) -> dict[str, Tensor]:
    """Seven statistics of each sample's weight gradient (Oberdiek, Rottmann, Gottschalk 2018, section 2).

    Layers with a rule (see ``oodbench.gradients.rules``) cost a single batched backward pass for all samples.
    Parameters that no rule covers cost a backward pass for each sample, which is logged once at INFO level.

    Args:
        model: A classifier that maps inputs to logits (N, C). It is run in eval mode and not changed.
        inputs: (N, …), on the model's device.
        loss: The loss whose gradient is measured; see ``oodbench.gradients.losses``.
        per_layer: Whether to compute the statistics of each module that owns parameters, too.

    Returns:
        ``l1``, ``l2``, ``min``, ``max``, ``mean``, ``std``, ``skewness`` over all parameters, and ``l1@conv1`` and so
        on over the parameters of each module, float32 (N,) each. ``std`` is the population standard deviation,
        ``skewness`` the third standardised moment; all are 0 where the gradient is 0.

    Raises:
        UsageError: The model has no parameters, does not return logits or mixes samples; the inputs are empty, not
            finite or on another device; the loss is unknown or of the wrong shape.
    """
    with forward(model, inputs) as run:
        return run.metrics(loss, per_layer=per_layer)


@contextmanager
def forward(model: nn.Module, inputs: Tensor, *, last_layer: str | None = None) -> Iterator[Pass]:
    """Run the model in eval mode and record what the gradients of all layers need, for any number of losses.

    The model is not changed, even if it raises.

    Args:
        model: Maps inputs to logits (N, C).
        inputs: (N, …).
        last_layer: Name of the Linear layer whose input is the penultimate features; None takes the last Linear layer
            called with an output for each class.

    Raises:
        UsageError: As for ``gradient_metrics``, or the named layer is not a Linear layer.
    """
    _check(model, inputs)
    with prepared(model):
        detached = inputs.clone() if inputs.is_inference() else inputs.detach()
        recording = record(model, detached, last_layer)
        probes = _probes(model, detached)
        _refuse_mixing(recording, probes)
        graph = Graph(recording.logits)
        yield Pass(model, recording, graph, stops_of(model, recording, graph, probes), Workspace(), last_layer)


def _sums_of_chunk(stop: Stop, x: Tensor, d: Tensor, workspace: Workspace) -> dict[int, Sums]:
    """Sums over the gradients of a chunk of samples; in float64 for samples that exceed the range of float32."""
    with torch.no_grad():
        sums = _sums_by_rule(stop, x, d, workspace)
        if not sums:
            return sums
        strange = torch.stack([_is_strange(of_parameter) for of_parameter in sums.values()]).any(dim=0)
        if strange.any() and (strange := strange & d.flatten(1).any(dim=1)).any():
            again = _sums_by_rule(stop, x[strange].double() if x.is_floating_point() else x[strange],
                                  d[strange].double(), workspace)  # fmt: skip
            for key, of_parameter in again.items():
                sums[key].values[strange] = of_parameter.values
        return sums


def _is_strange(sums: Sums) -> Tensor:
    """For each sample, whether powers of its gradient may have left the range of float32, bool (N,)."""
    size = sums.values[:, 4:].abs().amax(dim=1)
    return ~((size >= SMALL) & (size <= LARGE) & sums.values.isfinite().all(dim=1))


def _sums_by_rule(stop: Stop, x: Tensor, d: Tensor, workspace: Workspace) -> dict[int, Sums]:
    forms = stop.rule(stop.module, x, d)
    return {
        id(parameter): sums_of(forms[name], workspace)
        for name, parameter in stop.module.named_parameters(recurse=False)
        if name in forms
    }


def _probes(model: nn.Module, inputs: Tensor) -> Probes:
    """Recordings of the first, a middle and the last sample alone, which show where each layer has its samples."""
    n = len(inputs)
    try:
        if n == 1:
            return {0: record(model, torch.cat([inputs, inputs]))}
        return {i: record(model, inputs[i : i + 1]) for i in sorted({0, n // 2, n - 1})}
    except UsageError:
        raise
    except Exception as cause:
        raise UsageError(
            f"the model cannot take a sample alone ({one_line(cause)}); expected one that treats each sample by itself."
        ) from cause


def _refuse_mixing(recording: Recording, probes: Probes) -> None:
    for i, probe in probes.items():
        together, alone = recording.logits[i].detach(), probe.logits[0].detach()
        if not close(together, alone):
            raise UsageError(
                f"the logits of sample {i} differ by {(together - alone).abs().amax():.2g} when other samples are in "
                "the batch; expected a model that treats each sample by itself, without chance: is a BatchNorm without "
                "running statistics, a functional dropout or a batch in another dimension in it?"
            )


def _check(model: nn.Module, inputs: Tensor) -> None:
    """Refuse a model or inputs that have no gradient metrics.

    Raises:
        UsageError: They have none; the message says why.
    """
    first = next(model.parameters(), None)
    if first is None:
        raise UsageError("the model has no parameters, so there is no weight gradient.")
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in model.parameters()):
        raise UsageError("the model has lazy layers without weights; run it once on an input first.")
    if any(parameter.is_complex() for parameter in model.parameters()):
        raise UsageError("the model has complex parameters; the statistics are defined for real ones.")
    if not isinstance(inputs, Tensor):
        raise UsageError(f"the inputs are a {type(inputs).__name__}; expected a torch.Tensor (N, …).")
    if inputs.dim() == 0 or len(inputs) == 0:
        raise UsageError(f"the inputs have shape {tuple(inputs.shape)}; expected one sample or more, (N, …).")
    if first.device != inputs.device:
        raise UsageError(f"the model is on {first.device} and the inputs on {inputs.device}; move them to one device.")
    if inputs.is_floating_point():
        strange = (~inputs.isfinite().flatten(1).all(dim=1)).nonzero().flatten().cpu().tolist()
        if strange:
            raise UsageError(
                f"{len(strange)} of {len(inputs)} inputs hold NaN or infinite values, the first at index {strange[0]}; "
                "expected finite numbers."
            )


def _names_of(model: nn.Module, parameters: Sequence[nn.Parameter]) -> str:
    ids = {id(parameter) for parameter in parameters}
    named = model.named_parameters(remove_duplicate=False)
    return ", ".join(name for name, parameter in named if id(parameter) in ids)


@cache
def _say_once(names: str) -> None:
    logger.info("one backward pass for each sample, for want of a rule: %s", names)
