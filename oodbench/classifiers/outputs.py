"""What a network returns, and how logits (N, C) are made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.errors import UsageError

# Names of logits among several outputs, the surest first.
KEYS = (
    "logits", "out", "output", "outputs", "pred", "preds", "prediction", "predictions", "scores", "y", "y_hat",
)  # fmt: skip


@dataclass(frozen=True)
class Logits:
    """How logits are made of what a network returns; as a forward hook it makes them.

    Attributes:
        key: Key, name or position of the logits among several outputs; None if they are the only one.
        columns: How many there are for each sample, where they have to be brought to shape: 1 is one logit for two
            classes. None if they are a matrix (N, C).
    """

    key: str | int | None
    columns: int | None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:  # noqa: ANN401
        """The logits (N, C) of an output. Torch.fx can trace it: nothing depends on shapes."""
        logits: Tensor = output if self.key is None else parts_of(output)[self.key]
        if self.columns is None:
            return logits
        flat = logits.reshape(-1, self.columns)
        # The softmax of (0, z) is the sigmoid of z, and its cross-entropy that of the sigmoid.
        return torch.cat([torch.zeros_like(flat), flat], dim=1) if self.columns == 1 else flat

    @property
    def said(self) -> list[str]:
        """What is done to the output, in phrases for the user."""
        chosen = [] if self.key is None else [f"its output {self.key!r} is taken for the logits"]
        if self.columns is None:
            return chosen
        one = "its one logit z becomes the logits (0, z) of the two classes"
        return [*chosen, one if self.columns == 1 else "its logits are brought to the shape (N, C)"]


def logits_in(output: Any, alone: Any, outputs: int) -> Logits:  # noqa: ANN401
    """Find the logits in what a network returns.

    Args:
        output: What it returns for a batch of two samples.
        alone: What it returns for the first of them.
        outputs: The number of logits that is expected.

    Raises:
        UsageError: There are none, or it is not clear which they are.
    """
    if isinstance(output, Tensor):
        if not _is_plausible(output, outputs):
            raise UsageError(f"it returns {_shape(output)} for 2 inputs{_why(output)}; expected logits (2, {outputs}).")
        return Logits(None, _columns(output, alone, outputs))
    parts = parts_of(output)
    plausible = [key for key, part in parts.items() if _is_plausible(part, outputs)]
    key = next((key for key in KEYS if key in plausible), None)
    if key is None:
        sizes = (1, 2) if outputs == 2 else (outputs,)
        choice = plausible if len(plausible) == 1 else [key for key in plausible if parts[key][0].numel() in sizes]
        if len(choice) != 1:
            shown = ", ".join(f"{key}: {_shape(part)}" for key, part in parts.items()) or "nothing"
            raise UsageError(
                f"it returns a {type(output).__name__} ({shown}) for 2 inputs, and it is not clear which of it are the "
                f"logits; expected logits (2, {outputs}) alone, or under the key 'logits'."
            )
        key = choice[0]
    return Logits(key, _columns(parts[key], parts_of(alone)[key], outputs))


def parts_of(output: Any) -> dict[Any, Any]:  # noqa: ANN401
    """The parts of an output by key, name or position."""
    if isinstance(output, Mapping):
        return dict(output)
    if hasattr(output, "_asdict"):
        return dict(output._asdict())
    if isinstance(output, tuple | list):
        return dict(enumerate(output))
    if is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return dict(getattr(output, "__dict__", {}))


def _is_plausible(part: Any, outputs: int) -> bool:  # noqa: ANN401
    """Whether a value may be the logits of two samples: a matrix but for dimensions of size 1, or one logit each."""
    if not isinstance(part, Tensor) or not part.is_floating_point() or part.dim() == 0 or len(part) != 2:
        return False
    if part.dim() == 1:
        return outputs == 2
    return part.dim() == 2 or part[0].numel() in part.shape[1:]


def _columns(pair: Tensor, alone: Tensor, outputs: int) -> int | None:
    """To how many columns logits have to be brought; None if they are a matrix, also for a single sample.

    Args:
        pair: The logits of two samples.
        alone: The logits of one sample, whose dimension ``squeeze`` may have taken.
        outputs: The number of logits that is expected.
    """
    columns = pair[0].numel()
    if outputs == 2 and columns == 1:
        return 1
    return None if pair.dim() == alone.dim() == 2 else columns


def _shape(part: Any) -> str:  # noqa: ANN401
    return str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__


def _why(output: Tensor) -> str:
    if output.dim() == 4:
        return ", a prediction for each position, as for segmentation"
    return "" if output.is_floating_point() else f" of {output.dtype}"
