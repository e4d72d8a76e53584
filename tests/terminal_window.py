"""A terminal with a command in it: what is typed there, and what is seen."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

# A session leader without a terminal gets the first one that it opens (credentials(7)).
_ENTER = 'exec "$@" <"$0" >"$0" 2>&1'
_TIME_LIMIT = 30.0


class TerminalWindow:
    """A command whose controlling terminal is ours, as a context manager; closing it hangs up."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        tty = os.ttyname(theirs)
        # Without colours, and of a kind that draws no links, so that lines are read as they are.
        plain = {"TERM": "xterm", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", _ENTER, tty, *command],
            env={**environment, **plain},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._theirs = theirs  # kept, so that what was written last is not lost
        self.seen = ""

    def __enter__(self) -> TerminalWindow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Close the window: the system sends SIGHUP."""
        for descriptor in (self._ours, self._theirs):
            if descriptor >= 0:
                os.close(descriptor)
        self._ours = self._theirs = -1

    def type(self, keys: str) -> None:
        """Press keys; ``\\r`` is Enter."""
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str) -> str:
        """Wait until ``text`` is seen, and return everything seen until then."""
        deadline = time.monotonic() + _TIME_LIMIT
        while text not in self.seen:
            if not self._look(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} did not come, but: {self.seen}")
        return self.seen

    def wait_for_line(self, start: str) -> str:
        """Wait for a whole line that begins so, and return it."""
        self.wait_for("\n" + start)
        while "\r\n" not in self.seen.partition("\n" + start)[2]:
            self._look(_TIME_LIMIT)
        return start + self.seen.partition("\n" + start)[2].partition("\r\n")[0]

    def wait(self) -> int:
        """Wait for the end of the command, and return its exit code."""
        code = self.process.wait(_TIME_LIMIT)
        while self._ours >= 0 and self._look(0):
            pass
        return code

    def _look(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], max(seconds, 0))[0]:
            return False
        self.seen += os.read(self._ours, 65536).decode(errors="replace")
        return True
