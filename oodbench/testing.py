"""Runs every check of the conformance kit as a test of its own, in the tests of plugin packages.

from oodbench.testing import parametrize_with_checks

@parametrize_with_checks([my_detector])
def test_conformance(plugin, check):
    check(plugin)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest

from oodbench.conformance.check import Check, NotApplicableError
from oodbench.conformance.kit import CheckedPlugin, checked_plugin, checks_of
from oodbench.errors import CellSkippedError, one_line
from oodbench.machine.threads import single_threaded

__all__ = ["parametrize_with_checks"]


@dataclass
class _Plugin:
    """A plugin, loaded once for all its checks."""

    plugin: Any
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.plugin if isinstance(self.plugin, str) else self.plugin.name

    @cached_property
    def checked(self) -> CheckedPlugin:
        return checked_plugin(self.plugin)


@dataclass(frozen=True)
class _Runner:
    """A check that is called with a plugin."""

    check: Check

    def __call__(self, plugin: _Plugin) -> None:
        """Fail the test where the promise is broken; skip it where the check does not apply."""
        try:
            with single_threaded():
                self.check.function(plugin.checked)
        except (NotApplicableError, CellSkippedError) as reason:
            pytest.skip(one_line(reason))


def parametrize_with_checks(plugins: Sequence[object]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run a test ``(plugin, check)`` for each plugin and check.

    Args:
        plugins: Detectors and data sets: what their decorators returned, or registered names with parameters.
    """
    held_plugins = [_Plugin(plugin) for plugin in plugins]
    cases = [
        pytest.param(held_plugin, _Runner(check), id=f"{held_plugin.name}: {check.name}")
        for held_plugin in held_plugins
        for check in checks_of(held_plugin.checked)
    ]
    return pytest.mark.parametrize(("plugin", "check"), cases)
