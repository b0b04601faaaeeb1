"""Queries of the autograd graph of a forward pass: how often a tensor is used, and by which operation."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Node = Any
"""A node of the graph; torch has no public type for it."""

# Operations that change a tensor's shape and keep the order of its entries.
KEEPING_ORDER = {
    "AliasBackward0",
    "ReshapeAliasBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "UnsafeViewBackward0",
    "UnsqueezeBackward0",
    "ViewBackward0",
}
# Operations that also may reorder or select entries, which does not matter to sums over them.
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
    """The operation that combines a tensor shared by all samples with values of each sample.

    Attributes:
        node: The operation, of a type in ``BROADCASTING``.
        position: Position of the shared tensor among its operands.
        shape: Shape of that operand.
        in_order: Whether the operand has the tensor's entries in their original order.
    """

    node: Node
    position: int
    shape: tuple[int, ...]
    in_order: bool

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the operation's result."""
        return _shape(self.node)

    def factor(self, d: Tensor) -> Tensor:
        """Derivative of the result by the operand, expanded to the shape of d, the gradient at the result."""
        match self.node.name(), self.position:
            case "MulBackward0", 0:
                multiplier: Tensor = self.node._saved_other.detach()
            case "MulBackward0", _:
                multiplier = self.node._saved_self.detach()
            case "AddBackward0", 1:
                multiplier = d.new_tensor(self.node._saved_alpha)
            case "SubBackward0", 1:
                multiplier = d.new_tensor(-self.node._saved_alpha)
            case _:
                multiplier = d.new_ones(())
        return multiplier.expand_as(d)

    def summed(self, product: Tensor, axis: int) -> Tensor:
        """The gradient of the operand for each sample, (N, *shape).

        Args:
            product: The gradient d times the factor.
            axis: The dimension of ``product`` that holds the samples.
        """
        missing = product.dim() - len(self.shape)
        single = [i for i in range(product.dim()) if i != axis and (i < missing or self.shape[i - missing] == 1)]
        summed = product.sum(dim=single, keepdim=True) if single else product
        return summed.movedim(axis, 0).reshape(product.shape[axis], *self.shape)


class Graph:
    """The autograd graph of a tensor, with the users of each node."""

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
        """Number of operations that use a parameter, looking through a single transposed or converted copy of it."""
        node = self.leaf(parameter)
        users = self._users.get(node, []) if node is not None else []
        while len(users) == 1 and users[0][0].name() in COPYING:
            users = self._users.get(users[0][0], [])
        return len(users)

    def broadcast(self, node: Node) -> Broadcast | None:
        """The broadcast of a node's result; None if anything but reshaping and a single broadcast is done to it."""
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
        """Those nodes from which none of the others can be reached; a backward pass to these passes all of them."""
        targets = set(nodes)
        above: set[Node] = set()
        for node in self._nodes:
            if any(used in targets or used in above for used, _ in node.next_functions):
                above.add(node)
        return targets - above


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
