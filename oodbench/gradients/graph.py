"""What the autograd graph of a forward pass tells: how often a tensor is used, and by which operation."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Node = Any
"""A node of the graph; torch has no public type for it."""

# They give a tensor another shape and leave its entries in their order.
KEEPING_ORDER = {
    "AliasBackward0",
    "ReshapeAliasBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "UnsafeViewBackward0",
    "UnsqueezeBackward0",
    "ViewBackward0",
}
# They reorder entries or leave some out: sums over them take no notice.
RESHAPING = KEEPING_ORDER | {
    "PermuteBackward0",
    "SelectBackward0",
    "SliceBackward0",
    "TBackward0",
    "TransposeBackward0",
}
COPYING = {"TBackward0", "ToCopyBackward0"}
BROADCASTING = {"AddBackward0", "SubBackward0", "MulBackward0", "ExpandBackward0"}


@dataclass(frozen=True)
class Broadcast:
    """The one operation by which a tensor that all samples share meets what is each sample's own.

    Attributes:
        node: The operation, one of ``BROADCASTING``.
        position: Which of its operands the tensor is.
        shape: Shape of that operand.
        in_order: Whether it has the tensor's entries in the tensor's order.
    """

    node: Node
    position: int
    shape: tuple[int, ...]
    in_order: bool

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what the operation returns."""
        return _shape(self.node)

    def factor(self, d: Tensor) -> Tensor:
        """What the gradient d of the result is multiplied with, of the shape of d."""
        match self.node.name(), self.position:
            case "MulBackward0", 0:
                other: Tensor = self.node._saved_other.detach()
            case "MulBackward0", _:
                other = self.node._saved_self.detach()
            case "AddBackward0", 1:
                other = d.new_tensor(self.node._saved_alpha)
            case "SubBackward0", 1:
                other = d.new_tensor(-self.node._saved_alpha)
            case _:
                other = d.new_ones(())
        return other.expand_as(d)

    def summed(self, product: Tensor, axis: int) -> Tensor:
        """The gradient of the operand for each sample, (N, *shape).

        Args:
            product: d times the factor, of some samples.
            axis: The dimension of the samples in it.
        """
        missing = product.dim() - len(self.shape)
        single = [i for i in range(product.dim()) if i != axis and (i < missing or self.shape[i - missing] == 1)]
        summed = product.sum(dim=single, keepdim=True) if single else product
        return summed.movedim(axis, 0).reshape(product.shape[axis], *self.shape)


class Graph:
    """The graph that a tensor was computed by, from the leaves up."""

    def __init__(self, output: Tensor) -> None:
        self._nodes = _leaves_first(output.grad_fn)
        self._users: dict[Node, list[tuple[Node, int]]] = {}
        for node in self._nodes:
            for position, (used, _) in enumerate(node.next_functions):
                self._users.setdefault(used, []).append((node, position))
        self._leaves = {id(node.variable): node for node in self._nodes if hasattr(node, "variable")}

    def leaf(self, parameter: nn.Parameter) -> Node | None:
        """The node of a parameter; None if the output does not depend on it."""
        return self._leaves.get(id(parameter))

    def uses(self, parameter: nn.Parameter) -> int:
        """How many operations use a parameter, or its one copy that is transposed or of another precision."""
        node = self.leaf(parameter)
        users = self._users.get(node, []) if node is not None else []
        while len(users) == 1 and users[0][0].name() in COPYING:
            users = self._users.get(users[0][0], [])
        return len(users)

    def broadcast(self, node: Node) -> Broadcast | None:
        """How what a node returns is broadcast, if that is all that is done to it but for reshaping."""
        last, in_order = node, True
        while True:
            users = self._users.get(last, [])
            if len(users) != 1:
                return None
            ((user, position),) = users
            if user.name() in BROADCASTING:
                return Broadcast(user, position, _shape(last), in_order)
            if user.name() not in RESHAPING:
                return None
            last, in_order = user, in_order and user.name() in KEEPING_ORDER

    def innermost(self, nodes: Collection[Node]) -> set[Node]:
        """Those of some nodes that no other of them lies below: a backward pass to these reaches all."""
        wanted = set(nodes)
        above: set[Node] = set()
        for node in self._nodes:
            if any(used in wanted or used in above for used, _ in node.next_functions):
                above.add(node)
        return wanted - above


def _leaves_first(root: Node | None) -> list[Node]:
    ordered: list[Node] = []
    seen: set[Node] = set()
    waiting = [(root, False)] if root is not None else []
    while waiting:
        node, done = waiting.pop()
        if done:
            ordered.append(node)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(used, False) for used, _ in node.next_functions if used is not None]
    return ordered


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.variable.shape) if hasattr(node, "variable") else tuple(node._input_metadata[0].shape)
