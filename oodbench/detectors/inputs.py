"""Whose scores a meta classifier works on."""

from collections.abc import Sequence

from oodbench.detectors.selection import Broken, Chosen, choose
from oodbench.errors import OodbenchError, UsageError


def input_detectors(name: str, specs: Sequence[str]) -> list[Chosen]:
    """The detectors meant by names, globs and specs such as ``knn:k=10;normalize=false``.

    Of what a glob matches, meta classifiers of other detectors' scores are left out.

    Args:
        name: The meta classifier.
        specs: Its parameter ``inputs``; ``;`` parts parameters, where ``,`` parts those of the meta classifier.

    Raises:
        UsageError: One is unknown, or is such a meta classifier itself.
        OodbenchError: One cannot be loaded.
    """
    found: dict[str, Chosen] = {}
    for spec in specs:
        for one in choose([spec.replace(";", ",")]):
            if isinstance(one, Broken):
                raise OodbenchError(f"its input {one.name} cannot be loaded: {one.failure.error}")
            if "scores" not in one.plugin.needs:
                found.setdefault(one.key, one)
            elif not any(character in spec for character in "*?["):
                raise UsageError(f"the input {one.name!r} of {name!r} works on scores itself; name its inputs instead.")
    if not found:
        raise UsageError(f"{name!r} has no inputs; name some detectors, such as inputs=entropy+energy.")
    return list(found.values())
