"""What a renewal leaves in the profile's lock file for those who come after it.

The first line is for people: who renews now, or how an earlier renewal ended that may have spent the
refresh token. The second, in JSON, is how the last renewal failed: those who waited for it share its
failure, so that a server that is down is not asked by each of them in turn.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cells_loopback.clock import format_time, wall
from cells_loopback.errors import ServerUnavailableError

if TYPE_CHECKING:
    from cells_loopback.store.lock import FileLock


@dataclass(frozen=True)
class Failure:
    """How a renewal failed at a moment in Unix seconds; the rest as in `ServerUnavailableError`."""

    at: float
    message: str
    hint: str
    code: str
    answer_lost: bool

    def to_error(self) -> ServerUnavailableError:
        """Return the error that the renewal ended with."""
        return ServerUnavailableError(
            self.message, hint=self.hint, code=self.code, answer_lost=self.answer_lost
        )


@dataclass(frozen=True)
class RenewalNote:
    """``open_end`` is '' unless a renewal is under way or may have spent the token without an answer."""

    open_end: str = ""
    failure: Failure | None = None

    def raise_shared_failure(self, wanted_since: float) -> None:
        """Raise the failure of a renewal that ended after ``wanted_since``, when its result was wanted.

        Whoever comes later asks the server anew: it may be back.
        """
        if self.failure is not None and wanted_since <= self.failure.at <= wall():
            raise self.failure.to_error()


def read_note(lock: FileLock) -> RenewalNote:
    """Read what the last renewal left; whatever else stands there is its open end."""
    open_end, _, text = lock.read_note().partition("\n")
    try:
        members = json.loads(text)
        failure = Failure(
            float(members["at"]),
            str(members["message"]),
            str(members["hint"]),
            str(members["code"]),
            members["answer_lost"] is True,
        )
    except (ValueError, TypeError, KeyError):
        failure = None
    return RenewalNote(open_end.strip(), failure)


def write_note(lock: FileLock, note: RenewalNote) -> None:
    """Leave a note, as the holder of the lock."""
    lock.write_note(note.open_end + ("\n" + json.dumps(asdict(note.failure)) if note.failure else ""))


def write_running(lock: FileLock) -> None:
    """Say that this process renews now: what stays there when it is killed."""
    write_note(lock, RenewalNote(f"process {os.getpid()}, renewing since {timestamp()}"))


def write_failure(lock: FileLock, note: RenewalNote, error: ServerUnavailableError) -> None:
    """Leave a failure, and ``note``'s open end with it."""
    failure = Failure(wall(), error.message, error.hint, error.code, error.answer_lost)
    write_note(lock, RenewalNote(note.open_end, failure))


def timestamp() -> str:
    """Return the time now as people and programs read it (RFC 3339, UTC)."""
    return format_time(wall())
