"""Loads weights, from a file or given in Python, into a network: if and only if all of its weights fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from oodbench.classifiers.checkpoints import StateDict, read_checkpoint, state_dicts, whole_network
from oodbench.classifiers.weight_matching import Fit, best_fit, contradictions
from oodbench.errors import MissingPrerequisiteError, UsageError, one_line
from oodbench.gradients.copying import copied
from oodbench.suites.schema import GIVEN, PRETRAINED

# Where several state dicts fit, the first of these that is there is taken; averages come last.
_PREFERRED = ("", "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
_AVERAGES = ("ema", "avg", "average", "swa", "teacher")
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def weights_file(weights: str, seed: int) -> tuple[Path, str | None]:
    """The file with the weights for a seed, and the key in it that is asked for.

    Args:
        weights: Name of the file, in which ``{seed}`` stands for the seed; maybe ``FILE#KEY``, for the state dict under
            a key of a file with several.
        seed: Seed of the classifier's training.

    Raises:
        MissingPrerequisiteError: The file is missing.
    """
    name = weights.replace("{seed}", str(seed))
    whole = Path(name).expanduser()
    if whole.is_file() or "#" not in name:
        file, key = whole, None
    else:
        before, _, key = name.rpartition("#")
        file = Path(before).expanduser()
    if not file.is_file():
        raise MissingPrerequisiteError(f"the weights are not there: looked for the file {file}.")
    return file, key


def weights_name(weights: str | None) -> str | None:
    """What weights are called in records: the end of their path, which others have, too; None without weights.

    These are the file and its folder, and the folder above as long as the first of them depends on the seed.

    Args:
        weights: As in a suite: name of the file, maybe with ``{seed}``, or what says that they are pretrained or given.
    """
    if weights is None or weights in (PRETRAINED, GIVEN):
        return weights and weights.strip("<>")
    parts = Path(weights).expanduser().absolute().parts[1:]
    kept = 2
    while kept < len(parts) and "{seed}" in parts[-kept]:
        kept += 1
    return "/".join(parts[-kept:])


def load_weights(
    network: nn.Module,
    weights: Path | Mapping[str, Any],
    classes: int,
    *,
    key: str | None = None,
    unused: Sequence[str] = (),
) -> list[str]:
    """Load weights into a network, if all of its weights fit in name and shape.

    A state dict may be nested in a checkpoint under any keys, and its names may have a prefix that the network's have
    not, or lack theirs. ``num_batches_tracked`` may be missing, and all but one of the names of shared weights.

    Args:
        network: The network; it is not changed if the weights do not fit.
        weights: A file of safetensors or ``torch.save``, or a state dict or checkpoint from Python.
        classes: Number of known classes, for the message.
        key: Key of the state dict in the checkpoint, with dots where it is nested deeper, or a prefix of the names to
            take; None finds it.
        unused: Names of modules that evaluation does not use, whose weights may be there beside the network's.

    Returns:
        What was taken off, converted and left out, in phrases for the user.

    Raises:
        UsageError: The file cannot be read, or its weights do not fit the network or are not finite.
    """
    is_file = isinstance(weights, Path)
    source = f"the weights {weights}" if is_file else "the weights given"
    content = read_checkpoint(weights) if isinstance(weights, Path) else weights
    found = _candidates(source, content, key)
    own = network.state_dict()
    fits = [best_fit(candidate, own, unused) for candidate in found]
    fitting = sorted((fit for fit in fits if not fit.problems), key=lambda fit: _rank(fit.found.key))
    if not fitting:
        best = min(fits, key=lambda fit: (fit.problems - len(fit.names), _rank(fit.found.key)))
        migrated = _by_the_networks_own_rules(network, best)
        if migrated is None:
            raise _misfit(source, best, own, classes)
        fitting, state = [best], migrated
    else:
        state = _state(source, fitting[0], own)
    _check_values(source, state, own)
    try:
        network.load_state_dict(state)
    except RuntimeError as cause:
        raise UsageError(f"{source} were refused by the network's own load_state_dict: {one_line(cause)}.") from cause
    return [
        *_taken_off(fitting[0]),
        *_conversions(state, own),
        *_others(fitting, str(weights) if is_file else None),
    ]


def _candidates(source: str, content: Mapping[Any, Any], key: str | None) -> list[StateDict]:
    """The state dicts in a checkpoint, or those under a key.

    Raises:
        UsageError: There are none.
    """
    found = state_dicts(content)
    if not found:
        instead = whole_network(content)
        what = instead or (_some([str(name) for name in content]) or "nothing")
        raise UsageError(
            f"{source} hold no tensors by name, but {what}; expected a state dict, as "
            "torch.save(network.state_dict(), FILE) writes it."
        )
    if key is None:
        return found
    below = [one for one in found if one.key == key or one.key.startswith(f"{key}.")] or [
        StateDict(key, named, {}) for one in found if (named := _below(one.tensors, f"{key}."))
    ]
    if not below:
        keys = _some([one.key for one in found if one.key]) or "none, it is a state dict itself"
        raise UsageError(f"{source} have nothing under the key {key!r}; expected one of: {keys}.")
    return below


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _rank(key: str) -> tuple[bool, int]:
    """The order of preference: averages last, then the usual keys in their order, then the order of the file."""
    words = key.lower().replace(".", "_").split("_")
    usual = _PREFERRED.index(key) if key in _PREFERRED else len(_PREFERRED)
    return any(word in _AVERAGES for word in words), usual


def _state(source: str, fit: Fit, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the network's names, with the versions of modules (``_metadata``).

    Raises:
        UsageError: Weights that the network shares have different values.
    """
    torn = contradictions(fit, own)
    if torn:
        raise UsageError(
            f"{source} have different values for {_some(torn)}, which the network shares with other layers; expected "
            "the same."
        )
    # A copy of the network's own mapping keeps the versions of its modules, which safetensors cannot hold.
    state = own.copy()  # type: ignore[attr-defined]
    state.update({name: fit.found.tensors[its] for name, its in fit.names.items()})
    theirs, ours = fit.prefixes
    versions = {
        (ours + f"{module}.".removeprefix(theirs)).strip("."): version for module, version in fit.found.versions.items()
    }
    if hasattr(own, "_metadata"):
        state._metadata = {**own._metadata, **versions}
    return state  # type: ignore[no-any-return]


def _by_the_networks_own_rules(network: nn.Module, fit: Fit) -> dict[str, Tensor] | None:
    """The weights as the network itself renames older ones when they are loaded; None if it refuses them."""
    trial = copied(network)
    theirs, ours = fit.prefixes
    renamed = {ours + name.removeprefix(theirs): tensor for name, tensor in fit.found.tensors.items()}
    try:
        trial.load_state_dict(renamed)
    except Exception:  # the network's own code may raise anything
        return None
    return trial.state_dict()


def _check_values(source: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    floating = [name for name in own if own[name].is_floating_point()]
    strange = [name for name in floating if state[name].dtype not in _FLOATING]
    if strange:
        raise UsageError(
            f"{source} have {_some(strange)} of {state[strange[0]].dtype}; expected floating-point numbers, not "
            "quantised ones."
        )
    # An infinite value may be part of the network, such as that of a mask.
    infinite = [
        name
        for name, tensor in state.items()
        if not is_lazy(own[name]) and not bool((tensor.to(own[name].dtype).isfinite() | (tensor == own[name])).all())
    ]
    if infinite:
        raise UsageError(f"{source} have NaN or infinite values in {_some(infinite)}; expected finite ones.")


def _misfit(source: str, fit: Fit, own: Mapping[str, Tensor], classes: int) -> UsageError:
    """The error for weights that do not fit: shapes if the names do, else the first names on both sides."""
    where = "".join([f" under {fit.found.key!r}"] if fit.found.key else [])
    where += f" without the prefix {fit.prefixes[0]!r}" if fit.prefixes[0] else ""
    if fit.misshapen and not (fit.missing or fit.extra):
        name, more = fit.misshapen[0], len(fit.misshapen) - 1
        return UsageError(
            f"{source}{where} have {name} of shape {tuple(fit.found.tensors[fit.names[name]].shape)}; expected "
            f"{tuple(own[name].shape)}{f' (and {more} more differ)' if more else ''}, for {classes} known classes."
        )
    differences = [f"they lack {_some(fit.missing)}"] if fit.missing else []
    differences += [f"they have {_some(fit.extra)}, which it has not"] if fit.extra else []
    differences += [f"{_some(fit.misshapen)} have another shape"] if fit.misshapen else []
    return UsageError(f"{source}{where} are not those of this classifier: {' and '.join(differences)}.")


def _taken_off(fit: Fit) -> list[str]:
    wrapper = [f"the wrapper {fit.found.key!r}"] if fit.found.key else []
    left = [f"left out: {_some(fit.left_out)}, which evaluation does not use"] if fit.left_out else []
    return [*wrapper, *fit.taken_off, *left]


def _conversions(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    converted: dict[str, int] = {}
    for name, tensor in own.items():
        if tensor.is_floating_point() and state[name].dtype != tensor.dtype:
            pair = f"{_short(state[name].dtype)} to {_short(tensor.dtype)}"
            converted[pair] = converted.get(pair, 0) + 1
    return [f"{n} tensors converted from {pair}" for pair, n in converted.items()]


def _others(fitting: Sequence[Fit], file: str | None) -> list[str]:
    """State dicts that fit as well and have other values, and how to take them."""
    taken = fitting[0]
    others = [
        fit.found.key or "the outermost"
        for fit in fitting[1:]
        if any(
            not fit.found.tensors[its].equal(taken.found.tensors[taken.names[name]]) for name, its in fit.names.items()
        )
    ]
    if not others:
        return []
    how = f"weights = {f'{file}#{others[0]}'!r}" if file else "that one alone"
    return [f"not taken: {_some(others)}, which fits, too; give {how} for it"]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
