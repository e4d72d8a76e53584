"""What the commands say, and where: results to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import os
import sys

from cells_loopback.errors import CellsLoopbackError
from cells_loopback.process.terminal import safe
from cells_loopback.process.windows import draws_colors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

_RED, _YELLOW, _BOLD, _PLAIN = "\x1b[31;1m", "\x1b[33;1m", "\x1b[1m", "\x1b[0m"


class Console:
    """The two streams of one command. Text from outside is made safe for a terminal on its way."""

    def __init__(self, *, verbose: int = 0, quiet: bool = False, no_color: bool = False) -> None:
        self.verbose = verbose
        self.quiet = quiet
        self._no_color = no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"

    def result(self, text: str) -> None:
        """Write a line to stdout and flush it.

        ``BrokenPipeError`` when nobody reads any more; a result that otherwise cannot be written is no
        success: `CellsLoopbackError`.
        """
        write_out(lambda stdout: _write_line(stdout, text))

    def raw_result(self, data: bytes) -> None:
        """Write bytes to stdout as they are; raises what `result` does."""
        write_out(lambda stdout: stdout.buffer.write(data))

    def info(self, text: str) -> None:
        """Tell the person about progress, unless ``--quiet``."""
        if not self.quiet:
            self._say(safe(text))

    def detail(self, text: str) -> None:
        """Tell what only ``--verbose`` asks for."""
        if self.verbose:
            self._say(safe(text))

    def warn(self, text: str) -> None:
        """Warn the person, also with ``--quiet``."""
        self._say(self.paint("warning:", _YELLOW) + " " + safe(text))

    def error(self, error: CellsLoopbackError) -> None:
        """Show an error as its two lines."""
        self._say(self.paint("error:", _RED) + " " + safe(error.message))
        if error.hint:
            self._say(self.paint("hint:", _BOLD) + " " + safe(error.hint))

    def show(self, text: str) -> None:
        """Show what the person has to act on, as it is and also with ``--quiet``."""
        self._say(text)

    def paint(self, text: str, color: str) -> str:
        """Colour ``text`` where stderr is a terminal that may show it."""
        if self._no_color or not is_terminal(sys.stderr) or not draws_colors(2):
            return text
        return color + text + _PLAIN

    def _say(self, line: str) -> None:
        if sys.stderr is None:  # pythonw
            return
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads stderr: what is to be done goes on
            pass


def write_out(action: Callable[[TextIO], object] = lambda _stdout: None) -> None:
    """Do something with stdout, then flush it; raises what `Console.result` does."""
    if sys.stdout is None:  # closed, or pythonw
        raise _unwritten(os.strerror(errno.EBADF))
    try:
        sys.stdout.flush()
        action(sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(error.strerror or str(error)) from error


def _unwritten(reason: str) -> CellsLoopbackError:
    return CellsLoopbackError(
        f"cannot write the result: {reason}", hint="check where stdout goes", code="stdout"
    )


def _write_line(stdout: TextIO, text: str) -> None:
    try:
        stdout.write(text + "\n")
    except UnicodeEncodeError:  # a locale that has not all characters, or a pipe on Windows
        stdout.write(text.encode(stdout.encoding, "backslashreplace").decode(stdout.encoding) + "\n")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; False for a closed or missing one."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
