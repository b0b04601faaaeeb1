"""Writes an installable package with one small plugin that works, its test and its README."""

import builtins
import keyword
import os
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

from oodbench import registry
from oodbench.errors import UsageError
from oodbench.files.atomic import check_folder

Kind = Literal["detector", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What there are templates for."""

_REGISTERED_AS: dict[Kind, registry.Kind] = {"detector": "detectors", "dataset": "datasets"}
TEMPLATES = Path(__file__).with_name("templates")
# Names that the templates give to something else.
_TAKEN = {"np", "oodbench"}
_FILES = {
    "README.md": "{kind}/README.md.jinja",
    "pyproject.toml": "common/pyproject.toml.jinja",
    "{module}/__init__.py": "{kind}/plugin.py.jinja",
    "tests/test_conformance.py": "common/test_conformance.py.jinja",
}
_FILES_OF_KIND: dict[Kind, dict[str, str]] = {"detector": {}, "dataset": {"suite.toml": "dataset/suite.toml.jinja"}}


def make_package(kind: Kind, name: str, into: Path) -> list[Path]:
    """Make the folder ``oodbench-NAME``, whole or not at all.

    Args:
        kind: What the plugin is.
        name: Its name, as users will type it.
        into: The folder that the new one is made in.

    Returns:
        The files of the package.

    Raises:
        UsageError: The name cannot be used, the folder is there already, or it cannot be written.
    """
    check_name(kind, name)
    target = into / f"oodbench-{name}"
    if os.path.lexists(target):
        raise UsageError(f"{target} is there already, and nothing is overwritten; choose another name or --into.")
    check_folder(into, "the folder", "--into")
    files = _rendered(kind, name)
    try:
        with tempfile.TemporaryDirectory(dir=into, prefix=".") as temporary:
            made = Path(temporary) / target.name
            for path, text in files.items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).write_text(text, encoding="utf-8")
            made.rename(target)
    except OSError as cause:
        raise UsageError(f"{target} cannot be written: {cause.strerror}; choose another --into.") from cause
    return [target / path for path in files]


def check_name(kind: Kind, name: str) -> None:
    """Refuse a name that could not be typed, imported or told from another plugin's.

    Raises:
        UsageError: Says why.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(
            f"{name!r} cannot name a plugin; expected lower-case letters, digits and single hyphens, beginning with a "
            "letter, such as my-margin."
        )
    if keyword.iskeyword(name) or name in dir(builtins) or name in _TAKEN:
        raise UsageError(f"{name!r} has a meaning of its own in the Python module to be made; choose another name.")
    taken = registry.entries(_REGISTERED_AS[kind]).get(name)
    if taken is not None:
        raise UsageError(f"the {kind} name {name!r} is taken by {taken.distribution}; choose another name.")


def _rendered(kind: Kind, name: str) -> dict[str, str]:
    """The text of each file of the package by its path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    function = name.replace("-", "_")
    values = {
        "kind": kind,
        "name": name,
        "function": function,
        "module": f"oodbench_{function}",
        "oodbench_version": version("oodbench"),
    }
    return {
        path.format(**values): templates.get_template(template.format(**values)).render(values)
        for path, template in sorted((_FILES | _FILES_OF_KIND[kind]).items())
    }
