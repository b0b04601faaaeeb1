"""The command line: one file a verb, loaded when it is called."""

import atexit
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from keyword import iskeyword
from types import FrameType
from typing import NoReturn, TextIO

import click

from oodbench.cli.output import safe_stdout
from oodbench.errors import MORE_MEMORY, OodbenchError, is_exhausted, one_line
from oodbench.machine.waiting import with_short_waits

VERBS = {
    "run": "Run detectors on a suite and print a table for each protocol.",
    "plan": "Print a plan that workers share.",
    "worker": "Do a share of a plan.",
    "status": "Say how far a run has come.",
    "list": "List the plugins of a kind.",
    "info": "Say what a plugin is; of a data set, draw a contact sheet.",
    "new": "Make a plugin package to start from.",
    "check": "Check that a detector or data set keeps its promises.",
    "data": "Say which data sets of a suite are there, and get them.",
    "leaderboard": "Make boards from records, and check them.",
    "compare": "Compare two detectors on the same samples.",
    "import": "Make records of scores that were computed elsewhere.",
    "plot": "Draw ROC curves, scores, layers or the exposed × tested matrix.",
    "cache": "Look after trained weights and evidence.",
    "bench": "Measure what evidence costs on this machine.",
}


# Between two searches for garbage in circles; a tenth as many by default, which takes a tenth of a short run's time.
NEW_OBJECTS = 10_000
INTERRUPTED = "oodbench: interrupted; the records of finished cells are kept."


class _LazyGroup(click.Group):
    """Imports a verb's module when the verb is called, so that --help stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(import_module(f"oodbench.cli.{module}"), "command")  # noqa: B009
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


HELP = """Which out-of-distribution detector to trust, on which unknowns, and how surely.

\b
oodbench run --detector grad-combo     a table of results, without network or data
oodbench list detectors                what there is
"""


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, help=HELP)
@click.version_option(package_name="oodbench")
def cli() -> None:
    """All verbs."""


def main() -> NoReturn:
    """Entry point of the command ``oodbench``; the process ends with its verb, whatever plugins leave behind.

    Exit handlers run, but what they print goes to stderr; threads are not waited for.
    """
    os.environ.update(with_short_waits(os.environ))
    gc.set_threshold(NEW_OBJECTS)
    try:
        run_command_line()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    _flush(sys.stdout)
    with suppress(OSError):  # one of them is closed
        os.dup2(2, 1)
    atexit._run_exitfuncs()
    _flush(sys.stderr)
    os._exit(status)


def _flush(stream: TextIO | None) -> None:
    with suppress(OSError, ValueError):  # it is full, or closed
        if stream is not None:
            stream.flush()


def run_command_line(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; a user's mistake ends in one sentence and the exit status of its kind."""
    logging.basicConfig(format="oodbench: %(message)s")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        with safe_stdout():
            status = cli.main(args=arguments, prog_name="oodbench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(INTERRUPTED, err=True)
        sys.exit(130)
    except OodbenchError as error:
        click.echo(f"oodbench: {one_line(error)}", err=True)
        sys.exit(error.exit_status)
    except Exception as error:
        if not is_exhausted(error):
            raise
        click.echo(f"oodbench: the memory does not suffice; {MORE_MEMORY} What was finished is kept.", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt, so that files are finished or removed first; a second interrupt ends at once."""
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)
