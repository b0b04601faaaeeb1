"""Finds out how the names in a state dict go with those of a network: equal, or equal but for a prefix."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.parameter import is_lazy

from oodbench.classifiers.checkpoints import StateDict

# Components of names that torch's wrappers put in, in front or in the middle.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# What evaluation does not use: missing in files of before torch 0.4.1; beside the weights in an AveragedModel.
_BATCHES, _AVERAGED = "num_batches_tracked", "n_averaged"


@dataclass(frozen=True)
class Fit:
    """How a state dict goes with a network.

    Attributes:
        found: The state dict.
        names: For each of the network's names, the name in the state dict that has its values.
        prefixes: The prefix of the state dict's names, and that of the network's, in whose place it stands.
        missing: The network's names that have no values.
        extra: Names in the state dict that the network has not.
        left_out: Extra names that evaluation does not use.
        misshapen: The network's names whose values have another shape.
    """

    found: StateDict
    names: Mapping[str, str]
    prefixes: tuple[str, str]
    missing: Sequence[str]
    extra: Sequence[str]
    left_out: Sequence[str]
    misshapen: Sequence[str]

    @property
    def problems(self) -> int:
        """How many names do not fit; 0 if all do."""
        return len(self.missing) + len(self.extra) + len(self.misshapen)

    @property
    def taken_off(self) -> list[str]:
        """What stands in front or in the middle of names on one side only, in words."""
        theirs, own = self.prefixes
        words = [f"the prefix {theirs!r}"] if theirs else []
        words += [f"the network's own prefix {own!r}, which they lack"] if own else []
        return words + [f"{part!r} within names" for part in self.within]

    @property
    def within(self) -> list[str]:
        """What torch's wrappers put within names of the state dict, beyond the prefix."""
        theirs, _ = self.prefixes
        return sorted(
            {
                f"{part}."
                for name, its in self.names.items()
                for part in set(its.removeprefix(theirs).split(".")) - set(name.split("."))
                if part in WRAPPERS
            }
        )


def best_fit(found: StateDict, own: Mapping[str, Tensor], unused: Sequence[str]) -> Fit:
    """The fit with the fewest problems, over all prefixes that a state dict or the network may have.

    Args:
        found: The state dict.
        own: The network's own state dict.
        unused: Names of modules that evaluation does not use: the state dict may have weights of them.
    """
    fits = [_fit(found, own, unused, theirs, ours) for theirs, ours in _prefixes_of_both(found, own)]
    return min(fits, key=lambda fit: (fit.problems, len(fit.within)))


def _prefixes_of_both(found: StateDict, own: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    counted = [name for name in found.tensors if name.rpartition(".")[2] != _AVERAGED or name in own]
    for theirs in _prefixes(counted):
        for ours in _prefixes(list(own)):
            yield theirs, ours


def _prefixes(names: Sequence[str]) -> list[str]:
    """The prefixes of dotted components that all names share, from none to the longest."""
    prefixes = [""]
    if names:
        shortest, longest = min(names).split("."), max(names).split(".")
        for first, last in zip(shortest[:-1], longest[:-1], strict=False):
            if first != last:
                break
            prefixes.append(f"{prefixes[-1]}{first}.")
    return [prefix for prefix in prefixes if all(name.startswith(prefix) for name in names)]


def _fit(found: StateDict, own: Mapping[str, Tensor], unused: Sequence[str], theirs: str, ours: str) -> Fit:
    plain = {_unwrapped(name): name for name in own}
    if len(plain) < len(own):
        plain = {name: name for name in own}
    names: dict[str, str] = {}
    extra: list[str] = []
    left_out: list[str] = []
    for name, tensor in found.tensors.items():
        renamed = ours + name.removeprefix(theirs)
        target = renamed if renamed in own else plain.get(_unwrapped(renamed))
        if target is not None and target not in names:
            names[target] = name
        elif _is_below(renamed, unused) or (name.rpartition(".")[2] == _AVERAGED and tensor.dim() == 0):
            left_out.append(name)
        else:
            extra.append(name)
    for tied in _tied(own):
        given = next((names[name] for name in tied if name in names), None)
        if given is not None:
            names |= {name: given for name in tied if name not in names}
    missing = [name for name in own if name not in names and name.rpartition(".")[2] != _BATCHES]
    misshapen = [
        name for name in names if not is_lazy(own[name]) and own[name].shape != found.tensors[names[name]].shape
    ]
    return Fit(found, names, (theirs, ours), missing, extra, left_out, misshapen)


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _tied(own: Mapping[str, Tensor]) -> list[list[str]]:
    """Groups of names whose tensors are the same memory."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in own.items():
        if not is_lazy(tensor) and tensor.numel():
            groups.setdefault((tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def contradictions(fit: Fit, own: Mapping[str, Tensor]) -> list[str]:
    """Names that are the same memory in the network, and of which the state dict has different values."""
    return [
        name
        for tied in _tied(own)
        for name in tied[1:]
        if not fit.found.tensors[fit.names[name]].equal(fit.found.tensors[fit.names[tied[0]]])
    ]
