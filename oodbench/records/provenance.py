"""The software and machine that a record was made with."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from oodbench.records.record import NUMERICAL, Provenance

PACKAGES = ("oodbench", "pytorch-ood", *NUMERICAL)


def provenance(engine: str, plugins: Mapping[str, str]) -> Provenance:
    """The provenance of a record: versions, plugins, commit, platform and the current time.

    Args:
        engine: Version of the engine of gradient metrics.
        plugins: Distribution and version of each plugin that took part, by kind and name.
    """
    return Provenance(
        versions=versions(),
        plugins=dict(plugins),
        engine=engine,
        git=_git(),
        platform=platform.platform(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
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
