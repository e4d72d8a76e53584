"""Run a program with the session in its environment.

Sets CELLS_SITE, CELLS_ACCESS_TOKEN, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL_S3 and AWS_REGION, and mends what other AWS credentials have
left in their way. Ends with the program's own exit code, with 127 when there
is no such program, with 126 when it cannot be run. The token is as fresh as at
the start: for work that outlasts it use `s3 setup`.

examples:
  cells-loopback exec -- aws s3 ls s3://io
  cells-loopback exec -- ./nightly-report.sh
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING

from cells_loopback.errors import CellsLoopbackError, UsageError
from cells_loopback.process.core_dumps import restore_core_dumps

if TYPE_CHECKING:
    from cells_loopback.session.session import Session

NOT_FOUND = 127
NOT_EXECUTABLE = 126


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.usage = "cells-loopback exec [options] -- CMD ..."
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD ...", help="the program to run")


def run(args: argparse.Namespace) -> int:
    """Replace this process by the program; on Windows run it and wait."""
    from cells_loopback.session.session import Session

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("no program is given", hint="put it behind --: cells-loopback exec -- aws s3 ls")
    session = Session.load(args.profile, config_dir=args.config_dir)
    variables = session_environment(session)
    program = shutil.which(command[0])
    if program is None and not os.path.dirname(command[0]):
        args.console.error(_failure(f"there is no program {command[0]!r} on the PATH"))
        return NOT_FOUND
    program = program or command[0]
    try:
        if sys.platform == "win32":
            return run_and_wait([program, *command[1:]], variables)
        restore_signals()
        restore_core_dumps(args.core_limit)
        os.execve(program, command, variables)
    except OSError as error:
        args.console.error(_failure(f"cannot run {program}: {error.strerror}"))
        return NOT_EXECUTABLE if os.path.exists(program) else NOT_FOUND


def session_environment(session: Session) -> dict[str, str]:
    """Return this process's environment with the session in it."""
    from cells_loopback.integrations.s3_environment import clear_the_way, environment

    changes = clear_the_way(os.environ, os.path.expanduser("~"))
    variables = {**os.environ, **environment(session.site, session.access_token()), **changes}
    return {name: value for name, value in variables.items() if value is not None}


def run_and_wait(command: list[str], variables: dict[str, str]) -> int:
    """Run a program to its end, for Windows, where no process can become another one.

    Ctrl-C reaches the program through the console and is its own affair.
    """
    import signal
    import subprocess

    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    code = subprocess.run(command, env=variables, check=False).returncode
    return code - 2**32 if code >= 2**31 else code  # of a crash, as `os._exit` takes it


def _failure(message: str) -> CellsLoopbackError:
    return CellsLoopbackError(
        message, hint="give a program as a shell would find it: cells-loopback exec -- aws s3 ls"
    )


def restore_signals() -> None:
    """Give the program the signals as a shell would: Python ignores SIGPIPE, an exec keeps that."""
    import signal

    for name in ("SIGPIPE", "SIGXFSZ"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_DFL)
