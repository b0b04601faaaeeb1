"""Parts of the evidence beyond the weight gradient at the predicted label, for the family of gradient uncertainty."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from oodbench.errors import CellSkippedError
from oodbench.evidence.parts import NetworkPass, evidence_part

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Transform = Literal["none", "flip", "blur", "noise", "rotation"]


@evidence_part("set_norms", needs="backward", per_sample="float64, by parameter")
def set_norms(run: NetworkPass, *, ones: int | None = None) -> dict[str, Tensor]:
    """Squared L2 norms of the gradient by each parameter, at a confounding label (Lee, AlRegib 2021, arXiv 2206.08229).

    The loss is the binary cross-entropy of the logits, summed over the classes, with a label of several ones. Which
    classes get them the paper leaves open; here it is the most probable ones, so that their order does not matter.

    Args:
        run: The pass.
        ones: Number of ones; None for all classes (Purview, arXiv 2304.02834).

    Raises:
        CellSkippedError: There are fewer classes.
    """
    classes = run.logits.shape[1]
    many = classes if ones is None else ones
    if not 0 <= many <= classes:
        raise CellSkippedError(f"a label of {many} ones is asked for, and the classifier has {classes} classes")

    def loss(logits: Tensor) -> Tensor:
        label = torch.zeros_like(logits).scatter(1, logits.detach().topk(many, dim=1).indices, 1.0)
        return F.binary_cross_entropy_with_logits(logits, label, reduction="none").sum(dim=1)

    return run.squared_norms(loss)


@evidence_part("loss_gradients", needs="backward", per_sample="float32, by metric and layer")
def loss_gradients(
    run: NetworkPass, *, loss: Literal["uniform", "confounding", "logsumexp"] = "uniform"
) -> dict[str, Tensor]:
    """The gradient metrics at another loss than that of the predicted label; see ``oodbench.gradients.losses``."""
    return run.metrics(loss)


@evidence_part("transformed_norms", needs="backward", per_sample="float32, by layer")
def transformed_norms(run: NetworkPass, *, transform: Transform = "none", strength: float = 1.0) -> dict[str, Tensor]:
    """L1 norms of each layer's weight gradient of a transformed input, at the label that is predicted for the original.

    Args:
        run: The pass.
        transform: ``flip`` mirrors left and right; ``blur`` is Gaussian, of ``strength`` pixels; ``noise`` adds the
            same Gaussian noise to all inputs, of a standard deviation of ``strength`` in the units of the network;
            ``rotation`` turns by ``strength`` degrees, bilinearly.
        strength: How strong it is.

    Raises:
        CellSkippedError: The inputs are no images.
    """
    if run.inputs.dim() != 4:
        raise CellSkippedError("it transforms images, and the inputs are none")
    label = run.logits.argmax(dim=1)

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, label.to(logits.device), reduction="none")

    metrics = run.metrics_of(transformed(run.inputs, transform, strength), loss)
    return {name: values for name, values in metrics.items() if name.startswith("l1@")}


def transformed(inputs: Tensor, transform: Transform, strength: float) -> Tensor:
    """Transformed inputs, (N, C, H, W); see ``transformed_norms``."""
    match transform:
        case "none":
            return inputs
        case "flip":
            return inputs.flip(3)
        case "blur":
            # Three standard deviations to each side, as far as the padding by reflection allows.
            reach = min(max(1, round(3 * strength)), min(inputs.shape[2:]) - 1)
            blurred: Tensor = TF.gaussian_blur(inputs, [2 * reach + 1] * 2, [strength] * 2)
            return blurred
        case "noise":
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(inputs.shape[1:], generator=generator, dtype=inputs.dtype)
            return inputs + strength * noise.to(inputs.device)
        case "rotation":
            turned: Tensor = TF.rotate(inputs, strength, InterpolationMode.BILINEAR)
            return turned


@evidence_part("gaia_z", per_sample="float64")
def gaia_z(run: NetworkPass) -> Tensor:
    """Mean squared density of what is not zero in the attributions of the largest logit (Chen et al. 2023, 2311.09620).

    The attributions are the derivatives by the outputs of all BatchNorm layers, in a network without these by those of
    its convolutions. The density is taken over the positions of each channel, the mean over the channels of all layers.
    """
    with torch.enable_grad(), _outputs(run.network) as edges:
        logits = run.network(_with_gradient(run.inputs).clone())
        attributions = _gradients(logits.amax(dim=1).sum(), edges())
    densities = [(of_layer != 0).flatten(2).double().mean(dim=2) for of_layer in attributions]
    return torch.cat(densities, dim=1).square().mean(dim=1)


@evidence_part("gaia_a", per_sample="float64")
def gaia_a(run: NetworkPass) -> Tensor:
    """Mean squared ratio of inner to outer attributions of channels (Chen et al. 2023, arXiv 2311.09620).

    Outer ones are the derivatives of Σ log softmax by the feature maps that the head gets: the root of the mean over
    their channels of the absolute mean over positions. Inner ones are those of the sum of these maps by the outputs of
    the layers of ``gaia_z``: the absolute mean over the positions of each channel.
    """
    with torch.enable_grad(), _outputs(run.network) as edges:
        maps = _with_gradient(run.inputs).clone()
        for stage in run.stages:
            maps = stage(maps)
        inner = _gradients(maps.sum(), edges())
        head_input = _with_gradient(maps)
        logits = run.head(head_input.clone())
        p = logits.detach().double().softmax(dim=1)
        (outer,) = torch.autograd.grad(logits, head_input, (1 - p.shape[1] * p).to(logits.dtype))
    of_sample = outer.flatten(2).double().mean(dim=2).abs().mean(dim=1).sqrt()
    of_channels = [of_layer.flatten(2).double().mean(dim=2).abs() for of_layer in inner]
    tiny = torch.finfo(torch.float64).tiny ** 0.5
    return (torch.cat(of_channels, dim=1) / of_sample.clamp_min(tiny)[:, None]).square().mean(dim=1)


@evidence_part("blood", per_sample="float64 (stages,)")
def blood(run: NetworkPass, *, n: int = 10) -> Tensor:
    """Squared Frobenius norms of the Jacobians between stages, estimated by random vectors (BLOOD, arXiv 2310.02832).

    From the output of each stage to that of the next one, and at last to the logits: the mean over ``n`` standard
    normal vectors v of ‖vᵀJ‖². All samples have the same vectors.
    """
    generator = torch.Generator().manual_seed(0)
    of_steps: list[Tensor] = []
    with torch.enable_grad():
        before: Tensor | None = None
        for step in (*run.stages, run.head):
            given = _with_gradient(run.inputs if before is None else before)
            after = step(given.clone())  # as it may work on it in place
            if before is not None:
                vectors = torch.randn((n, *after.shape[1:]), generator=generator).to(after)
                of_steps.append(_mean_squared_products(after, given, vectors))
            before = after
    return torch.stack(of_steps, dim=1)


def _mean_squared_products(after: Tensor, given: Tensor, vectors: Tensor) -> Tensor:
    """Mean over vectors v of ‖vᵀJ‖² for each sample, with J the derivative of ``after`` by ``given``; float64 (N,)."""
    total = torch.zeros(len(after), dtype=torch.float64, device=after.device)
    for vector in vectors:
        (product,) = torch.autograd.grad(after, given, vector.expand_as(after), retain_graph=True)
        total += product.flatten(1).double().square().sum(dim=1)
    return total / len(vectors)


def _with_gradient(values: Tensor) -> Tensor:
    return values.detach().requires_grad_()


@contextmanager
def _outputs(network: nn.Module) -> Iterator[Callable[[], Sequence[GradientEdge]]]:
    """Inside, the outputs of the network's BatchNorm layers are noted, or of its convolutions if it has none.

    Raises:
        CellSkippedError: It has neither.
    """
    modules = list(network.modules())
    norms: list[nn.Module] = [module for module in modules if isinstance(module, NORMS)]
    layers = norms or [module for module in modules if isinstance(module, CONVOLUTIONS)]
    if not layers:
        raise CellSkippedError("it needs BatchNorm layers or convolutions, and the classifier has none")
    edges: list[GradientEdge] = []

    def note(_module: nn.Module, _args: Any, output: Tensor) -> None:  # noqa: ANN401
        # An edge, as later layers may work on the output in place.
        edges.append(get_gradient_edge(output))

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield lambda: tuple(edges)
    finally:
        for handle in handles:
            handle.remove()


def _gradients(summed: Tensor, edges: Sequence[GradientEdge]) -> list[Tensor]:
    """The derivatives by the outputs that are reached, (N, K, …) each."""
    found = torch.autograd.grad(summed, list(edges), allow_unused=True)
    return [gradient for gradient in found if gradient is not None and gradient.dim() > 2]
