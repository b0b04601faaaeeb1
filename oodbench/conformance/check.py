"""What a check is, and what comes of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from oodbench.errors import FROM_OUTSIDE, CellSkippedError, OodbenchError, described, one_line


class NonconformityError(AssertionError):
    """A plugin does what it must not; the sentence says what, and what is expected."""


class NotApplicableError(Exception):
    """A check says nothing about this plugin, for the reason given."""


@dataclass(frozen=True)
class Check:
    """One thing that plugins promise.

    Attributes:
        name: What is promised.
        function: Raises ``NonconformityError`` where the promise is broken.
    """

    name: str
    function: Callable[[Any], None]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Outcome:
    """What came of a check, with the reason unless it passed."""

    check: str
    status: Literal["passed", "failed", "skipped"]
    reason: str = ""


def outcomes(subject: Any, checks: list[Check]) -> Iterator[Outcome]:  # noqa: ANN401
    """Run all checks, one after the other."""
    for check in checks:
        try:
            check.function(subject)
        except (NonconformityError, OodbenchError) as broken:
            yield Outcome(check.name, "failed", one_line(broken))
        except (NotApplicableError, CellSkippedError) as reason:
            yield Outcome(check.name, "skipped", one_line(reason))
        except FROM_OUTSIDE:
            raise
        except BaseException as error:
            yield Outcome(check.name, "failed", f"it raised {described(error)}")
        else:
            yield Outcome(check.name, "passed")


def promise(name: str, checks: list[Check]) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Add a function to a list of checks."""

    def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
        checks.append(Check(name, function))
        return function

    return add
