"""Errors that end in one sentence for the user, each with the exit status of its kind."""


def one_line(error: BaseException) -> str:
    """What an exception says, as one line also where a plugin wrote several."""
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


class OodbenchError(Exception):
    """A mistake or a failure that is told in one sentence, without traceback."""

    exit_status = 1


class UsageError(OodbenchError):
    """What the user asked for cannot be meant: an unknown name, a broken file, a leak."""

    exit_status = 2


class AmbiguousNameError(UsageError):
    """A name that several packages provide."""


class LeakError(UsageError):
    """Samples that a detector or the classifier was fitted on would be tested on."""


class MissingPrerequisiteError(OodbenchError):
    """Data, a plugin or an optional package that has to be there first is not."""

    exit_status = 3


class CellSkippedError(Exception):
    """Raised by a detector that cannot work on what it is given, with the reason; its cell is then skipped."""
