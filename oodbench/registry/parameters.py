"""Parses specs that users type, such as ``grad-l2:layer=conv1``, to a name and typed parameters."""

import inspect
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from oodbench.errors import UsageError


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split ``name:key=value,key=value`` into the name and the texts of its parameters.

    Text without ``=`` is the parameter ``path``: ``imagefolder:/my/images``.

    Raises:
        UsageError: A parameter is given twice.
    """
    name, _, rest = spec.partition(":")
    values: dict[str, str] = {}
    if rest and "=" not in rest.partition(",")[0]:
        return name, {"path": rest}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        if key in values:
            raise UsageError(f"{spec!r} gives the parameter {key!r} twice.")
        values[key] = value
    return name, values


def defaults(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a plugin: those of the constructor of a class, or the keyword-only ones of a function."""
    parameters = inspect.signature(function).parameters
    keyword, either = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    kinds = (keyword, either) if inspect.isclass(function) else (keyword,)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in kinds}


def resolve_parameters(plugin: str, function: Callable[..., Any], given: Mapping[str, object]) -> dict[str, Any]:
    """All parameters of a plugin with their values: those given, converted to their annotated types, else defaults.

    Args:
        plugin: Name of the plugin, for messages.
        function: The function or class with the parameters.
        given: Values or texts by parameter.

    Raises:
        UsageError: A parameter is unknown, missing, or cannot be converted.
    """
    offered = defaults(function)
    unknown = [name for name in given if name not in offered]
    if unknown:
        expected = ", ".join(offered) or "none"
        hint = ""
        if "path" in offered and "path" not in given:
            hint = f" (a path that has '=' in it is written {plugin}:path={unknown[0]}={given[unknown[0]]})"
        raise UsageError(f"{plugin!r} has no parameter {unknown[0]!r}; expected one of: {expected}{hint}.")
    values: dict[str, Any] = {}
    for name, parameter in offered.items():
        if name in given:
            values[name] = _convert(plugin, name, annotation_of(function, parameter), given[name])
        elif parameter.default is not inspect.Parameter.empty:
            values[name] = parameter.default
        else:
            raise UsageError(f"{plugin!r} needs the parameter {name!r}.")
    return values


def annotation_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:  # noqa: ANN401
    """The type of a parameter; Any if it has no annotation, or an annotation that only type checkers can resolve."""
    if parameter.annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    # By itself: the annotation of another parameter may be resolvable by type checkers only.
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = get_type_hints(alone, vars(sys.modules[function.__module__]), include_extras=True)
    except NameError:
        return Any
    return hints[parameter.name]


def _convert(plugin: str, name: str, annotation: Any, value: object) -> Any:  # noqa: ANN401
    adapter = TypeAdapter(annotation)
    try:
        if not isinstance(value, str):
            return adapter.validate_python(value)
        # Lists are typed as `0+1+2`, since commas separate parameters.
        if any(get_origin(kind) in (tuple, list) for kind in (annotation, *get_args(annotation))):
            return adapter.validate_python(value.split("+"))
        return adapter.validate_strings(value)
    except ValidationError as cause:
        raise UsageError(
            f"the parameter {name!r} of {plugin!r} is {value!r}: {cause.errors()[0]['msg'].lower()}."
        ) from cause
