"""The command line: global options before or after the command, an error to two lines and an exit code.

Only the module of the chosen command is imported. A command is a file of this package with two
functions: ``configure(parser)`` adds its options, ``run(args)`` does it and returns the exit code.
Its summary is the first line of its docstring.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys

from cells_loopback import __version__
from cells_loopback.cli.arguments import complete_profiles
from cells_loopback.cli.console import Console, write_out
from cells_loopback.errors import CellsLoopbackError, UsageError
from cells_loopback.process.core_dumps import forbid_core_dumps
from cells_loopback.process.termination import terminate_on_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any, NoReturn

    from _typeshed import SupportsWrite

    from cells_loopback.early_browser import EarlyBrowser
    from cells_loopback.store.lock import FileLock

COMMANDS = (
    "login",
    "token",
    "exec",
    "api",
    "s3",
    "whoami",
    "status",
    "list",
    "use",
    "logout",
    "keepalive",
    "doctor",
    "demo",
    "completion",
)
"""The commands in the order in which ``--help`` tells of them."""

INTERRUPTED = 130
_WIDTH = 80
_VALUE_OPTION = re.compile(r"-[qv]*p|--profile|--config-dir")  # -vp NAME is -v -p NAME

_DESCRIPTION = "Log in to a Pydio Cells server once; from then on every tool has a valid token."
_EPILOG = """\
examples:
  cells-loopback login files.example.com      log in, in the browser
  cells-loopback token                        print a valid access token
  cells-loopback api /a/frontend/state        call the REST API
  cells-loopback exec -- aws s3 ls s3://io    run a program with the session
  cells-loopback demo                         try all of it, no server needed

`cells-loopback COMMAND --help` tells more about a command.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are our errors, and whose help looks the same on every Python."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.color = False  # since Python 3.14 help is coloured, whatever is said by `--no-color`

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` in place of printing the usage and exiting."""
        raise UsageError(message, hint=f"see {self.prog} --help")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        # What `--help` and `--version` print is a result like any other: argparse is content when stdout
        # does not take it, and its buffer would not outlive `os._exit`.
        if file is None or file is not sys.stdout:
            super()._print_message(message, file)
        else:
            write_out(lambda stdout: stdout.write(message))


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that fits a terminal of 80 columns."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 0
        # A terminal that was never told its size says 0, too.
        super().__init__(prog, max_help_position=26, width=min(_WIDTH, columns or _WIDTH) - 1)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # `-p, --profile NAME`, as Python 3.13 writes it, on every Python.
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def add_global_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes."""
    group = parser.add_argument_group("global options")
    profile = group.add_argument("-p", "--profile", metavar="NAME", help="the profile to use")
    profile.completer = complete_profiles  # type: ignore[attr-defined]  # argcomplete's documented hook
    group.add_argument("--config-dir", metavar="DIR", help="where sessions are kept")
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv for a traceback")
    group.add_argument("-q", "--quiet", action="store_true", help="say only warnings and errors")
    group.add_argument("--no-color", action="store_true", help="no colours (also: NO_COLOR)")
    group.add_argument("--version", action="version", version=f"cells-loopback {__version__}")
    group.add_argument("-h", "--help", action="help", help="show this help")


def make_parser(command: str) -> Parser:
    """Return the parser of one command."""
    module = import_command(command)
    summary, _, description = (module.__doc__ or "").partition("\n\n")
    text, _, examples = description.partition("examples:\n")
    parser = Parser(
        prog=f"cells-loopback {command}",
        description=f"{summary}\n\n{text}".strip(),
        epilog="examples:\n" + examples.rstrip() if examples else None,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    module.configure(parser)
    add_global_options(parser)
    parser.set_defaults(run=module.run)
    return parser


def make_overview(*, with_commands: bool = False) -> Parser:
    """Return the parser of ``cells-loopback --help``; with all commands' options for completion."""
    parser = Parser(
        prog="cells-loopback",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
        add_help=False,
        allow_abbrev=False,
        usage=None if with_commands else "cells-loopback [options] COMMAND ...",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in COMMANDS:
        module = import_command(name)
        summary = (module.__doc__ or "").partition("\n")[0].rstrip(".")
        summary = summary[:1].lower() + summary[1:]
        command = commands.add_parser(name, help=summary, add_help=False)
        if with_commands:
            module.configure(command)
            add_global_options(command)
    add_global_options(parser)
    return parser


def import_command(name: str) -> ModuleType:
    """Import the module of one command."""
    return importlib.import_module(f"cells_loopback.cli.{name}")


def split_command(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take the command's name out of the arguments: the first word that is no global option's value."""
    skip = False
    for index, argument in enumerate(arguments):
        if skip:
            skip = False
        elif _VALUE_OPTION.fullmatch(argument):
            skip = True
        elif argument == "--":
            break
        elif not argument.startswith("-") or argument == "-":
            return argument, [*arguments[:index], *arguments[index + 1 :]]
    return None, [*arguments]  # in this package `list` is a command


def main(arguments: Sequence[str], lock: FileLock | None = None, early: EarlyBrowser | None = None) -> int:
    """Run one command and return its exit code.

    ``lock`` is the profile's lock if the caller holds it, ``early`` the browser of a login if it is open.
    """
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(make_overview(with_commands=True))
    console = Console(verbose=_count_verbose(arguments), no_color="--no-color" in arguments)
    try:
        terminate_on_signals()
        args = _parse(arguments)
        console = Console(verbose=args.verbose, quiet=args.quiet, no_color=args.no_color)
        _start_logging(console)
        args.console, args.lock, args.early = console, lock, early
        args.core_limit = forbid_core_dumps()
        code: int = args.run(args)
    except CellsLoopbackError as error:
        _show_traceback(console)
        console.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:  # --help, --version, or a signal
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # nobody reads stdout any more
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: a defect of ours
        _show_traceback(console)
        console.error(defect(error))
        return CellsLoopbackError.exit_code
    return code


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    command, rest = split_command(arguments)
    if command is None:
        overview = make_overview()
        overview.parse_args(rest)  # --help and --version end here
        overview.print_help(sys.stderr)
        raise UsageError("no command is given", hint="start with: cells-loopback login SITE")
    if command not in COMMANDS:
        raise _unknown_command(command)
    try:
        parser = make_parser(command)
        # Elsewhere options may stand between two words; what follows `exec` is not ours to read.
        return parser.parse_args(rest) if command == "exec" else parser.parse_intermixed_args(rest)
    except UsageError as error:
        if command == "login" and "--json" in rest:  # who reads the events waits for the last one
            from cells_loopback.cli.narration import EventPrinter

            EventPrinter(Console()).end_with(error)
        raise


def _unknown_command(command: str) -> UsageError:
    import difflib

    near = difflib.get_close_matches(command, COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else "see cells-loopback --help"
    return UsageError(f"there is no command {command[:40]!r}", hint=hint)


def _count_verbose(arguments: Sequence[str]) -> int:
    return sum({"-v": 1, "--verbose": 1, "-vv": 2, "-vvv": 3}.get(argument, 0) for argument in arguments)


def _start_logging(console: Console) -> None:
    if not console.verbose:
        return
    import logging

    class ToConsole(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.detail(f"{record.name}: {record.getMessage()}")

    logger = logging.getLogger("cells_loopback")
    logger.addHandler(ToConsole())
    logger.setLevel(logging.DEBUG if console.verbose > 1 else logging.INFO)


def _show_traceback(console: Console) -> None:
    if console.verbose > 1:
        import traceback

        for line in traceback.format_exc().rstrip().splitlines():
            console.detail(line)


def defect(error: Exception) -> CellsLoopbackError:
    """Return what the person is told of an error that nobody foresaw: its kind alone, no word of its own."""
    return CellsLoopbackError(
        f"unexpected {type(error).__name__}: this is a defect of cells-loopback",
        hint="run the same with -vv and report what it prints",
    )
