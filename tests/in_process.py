"""Commands in this process, for tests of what they print: a process of its own costs seconds of imports each."""

import contextlib
import io
import signal
from types import SimpleNamespace

from oodbench.cli import run_command_line


def command_line(*arguments, cwd="."):
    """What ``subprocess.run`` says of a command: returncode, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGINT)
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_command_line([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code or 0
        finally:
            signal.signal(signal.SIGINT, before)
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())
