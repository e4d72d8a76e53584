"""What happens during a login, one record for each step, for programs that follow it.

These are the events of ``login --json`` and of the ``on_event`` argument of `login`. None of them ever
holds a token, a code, a verifier or a secret.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from cells_loopback.clock import format_time


def format_optional_time(seconds: float | None) -> str | None:
    """Return the same as `format_time`, None for None."""
    return None if seconds is None else format_time(seconds)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One step of a login; ``time`` is RFC 3339 in UTC."""

    event: ClassVar[str]
    time: str = field(default_factory=lambda: format_time(time.time()))

    def to_dict(self) -> dict[str, Any]:
        """Return the event as the JSON object of ``login --json``."""
        return {"event": self.event, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class AuthorizationURL(Event):
    """The address to open in a browser; ``expires_at`` is when this login gives up waiting."""

    event = "authorization_url"
    url: str
    redirect_uri: str
    expires_at: str


@dataclass(frozen=True, kw_only=True)
class BrowserOpened(Event):
    """A browser was started."""

    event = "browser_opened"


@dataclass(frozen=True, kw_only=True)
class BrowserFailed(Event):
    """No browser could be started, or it failed at once; the login still waits for the callback."""

    event = "browser_failed"
    reason: str


@dataclass(frozen=True, kw_only=True)
class CallbackRejected(Event):
    """A request that is not this login's answer was turned away; the login goes on."""

    event = "callback_rejected"
    reason: str


@dataclass(frozen=True, kw_only=True)
class CallbackReceived(Event):
    """The answer to the authorization request has come."""

    event = "callback_received"


@dataclass(frozen=True, kw_only=True)
class TokenReceived(Event):
    """The code was exchanged; nothing is stored yet."""

    event = "token_received"


@dataclass(frozen=True, kw_only=True)
class LoggedIn(Event):
    """The session is on disk. Always the last event."""

    event = "logged_in"
    profile: str
    site: str
    user: str
    expires_at: str | None
    renewable: bool


@dataclass(frozen=True, kw_only=True)
class LoginError(Event):
    """The login has ended without a session. Always the last event."""

    event = "error"
    code: str
    message: str
    hint: str
    exit_code: int
