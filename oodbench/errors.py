"""Errors that end in one sentence for the user, each with the exit status of its kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from oodbench.memory import is_exhausted

Phase = Literal["load", "evidence", "fit", "score", "evaluate"]
"""Where a cell can fail: its detector is loaded, what it needs is gathered, it learns, scores, and is evaluated."""

MORE_MEMORY = "use a machine with more, or fewer processes on this one."

# Characters of a message that anybody will read.
LONGEST = 2000


class Stop(BaseException):
    """Raised inside a plugin to end it; no Exception, so that its own handlers let it pass."""


# What is raised from outside a plugin, and is no failure of it. Whatever else comes out of one is.
FROM_OUTSIDE = (Stop, KeyboardInterrupt)


def one_line(error: BaseException) -> str:
    """What an exception says, as one line that any terminal and file can take, whatever a plugin wrote."""
    try:
        text = " ".join(str(error).split())
    except FROM_OUTSIDE:
        raise
    except BaseException:  # an exception of a plugin's may do anything when it is printed
        return "(it cannot be printed)"
    shown = printable(text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def printable(text: str, keep: str = "") -> str:
    """The text without what moves a terminal's cursor, turns the direction of writing, or is no character.

    Args:
        text: Whatever a plugin or a file said.
        keep: Characters that may stay, such as a line feed.
    """
    return "".join(
        character if character.isprintable() or character in keep else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def described(error: BaseException) -> str:
    """The exception's type and what it says: ``ValueError: no luck``."""
    said = one_line(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def blaming(who: str) -> Iterator[None]:
    """Inside, whatever a plugin raises becomes a sentence about it, such as: the classifier cnn raised ValueError.

    Args:
        who: The beginning of the sentence.

    Raises:
        UsageError: It raised something that is no sentence of ours yet.
        OodbenchError: There is no more memory, for which nobody is to blame.
    """
    try:
        yield
    except (OodbenchError, *FROM_OUTSIDE):
        raise
    except BaseException as cause:
        if is_exhausted(cause):
            raise OodbenchError(
                f"{who} raised {described(cause)}: the memory does not suffice; {MORE_MEMORY}"
            ) from cause
        raise UsageError(f"{who} raised {described(cause)}.") from cause


class OodbenchError(Exception):
    """A mistake or a failure that is told in one sentence, without traceback."""

    exit_status = 1


class UsageError(OodbenchError):
    """What the user asked for cannot be meant: an unknown name, a broken file, a leak."""

    exit_status = 2


class UnusableNameError(UsageError):
    """A name that nothing can be loaded by: it is no name, or several plugins have it."""


class LeakError(UsageError):
    """Samples that a detector or the classifier was fitted on would be tested on."""


class MissingPrerequisiteError(OodbenchError):
    """Data, a plugin or an optional package that has to be there first is not."""

    exit_status = 3


class CellSkippedError(Exception):
    """Raised by a detector that cannot work on what it is given, with the reason; its cell is then skipped."""
