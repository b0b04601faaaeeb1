"""Rules: how the per-sample gradient of a layer's parameters factorises, for each type of layer.

A rule gets a module, its input x and the gradient d at its output, both with the samples in dimension 0. It returns the
form of the gradient of each of the module's parameters. To support another layer, add a function here or in a plugin.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from oodbench.gradients.forms import Form, Outer, Product, Vector, windows

Rule = Callable[[nn.Module, Tensor, Tensor], Mapping[str, Form]]

Condition = Callable[[nn.Module], bool]

_rules: dict[str, tuple[Rule, Condition]] = {}
_on_any_dimension: set[Rule] = set()


def rule(*types: type[nn.Module] | str, when: Condition = lambda module: True) -> Callable[[Rule], Rule]:
    """Decorator that makes a function ``(module, x, d) -> {parameter name: form}`` the rule of types of modules.

    The rule is used for modules of exactly these types that are called once in a forward pass and do not share their
    parameters. Forms of parameters that the module lacks, such as a bias, are ignored.

    Args:
        types: Types of modules, or their dotted names to avoid slow imports.
        when: Whether the rule holds for a module of these types.
    """

    def decorate(function: Rule) -> Rule:
        _rules.update((kind if isinstance(kind, str) else _name(kind), (function, when)) for kind in types)
        return function

    return decorate


def rule_for(module: nn.Module) -> Rule | None:
    """The rule of a module's exact type, since a subclass may compute something else; None if there is no rule."""
    function, when = _rules.get(_name(type(module)), (None, None))
    return function if when and when(module) and "forward" not in vars(module) else None


def on_any_dimension(function: Rule) -> Rule:
    """Mark a rule of layers that treat all leading dimensions alike, so that samples may be in any of these."""
    _on_any_dimension.add(function)
    return function


def needs_samples_first(function: Rule) -> bool:
    """Whether a rule holds only if the samples are in dimension 0 of the layer's input."""
    return function not in _on_any_dimension


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@rule(nn.Linear, NonDynamicallyQuantizableLinear)
@on_any_dimension
def linear(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
    """Y = W x + b: for a vector dW = d xᵀ, for tokens the sum of these over all leading dimensions."""
    if x.dim() == 2:
        return {"weight": Outer(d, x), "bias": Vector(d)}
    tokens, gradients = x.flatten(1, -2), d.flatten(1, -2)
    return {
        "weight": Product(gradients.transpose(1, 2)[:, None], tokens.transpose(1, 2)[:, None]),
        "bias": Vector(gradients.sum(dim=1)),
    }


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
    """A convolution is a Linear layer on the patches that its kernel sees, its positions the tokens."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    padded = _padded(x, module._reversed_padding_repeated_twice, module.padding_mode)
    patches = windows(padded, module.groups, module.kernel_size, module.stride, module.dilation)
    return {
        "weight": Product(_by_groups(d, module.groups), patches),
        "bias": Vector(d.flatten(2).sum(dim=2)),
    }


@rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
    """The adjoint of a convolution: the roles of its input and its output gradient are exchanged."""
    assert isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    # F.pad counts dimensions from the last; a transposed convolution has no named padding.
    paddings: list[int] = [int(str(padding)) for padding in reversed(module.padding)]
    around = [amount for padding in paddings for amount in (padding, padding)]
    padded = _padded(d, around, "zeros")
    # Cut off the output padding beyond the last position, which depends on no input.
    for axis, (size, k, s, step) in enumerate(
        zip(x.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True), start=2
    ):
        padded = padded.narrow(axis, 0, (size - 1) * s + step * (k - 1) + 1)
    patches = windows(padded, module.groups, module.kernel_size, module.stride, module.dilation)
    return {
        "weight": Product(_by_groups(x, module.groups), patches),
        "bias": Vector(d.flatten(2).sum(dim=2)),
    }


@rule(
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    when=lambda module: module.running_mean is not None and not module.training,
)
def batch_norm(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
    """With running statistics, an affine map of each channel; without them its output mixes samples."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    assert module.running_mean is not None
    assert module.running_var is not None
    per_channel = (1, -1, *[1] * (x.dim() - 2))
    forms = _affine(x - module.running_mean.view(per_channel), d)
    return {"weight": Vector(forms["weight"].values / (module.running_var + module.eps).sqrt()), "bias": forms["bias"]}


@rule(nn.GroupNorm)
def group_norm(module: nn.Module, x: Tensor, d: Tensor) -> Mapping[str, Form]:
    """An affine map of each channel after normalisation within groups of channels."""
    assert isinstance(module, nn.GroupNorm)
    return _affine(F.group_norm(x, module.num_groups, eps=module.eps), d)


@rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm(module: nn.Module, x: Tensor, d: Tensor) -> Mapping[str, Form]:
    """An affine map of each channel after normalisation within it, by running statistics where it keeps them."""
    assert isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d)
    own = module.training or not module.track_running_stats
    normalised = F.instance_norm(
        x, module.running_mean, module.running_var, use_input_stats=own, momentum=0.0, eps=module.eps
    )
    return _affine(normalised, d)


@rule(nn.LayerNorm)
@on_any_dimension
def layer_norm(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
    """An affine map of each entry of the normalised shape, summed over all that is before it."""
    assert isinstance(module, nn.LayerNorm)
    return _elementwise(F.layer_norm(x, module.normalized_shape, eps=module.eps), d, len(module.normalized_shape))


@rule("torchvision.models.convnext.LayerNorm2d", "timm.layers.norm.LayerNorm2d")
def layer_norm_of_channels(module: nn.Module, x: Tensor, d: Tensor) -> Mapping[str, Form]:
    """LayerNorm over the channels (dimension 1) at each position."""
    return layer_norm(module, x.movedim(1, -1), d.movedim(1, -1))


@rule(nn.RMSNorm)
@on_any_dimension
def rms_norm(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
    """As LayerNorm, without mean and bias."""
    assert isinstance(module, nn.RMSNorm)
    return _elementwise(F.rms_norm(x, module.normalized_shape, eps=module.eps), d, len(module.normalized_shape))


@rule(nn.PReLU)
def prelu(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
    """Y = max(x, 0) + w min(x, 0), with w a number or a vector over the channels."""
    assert isinstance(module, nn.PReLU)
    product = d * x.clamp_max(0)
    if module.num_parameters == 1:
        return {"weight": Vector(product.flatten(1).sum(dim=1, keepdim=True))}
    return {"weight": Vector(product.flatten(2).sum(dim=2) if product.dim() > 2 else product)}


@rule(nn.Embedding, when=lambda module: not module.scale_grad_by_freq)
@on_any_dimension
def embedding(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
    """The rows of a sample's tokens; the rows of repeated tokens are summed, and all other rows are 0."""
    assert isinstance(module, nn.Embedding)
    tokens = x.reshape(len(x), -1).long()
    gradients = d.reshape(*tokens.shape, module.embedding_dim)
    if module.padding_idx is not None:
        gradients = gradients * (tokens != module.padding_idx)[:, :, None]
    ordered, order = tokens.sort(dim=1, stable=True)
    starts = torch.cat([torch.zeros_like(ordered[:, :1]), (ordered[:, 1:] != ordered[:, :-1]).long()], dim=1)
    group = torch.empty_like(order).scatter_(1, order, starts.cumsum(dim=1))
    fewest = min(tokens.shape[1], module.num_embeddings)
    rows = gradients.new_zeros(len(tokens), fewest, module.embedding_dim)
    rows.scatter_add_(1, group[:, :, None].expand_as(gradients), gradients)
    return {"weight": Vector(rows.flatten(1), zeros=(module.num_embeddings - fewest) * module.embedding_dim)}


def _padded(x: Tensor, amounts: list[int], mode: str) -> Tensor:
    if not any(amounts):
        return x
    return F.pad(x, amounts) if mode == "zeros" else F.pad(x, amounts, mode=mode)


def _by_groups(d: Tensor, groups: int) -> Tensor:
    """(N, G · A, *positions) to (N, G, A, L)."""
    return d.reshape(len(d), groups, d.shape[1] // groups, -1)


def _affine(normalised: Tensor, d: Tensor) -> dict[str, Vector]:
    """Scale and shift of each channel (dimension 1); ``normalised`` is overwritten."""
    n, channels = d.shape[:2]
    return {
        "weight": Vector(normalised.mul_(d).reshape(n, channels, -1).sum(dim=2)),
        "bias": Vector(d.reshape(n, channels, -1).sum(dim=2)),
    }


def _elementwise(normalised: Tensor, d: Tensor, dimensions: int) -> dict[str, Form]:
    """Scale and shift of each entry in the last dimensions."""
    between = range(1, d.dim() - dimensions)

    def summed(values: Tensor) -> Vector:
        return Vector((values.sum(dim=tuple(between)) if between else values).flatten(1))

    return {"weight": summed(normalised * d), "bias": summed(d)}
