"""Errors that are shown to the user as a single sentence, each with the exit status of its kind."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

Phase = Literal["load", "evidence", "fit", "score", "evaluate"]
"""The phases of a cell, in any of which it can fail: load the detector, gather its evidence, fit, score, evaluate."""

MORE_MEMORY = "use a machine with more, or fewer processes on this one."

# Longest message that is shown, in characters; the rest is cut off.
LONGEST = 2000


class Stop(BaseException):
    """Raised inside a plugin to end it; not an Exception, so that ``except Exception`` in the plugin lets it pass."""


# Exceptions that reach a plugin from outside. They are not its failure; any other exception is.
FROM_OUTSIDE = (Stop, KeyboardInterrupt)


def one_line(error: BaseException) -> str:
    """The message of an exception as a single printable line, safe for any terminal and file."""
    try:
        text = " ".join(str(error).split())
    except FROM_OUTSIDE:
        raise
    except BaseException:  # a plugin's own exception class may fail in __str__
        return "(it cannot be printed)"
    shown = printable(text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def printable(text: str, keep: str = "") -> str:
    """The text with unprintable characters replaced, such as control characters, direction marks and surrogates.

    Args:
        text: Text of a plugin or a file.
        keep: Characters that may stay, such as a line feed.
    """
    return "".join(
        character if character.isprintable() or character in keep else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def listed(items: Sequence[str], most: int = 10, separator: str = ", ") -> str:
    """The first items, and how many more there are.

    Args:
        items: The items.
        most: How many are named.
        separator: Text between them.
    """
    more = len(items) - most
    return separator.join([*items[:most], *([f"and {more:,} more"] if more > 0 else [])])


def described(error: BaseException) -> str:
    """The exception's type and message: ``ValueError: no luck``."""
    said = one_line(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def is_exhausted(error: BaseException) -> bool:
    """Whether an exception means out of memory, on the CPU or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    # Torch has no exception type for this on the CPU, and raises a subclass of RuntimeError on a GPU.
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory", "could not create a primitive")
    )


@contextmanager
def blaming(who: str) -> Iterator[None]:
    """Turn exceptions of a plugin, inside the context, into a sentence: "the classifier cnn raised ValueError".

    Args:
        who: The beginning of the sentence.

    Raises:
        UsageError: The plugin raised something other than an OodbenchError.
        OodbenchError: The memory does not suffice.
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
    """A mistake or a failure that the user is told in a single sentence, without traceback."""

    exit_status = 1


class UsageError(OodbenchError):
    """The request of the user is invalid: an unknown name, a broken file, a data leak."""

    exit_status = 2


class UnusableNameError(UsageError):
    """A plugin name that cannot be used: it is malformed, or several plugins have it."""


class LeakError(UsageError):
    """A detector would be tested on samples that it or the classifier was fitted on."""


class MissingPrerequisiteError(OodbenchError):
    """Missing data, a missing plugin or a missing optional package."""

    exit_status = 3


class CellSkippedError(Exception):
    """Raised by a detector that cannot work on these samples or this classifier; its cell is skipped."""
