"""How the per-sample gradient of a layer's parameters factorises; one rule for each type of layer.

A rule knows nothing of statistics: it says that the gradient of a parameter is an outer product of two vectors, a
product of two matrices over positions, or a plain vector. Adding a layer is adding one function here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Outer:
    """Gradient ``left ⊗ right`` of each sample; it is never built.

    Attributes:
        left: (N, A).
        right: (N, B).
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Product:
    """Gradient ``left @ right`` of each sample and group: a sum of outer products over L positions.

    Attributes:
        left: (N, G, A, L).
        right: (N, G, L, B).
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Vector:
    """The gradient itself.

    Attributes:
        values: (N, K).
    """

    values: Tensor


Form = Outer | Product | Vector
Rule = Callable[[nn.Module, Tensor, Tensor], list[Form]]

_rules: dict[type[nn.Module], Rule] = {}


def rule(*types: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Make a function ``(module, input, output gradient) -> forms`` the rule of some types of modules.

    There is one form for each parameter of the module, in the order of ``module.parameters()``.
    """

    def decorate(function: Rule) -> Rule:
        _rules.update(dict.fromkeys(types, function))
        return function

    return decorate


def rule_for(module: nn.Module) -> Rule | None:
    """The rule of exactly this type: a subclass may compute something else."""
    return _rules.get(type(module))


@rule(nn.Linear)
def _linear(module: nn.Module, x: Tensor, d: Tensor) -> list[Form]:
    """Y = W x + b: for a vector dW = d xᵀ, for tokens the sum of these over all leading dimensions."""
    bias: list[Form] = []
    if x.dim() == 2:
        if module.bias is not None:
            bias = [Vector(d)]
        return [Outer(d, x), *bias]
    tokens, gradients = x.flatten(1, -2), d.flatten(1, -2)
    if module.bias is not None:
        bias = [Vector(gradients.sum(dim=1))]
    return [Product(gradients.transpose(1, 2)[:, None], tokens[:, None]), *bias]


@rule(nn.Conv2d)
def _conv2d(module: nn.Module, x: Tensor, d: Tensor) -> list[Form]:
    """A convolution is a Linear layer on unfolded patches, its positions the tokens."""
    assert isinstance(module, nn.Conv2d)
    padded = _pad(module, x)
    patches = F.unfold(padded, module.kernel_size, dilation=module.dilation, stride=module.stride)
    n, groups = len(x), module.groups
    right = patches.reshape(n, groups, -1, patches.shape[2]).transpose(2, 3)
    left = d.reshape(n, groups, module.out_channels // groups, -1)
    forms: list[Form] = [Product(left, right)]
    if module.bias is not None:
        forms.append(Vector(d.flatten(2).sum(dim=2)))
    return forms


def _pad(module: nn.Conv2d, x: Tensor) -> Tensor:
    amounts = module._reversed_padding_repeated_twice
    if not any(amounts):
        return x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(x, amounts, mode=mode) if mode != "constant" else F.pad(x, amounts)


def zero_form(parameter: Tensor, n: int) -> Form:
    """The gradient of a parameter that the loss does not reach."""
    return Outer(parameter.new_zeros(n, 1), parameter.new_zeros(n, parameter.numel()))
