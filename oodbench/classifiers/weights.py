"""Reads weights from a user's file, without running code that may be in it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from oodbench.errors import MissingPrerequisiteError, UsageError, one_line

_ENDINGS = (".safetensors", ".pt", ".pth")


def weights_file(weights: str, seed: int) -> Path:
    """The file with the weights for a seed.

    Args:
        weights: Name of the file, in which ``{seed}`` stands for the seed.
        seed: Seed of the classifier's training.

    Raises:
        UsageError: Its type cannot be read.
        MissingPrerequisiteError: The file is missing.
    """
    file = Path(weights.replace("{seed}", str(seed))).expanduser()
    if file.suffix not in _ENDINGS:
        raise UsageError(f"the weights {file} end in {file.suffix!r}; expected .safetensors, .pt or .pth.")
    if not file.is_file():
        raise MissingPrerequisiteError(f"the weights are not there: looked for the file {file}.")
    return file


def load_weights(network: nn.Module, file: Path, classes: int) -> None:
    """Load the weights in a file into a network.

    Raises:
        UsageError: The file cannot be read, or its weights do not fit the network or are not finite.
    """
    weights = _read(file)
    own = network.state_dict()
    for name, tensor in weights.items():
        if name in own and own[name].shape != tensor.shape:
            raise UsageError(
                f"the weights {file} have {name} of shape {tuple(tensor.shape)}; expected {tuple(own[name].shape)}, "
                f"for {classes} known classes."
            )
    if not hasattr(weights, "_metadata"):
        # A safetensors file cannot hold the versions of modules (``_metadata``): take those of the network.
        own.clear()
        own.update(weights)
        weights = own
    missing, unexpected = network.load_state_dict(weights, strict=False)
    differences = [f"they lack {_some(missing)}"] if missing else []
    differences += [f"they have {_some(unexpected)}, which it has not"] if unexpected else []
    if differences:
        raise UsageError(f"the weights {file} are not those of this classifier: {' and '.join(differences)}.")
    strange = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if strange:
        raise UsageError(f"the weights {file} have NaN or infinite values in {_some(strange)}; expected finite ones.")


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):
            content: Any = (
                load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
            )
    except Exception as cause:  # torch raises half a dozen kinds, with advice to trust the file
        expected = (
            f"a safetensors file ({one_line(cause)})"
            if file.suffix == ".safetensors"
            else "tensors alone, as torch.save(network.state_dict(), FILE) writes them"
        )
        raise UsageError(f"the weights {file} cannot be read; expected {expected}.") from cause
    if not isinstance(content, Mapping):
        raise UsageError(f"the weights {file} are a {type(content).__name__}; expected a state dict, tensors by name.")
    strange = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise UsageError(
            f"the weights {file} hold {_some([str(name) for name in content])}, of which {strange[0]} is no tensor; "
            "expected a state dict alone, tensors by name."
        )
    return content


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
