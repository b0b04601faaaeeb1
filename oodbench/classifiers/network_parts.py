"""Splits a trained network into encoder and last layer, and into stages and head."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from oodbench.errors import CellSkippedError, described
from oodbench.gradients.recording import head_sizes, linear_layer


class Encoder(nn.Module):
    """Maps inputs to penultimate features: runs the network and captures the input of its last layer."""

    def __init__(self, network: nn.Module, last_layer: nn.Linear) -> None:
        super().__init__()
        self.network = network
        self.last_layer = last_layer

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N, C, H, W) to features (N, D)."""
        return self.features_and_logits(inputs)[0]

    def features_and_logits(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (N, C, H, W) to features (N, D) and logits, (N, number of classes)."""
        seen: list[Tensor] = []
        handle = self.last_layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            logits = self.network(inputs)
        finally:
            handle.remove()
        return seen[-1], logits


NETWORK_PARTS = ("classifier", "encoder", "last_layer", "stages", "head")


@dataclass(frozen=True)
class NetworkParts:
    """A network and the modules that it consists of, which share its weights.

    Attributes:
        network: The network, in eval mode.
        example: An input, (1, C, H, W).
        penultimate: Name of the Linear layer whose input is the penultimate features; None finds the layer.
    """

    network: nn.Module
    example: Tensor
    penultimate: str | None = None

    def parts(self, needs: Sequence[str]) -> dict[str, Any]:
        """The modules by name, those of ``NETWORK_PARTS`` that are in ``needs``.

        Raises:
            CellSkippedError: The network does not have such a module, or cannot be split.
        """
        return {name: getattr(self, name) for name in NETWORK_PARTS if name in needs}

    @property
    def classifier(self) -> nn.Module:
        """The whole network: inputs to logits."""
        return self.network

    @property
    def last_layer(self) -> nn.Linear:
        """The last Linear layer: features to logits; for a network of one logit z, a layer with the logits (0, z).

        Raises:
            CellSkippedError: The network goes on after the layer that follows the features.
        """
        outputs: list[Tensor] = []
        layer = self._after_features
        handle = layer.register_forward_hook(lambda _, __, output: outputs.append(output.clone()))
        try:
            with torch.no_grad():
                logits = self.network(self.example)
        finally:
            handle.remove()
        if torch.equal(outputs[-1], logits):
            return layer
        if layer.out_features == 1 and not logits[:, 0].any() and torch.equal(outputs[-1].flatten(), logits[:, 1]):
            return _with_zero_logit(layer)
        raise CellSkippedError("it needs a Linear layer from features to logits, and the classifier goes on after it")

    @cached_property
    def has_features(self) -> bool:
        """Whether there are penultimate features: a Linear layer is named, or one can be found."""
        try:
            return self._after_features is not None
        except CellSkippedError:
            return False

    @cached_property
    def _after_features(self) -> nn.Linear:
        """The layer that ``penultimate`` names, else the last Linear layer called with the network's raw outputs."""
        if self.penultimate is not None:
            return linear_layer(self.network, self.penultimate)
        called: list[nn.Linear] = []
        layers = [module for module in self.network.modules() if isinstance(module, nn.Linear)]
        handles = [layer.register_forward_hook(lambda layer, *_: called.append(layer)) for layer in layers]
        try:
            with torch.no_grad():
                sizes = head_sizes(self.network(self.example))
        finally:
            for handle in handles:
                handle.remove()
        matches = [layer for layer in called if layer.out_features in sizes]
        if not matches:
            raise CellSkippedError(
                f"it needs penultimate features, and the classifier has no Linear layer with {min(sizes)} outputs "
                "after them: end it in one, or name the layer whose input they are (penultimate)"
            )
        return matches[-1]

    @property
    def encoder(self) -> Encoder:
        """All before the last layer: inputs to features."""
        return Encoder(self.network, self._after_features)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The stages, applied in turn: inputs to feature maps. The resolution changes from stage to stage."""
        return self._pieces[0]

    @property
    def head(self) -> nn.Module:
        """All after the stages: feature maps of the last stage to logits."""
        return self._pieces[1]

    def cut(self) -> None:
        """Find stages and head now, if there are any.

        While torch.fx traces a network, it takes part in the calls of all modules of the process, so that no other
        thread may use a network meanwhile.
        """
        _ = self._cut_or_lack

    @property
    def _pieces(self) -> tuple[tuple[nn.Module, ...], nn.Module]:
        found = self._cut_or_lack
        if isinstance(found, CellSkippedError):
            raise CellSkippedError(str(found)) from found.__cause__
        return found

    @cached_property
    def _cut_or_lack(self) -> tuple[tuple[nn.Module, ...], nn.Module] | CellSkippedError:
        try:
            return self._cut()
        except CellSkippedError as lack:
            return lack

    def _cut(self) -> tuple[tuple[nn.Module, ...], nn.Module]:
        """Stages and head: the network's graph, cut after the last bottleneck feature map of each resolution.

        Raises:
            CellSkippedError: torch.fx cannot trace the network, or it has no bottleneck feature map.
        """
        try:
            # Torch.fx leaves out hooks of the module that it traces, and a forward of its own, not its class.
            is_changed = self.network._forward_hooks or "forward" in vars(self.network)
            root = _Called(self.network) if is_changed else self.network
            traced = fx.symbolic_trace(root)
            ShapeProp(traced).propagate(self.example)
        except Exception as cause:
            raise CellSkippedError(
                f"it needs the classifier cut into stages and a head, which torch.fx cannot trace: {described(cause)}"
            ) from cause
        nodes = list(traced.graph.nodes)
        ends = _ends_of_stages(nodes)
        if not ends:
            raise CellSkippedError(
                "it needs feature maps (N, K, H, W) that all of the classifier passes through, and there are none"
            )
        starts = [next(node for node in nodes if node.op == "placeholder"), *ends]
        pieces = [_piece(root, nodes, start, end) for start, end in zip(starts, [*ends, _output(nodes)], strict=True)]
        return tuple(pieces[:-1]), pieces[-1]


class _Called(nn.Module):
    """Calls a network as a user does: with its hooks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)  # type: ignore[no-any-return]


def _with_zero_logit(layer: nn.Linear) -> nn.Linear:
    """The layer of one logit z as one of the logits (0, z); it does not share its weights."""
    both = nn.Linear(layer.in_features, 2, dtype=layer.weight.dtype, device=layer.weight.device)
    with torch.no_grad():
        both.weight.copy_(torch.cat([torch.zeros_like(layer.weight), layer.weight]))
        both.bias.zero_()
        if layer.bias is not None:
            both.bias[1:] = layer.bias
    return both.eval()


def _ends_of_stages(nodes: list[fx.Node]) -> list[fx.Node]:
    """For each resolution, the last feature map that all later computation depends on.

    Feature maps before tokens (N, T, K) do not count, so that a vision transformer has no stages.
    """
    shapes = {node: _shape(node) for node in nodes}
    last_tokens = max((i for i, node in enumerate(nodes) if len(shapes[node]) == 3), default=-1)
    by_resolution: dict[tuple[int, ...], fx.Node] = {}
    for i, node in enumerate(nodes):
        shape = shapes[node]
        # Inputs are square, so a tensor that is not has its channels in another dimension.
        is_map = len(shape) == 4 and shape[0] == 1 and shape[2] == shape[3] > 1 and node.op != "placeholder"
        if is_map and i > last_tokens and _is_bottleneck(nodes, i):
            by_resolution[shape[2:]] = node
    return list(by_resolution.values())


def _shape(node: fx.Node) -> tuple[int, ...]:
    metadata = node.meta.get("tensor_meta")
    shape = getattr(metadata, "shape", None)
    return tuple(shape) if shape is not None else ()


def _is_bottleneck(nodes: list[fx.Node], position: int) -> bool:
    """Whether nothing after the node uses anything before it, except constants."""
    before = {node for node in nodes[:position] if node.op != "get_attr"}
    return not any(user in before for later in nodes[position + 1 :] for user in later.all_input_nodes)


def _output(nodes: Iterable[fx.Node]) -> fx.Node:
    (output,) = (node for node in nodes if node.op == "output")
    (result,) = output.all_input_nodes
    return result


def _piece(network: nn.Module, nodes: list[fx.Node], start: fx.Node, end: fx.Node) -> nn.Module:
    """The piece of the graph after the node ``start``, up to and with the node ``end``."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {start: graph.placeholder("x")}
    for node in _between(nodes, start, end):
        copies[node] = graph.node_copy(node, lambda needed: copies[needed])
    graph.output(copies[end])
    return fx.GraphModule(network, graph).eval()


def _between(nodes: list[fx.Node], start: fx.Node, end: fx.Node) -> Iterator[fx.Node]:
    first, last = nodes.index(start), nodes.index(end)
    for i, node in enumerate(nodes[: last + 1]):
        if i > first or (node.op == "get_attr" and node is not start):
            yield node
