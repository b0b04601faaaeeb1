"""For the tests of plugin packages: every check of the conformance kit as a test of its own.

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
from oodbench.conformance.kit import Subject, checks_of, subject_of
from oodbench.errors import CellSkippedError, one_line
from oodbench.threads import single_threaded

__all__ = ["parametrize_with_checks"]


@dataclass
class _Plugin:
    """A plugin and what all its checks share."""

    plugin: Any
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.plugin if isinstance(self.plugin, str) else self.plugin.name

    @cached_property
    def subject(self) -> Subject:
        return subject_of(self.plugin)


@dataclass(frozen=True)
class _Runner:
    """A check that is called with a plugin."""

    check: Check

    def __call__(self, plugin: _Plugin) -> None:
        """Fail the test where the promise is broken; skip it where the check does not apply."""
        try:
            with single_threaded():
                self.check.function(plugin.subject)
        except (NotApplicableError, CellSkippedError) as reason:
            pytest.skip(one_line(reason))


def parametrize_with_checks(plugins: Sequence[object]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run a test ``(plugin, check)`` for each plugin and check.

    Args:
        plugins: Detectors and data sets: what their decorators returned, or registered names with parameters.
    """
    held = [_Plugin(plugin) for plugin in plugins]
    cases = [
        pytest.param(one, _Runner(check), id=f"{one.name}: {check.name}")
        for one in held
        for check in checks_of(one.subject)
    ]
    return pytest.mark.parametrize(("plugin", "check"), cases)
