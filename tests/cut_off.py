"""A process that renews a session and is cut off at one step, as many times as it is told to.

Run as a script with the config directory. For each line on stdin, ``STEP SIGNAL``, a fork renews the
session of profile ``work`` with the command's own code, and sends itself the signal when it comes to
the step; the line that comes back is how it ended. Forks, because imports take longer than renewals.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = (
    "reserved",
    "sending",
    "answered",
    "writing",
    "half-written",
    "written",
    "flushed",
    "renamed",
    "directory-flushed",
    "unlocking",
)
"""The steps of a renewal, in order."""

NONE = "none"


class CutOff:
    """The running script."""

    def __init__(self, config_dir: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__, str(config_dir)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def renew(self, step: str = NONE, number: int = 0) -> int:
        """Renew and return how that ended: an exit code, or a negative signal number."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{step} {number}\n")
        return int(self._child.stdout.readline())

    def close(self) -> None:
        """End the script."""
        with self._child:
            assert self._child.stdin is not None
            self._child.stdin.close()


def main() -> None:
    """Serve one renewal for each line."""
    import cells_loopback.cli.token
    import cells_loopback.http.endpoints
    import cells_loopback.session.renewal  # noqa: F401 - all of them before the first fork
    from cells_loopback.http import transport

    transport.BACKOFF_BASE = transport.BACKOFF_CAP = 0.01
    for line in sys.stdin:
        step, number = line.split()
        child = os.fork()
        if child == 0:
            _be_cut_off(step, signal.Signals(int(number)) if int(number) else None)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)


def _be_cut_off(step: str, number: signal.Signals | None) -> None:
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    passed: list[str] = []

    def here(reached: str) -> None:
        if reached not in passed:
            passed.append(reached)
            if reached == step and number is not None:
                os.kill(os.getpid(), number)

    _watch(here)
    sys.argv = ["cells-loopback", "--config-dir", sys.argv[1], "token"]
    from cells_loopback.__main__ import main as run

    run()


def _watch(here: Callable[[str], None]) -> None:
    from cells_loopback.http.transport import SiteClient
    from cells_loopback.store.lock import FileLock
    from cells_loopback.store.profiles import ProfileStore

    post_form, write_profile, release = SiteClient.post_form, ProfileStore.write, FileLock.release
    write, flush, rename = os.write, os.fsync, os.replace
    is_writing: list[bool] = []

    def send(*arguments: Any) -> Any:
        here("sending")
        answer = post_form(*arguments)
        here("answered")
        return answer

    def store(*arguments: Any) -> None:
        here("writing")
        is_writing.append(True)
        write_profile(*arguments)
        here("directory-flushed")

    def write_some(descriptor: int, content: bytes) -> int:
        if not is_writing or not content.startswith(b"{"):
            return write(descriptor, content)
        written = write(descriptor, content[: len(content) // 2])
        here("half-written")
        written += write(descriptor, content[written:])
        here("written")
        return written

    def flush_it(descriptor: int) -> None:
        flush(descriptor)
        here("flushed" if is_writing else "reserved")

    def rename_it(source: str, target: str) -> None:
        rename(source, target)
        here("renamed")

    def unlock(lock: FileLock) -> None:
        if is_writing:
            here("unlocking")
        release(lock)

    for place, name, watched in (
        (SiteClient, "post_form", send),
        (ProfileStore, "write", store),
        (FileLock, "release", unlock),
        (os, "write", write_some),
        (os, "fsync", flush_it),
        (os, "replace", rename_it),
    ):
        patch.object(place, name, watched).start()


if __name__ == "__main__":
    main()
