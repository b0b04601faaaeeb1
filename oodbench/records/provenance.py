"""What a record was made with."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from oodbench import registry
from oodbench.records.record import NUMERICAL, Provenance

PACKAGES = ("oodbench", "pytorch-ood", *NUMERICAL)


def provenance(engine: str, plugins: Sequence[tuple[registry.Kind, str]]) -> Provenance:
    """Versions, plugins, commit, platform, and the time that it is now.

    Args:
        engine: What decides the last bits of gradient metrics.
        plugins: Those that took part, by kind and name; what is no plugin, such as a suite file, is left out.
    """
    used = [(kind, registry.find(kind, name)) for kind, name in plugins]
    return Provenance(
        versions=versions(),
        plugins={f"{kind}/{one.name}": f"{one.distribution} {one.version}".strip() for kind, one in used if one},
        engine=engine,
        git=_git(),
        platform=platform.platform(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    return {"python": sys.version.partition(" ")[0]} | {package: version(package) for package in PACKAGES}


@cache
def _git() -> str | None:
    """The last commit of this code if it runs from a checkout, with ``-dirty`` where it was changed since."""
    here = Path(__file__).parents[1]
    commit = _ask_git("-C", str(here), "log", "-1", "--format=%h", "--", ".")
    changed = _ask_git("-C", str(here), "status", "--porcelain", "--", ".")
    return f"{commit}{'-dirty' if changed else ''}" if commit else None


def _ask_git(*arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
