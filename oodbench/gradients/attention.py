"""Multi-head attention with separate projections, so that the rule of a Linear layer applies to each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from oodbench.gradients.forms import Form
from oodbench.gradients.rules import Rule, linear, on_any_dimension

Remember = Callable[[nn.Module, list[tuple[Rule, Tensor, Tensor]]], None]
"""Records a call of a module, given a rule, an input and an output for each projection in it."""


@contextmanager
def opened(model: nn.Module, remember: Remember) -> Iterator[None]:
    """Replace the forward of attention modules, inside the context, so that ``remember`` gets their projections.

    The modules return the same as before.
    """
    modules = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention) and _fits(module)]
    for module in modules:
        # Set without nn.Module.__setattr__; removed again below.
        vars(module)["forward"] = partial(_attend, module, remember)
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["forward"]


def _fits(module: nn.MultiheadAttention) -> bool:
    return (
        type(module) is nn.MultiheadAttention
        and "forward" not in vars(module)
        and module.bias_k is None
        and not module.add_zero_attn
        and type(module.out_proj) is NonDynamicallyQuantizableLinear
    )


def _attend(
    module: nn.MultiheadAttention,
    remember: Remember,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Softmax(Q Kᵀ / √E) V (Vaswani et al. 2017, section 3.2), as ``nn.MultiheadAttention`` with the same arguments."""
    if query.dim() != 3:
        return nn.MultiheadAttention.forward(
            module, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
    q, k, v = _projections(module, remember, query, key, value)
    if not module.batch_first:
        q, k, v = (projection.transpose(0, 1) for projection in (q, k, v))
    heads = module.num_heads
    q, k, v = (projection.reshape(*projection.shape[:2], heads, -1).transpose(1, 2) for projection in (q, k, v))
    mask = _mask(attn_mask, key_padding_mask, heads, q)
    if need_weights:
        scores = q @ k.transpose(2, 3) / sqrt(q.shape[3])
        weights = (scores if mask is None else scores + mask).softmax(dim=3)
        mixed = weights @ v
    else:
        weights = None
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    joined = mixed.transpose(1, 2).flatten(2)
    # Called as a function, as torch does, so that hooks of out_proj do not run.
    joined = joined if module.batch_first else joined.transpose(0, 1)
    output = F.linear(joined, module.out_proj.weight, module.out_proj.bias)
    remember(module.out_proj, [(linear, joined, output)])
    return output, weights.mean(dim=1) if weights is not None and average_attn_weights else weights


def _projections(
    module: nn.MultiheadAttention, remember: Remember, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, ...]:
    bias = module.in_proj_bias
    if module.in_proj_weight is not None and query is key and key is value:
        projected = F.linear(query, module.in_proj_weight, bias)
        remember(module, [(_projection("in_proj_weight"), query, projected)])
        return projected.chunk(3, dim=2)
    names = ["in_proj_weight"] * 3
    if module.in_proj_weight is not None:
        weights = list(module.in_proj_weight.chunk(3))
    else:
        names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
        weights = [module.get_parameter(name) for name in names]
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    inputs = (query, key, value)
    outputs = [F.linear(x, weight, own_bias) for x, weight, own_bias in zip(inputs, weights, biases, strict=True)]
    rules = [_projection(name) for name in names]
    remember(module, list(zip(rules, inputs, outputs, strict=True)))
    return tuple(outputs)


@cache
def _projection(weight: str) -> Rule:
    @on_any_dimension
    def rule(module: nn.Module, x: Tensor, d: Tensor) -> dict[str, Form]:
        forms = linear(module, x, d)
        return {weight: forms["weight"], "in_proj_bias": forms["bias"]}

    return rule


def _mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, heads: int, like: Tensor) -> Tensor | None:
    """The mask that is added to the scores (N, heads, T, S): −∞ where a key must not be attended to."""
    mask = None
    if attn_mask is not None:
        mask = _additive(attn_mask, like)
        mask = mask.view(-1, heads, *mask.shape[1:]) if mask.dim() == 3 else mask
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask, like)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    return mask


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))
