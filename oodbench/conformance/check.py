"""Checks and their results."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from oodbench.errors import FROM_OUTSIDE, CellSkippedError, OodbenchError, described, one_line


class NonconformityError(AssertionError):
    """A plugin breaks a promise; the message says what it does and what is expected."""


class NotApplicableError(Exception):
    """A check does not apply to this plugin; the message says why."""


@dataclass(frozen=True)
class Check:
    """A check of something that plugins promise.

    Attributes:
        name: What is promised.
        function: Raises ``NonconformityError`` where the promise is broken.
    """

    name: str
    function: Callable[[Any], None]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class CheckResult:
    """The result of a check; ``reason`` is empty if it passed."""

    check: str
    status: Literal["passed", "failed", "skipped"]
    reason: str = ""


def run_checks(plugin: Any, checks: list[Check]) -> Iterator[CheckResult]:  # noqa: ANN401
    """Run all checks, one after the other."""
    for check in checks:
        try:
            check.function(plugin)
        except (NonconformityError, OodbenchError) as broken:
            yield CheckResult(check.name, "failed", one_line(broken))
        except (NotApplicableError, CellSkippedError) as reason:
            yield CheckResult(check.name, "skipped", one_line(reason))
        except FROM_OUTSIDE:
            raise
        except BaseException as error:
            yield CheckResult(check.name, "failed", f"it raised {described(error)}")
        else:
            yield CheckResult(check.name, "passed")


def promise(name: str, checks: list[Check]) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Add a function to a list of checks."""

    def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
        checks.append(Check(name, function))
        return function

    return add
