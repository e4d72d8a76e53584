"""One login at a time for a profile: a second one joins the first and gets its result.

The lock file beside the profile holds a line of JSON: while the login runs, who runs it; afterwards
how it ended, for those who were waiting.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from cells_loopback import errors
from cells_loopback.store.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from cells_loopback.errors import CellsLoopbackError

_PAUSE = 0.1
_BY_EXIT_CODE = {
    kind.exit_code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.CellsLoopbackError)
}


class LoginLock:
    """The right to log in to one profile."""

    def __init__(self, path: str) -> None:
        self._lock = FileLock(path)
        self._is_ours = False

    async def acquire_or_join(self, timeout: float, on_join: Callable[[str], object]) -> bool:
        """Return True when the login is ours to do, False when another one has just succeeded.

        Raises the other login's own error when that failed, `LoginTimeoutError` when it has not ended
        within ``timeout`` seconds. A login that vanished without a word is taken over.
        """
        if self.try_acquire():
            return True
        deadline = time.monotonic() + timeout
        has_told = False
        while True:
            try:
                # Kept open: whoever finishes removes the file, and its last word is read from here.
                with _open(self._lock.path) as theirs:
                    if not has_told:
                        on_join(str(_read(theirs).get("pid", "?")))
                        has_told = True
                    held = await self._wait_for(theirs, deadline)
                    outcome = _read(theirs)
            except FileNotFoundError:  # it ended between the two looks: this login is one of its own
                if self.try_acquire():
                    return True
                continue
            if held:
                self._note_running()
            if "exit_code" in outcome:
                self.abandon()
                if outcome["exit_code"] != 0:
                    raise _rebuild(outcome)
                return False
            if held:
                return True

    async def _wait_for(self, theirs: BinaryIO, deadline: float) -> bool:
        """Wait until the lock is ours, or until the login of ``theirs`` is over; tell whether it is ours."""
        import asyncio  # not before a login has to wait

        while not self._lock.try_acquire():
            if not _is_current(theirs, self._lock.path):
                return False
            if time.monotonic() > deadline:
                raise errors.LoginTimeoutError(
                    "the login that is already under way has not ended in time",
                    hint="finish it in its browser tab, or end its process, then try again",
                )
            await asyncio.sleep(_PAUSE)
        return True

    def try_acquire(self) -> bool:
        """Take the right if nobody has it."""
        held = self._lock.try_acquire()
        if held:
            self._note_running()
        return held

    def take_over(self, lock: FileLock) -> None:
        """Go on with the lock of the same path that was taken before."""
        self._lock = lock
        self._note_running()

    def release(self, error: CellsLoopbackError | None) -> None:
        """Tell those who wait how it ended, and let them go on."""
        outcome: dict[str, object] = {"exit_code": 0}
        if error is not None:
            outcome = {
                "exit_code": error.exit_code,
                "message": error.message[:1000],
                "hint": error.hint[:500],
                "code": error.code,
            }
        self._lock.write_note(json.dumps(outcome))
        self.abandon()

    def fail(self, error: BaseException) -> None:
        """Give the lock back after a login that did not end well; one that was broken off has no outcome."""
        if isinstance(error, errors.CellsLoopbackError):
            self.release(error)
        else:
            self.abandon()

    def abandon(self) -> None:
        """Give the lock back without a word: whoever waits takes the login over."""
        if self._is_ours:
            self._is_ours = False
            self._lock.remove()
            self._lock.release()

    def _note_running(self) -> None:
        self._is_ours = True
        self._lock.write_note(json.dumps({"pid": os.getpid()}))


def _open(path: str) -> BinaryIO:
    return open(path, "rb")


def _read(file: BinaryIO) -> dict[str, object]:
    file.seek(0)
    try:
        outcome = json.loads(file.read())
    except ValueError:
        return {}
    return outcome if isinstance(outcome, dict) else {}


def _is_current(file: BinaryIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _rebuild(outcome: dict[str, object]) -> CellsLoopbackError:
    exit_code = outcome["exit_code"]
    kind = _BY_EXIT_CODE.get(exit_code if isinstance(exit_code, int) else 1, errors.CellsLoopbackError)
    message, hint, code = (str(outcome.get(name, "")) for name in ("message", "hint", "code"))
    return kind(message, hint=hint, code=code)
