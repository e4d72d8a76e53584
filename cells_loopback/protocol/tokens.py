"""`TokenSet`: what a token response gives us, and how a refresh carries over what it omits.

Values only. `TokenSource` is the one thing that every integration needs: "a valid token, now".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from cells_loopback.clock import measure_age, renewal_threshold, uptime, wall
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

ASSUMED_LIFETIME = 600.0
"""Seconds that a renewable token is taken to live when the server does not say: the default of Cells."""

_MAX_LIFETIME = 10 * 365 * 86400.0
_MAX_RENEW_EARLY = 30.0
# ``Date`` has whole seconds, and the answer takes a moment: less than this says nothing about a clock.
_DATE_PRECISION = 5.0


@dataclass(frozen=True)
class TokenSet:
    """The tokens of one session at one time.

    Validity is judged by ``lifetime`` (seconds, None when unknown) and the age by our own two clocks
    since ``obtained_at`` / ``obtained_uptime``, the moment the request was sent. ``clock_offset`` is
    what our wall clock lacked to the server's ``Date`` then, in seconds. ``renew_early`` is this
    token's jitter in seconds (see `clock.renewal_threshold`). ``id_token`` is judged at the login and
    kept nowhere.
    """

    access_token: Secret
    token_type: str
    scope: str
    lifetime: float | None
    obtained_at: float
    obtained_uptime: float
    clock_offset: float = 0.0
    refresh_token: Secret | None = None
    id_token: Secret | None = None
    renew_early: float = 0.0

    @property
    def expires_at(self) -> float | None:
        """When the access token ends, in Unix seconds by the server's clock; None when it did not say."""
        return None if self.lifetime is None else self.obtained_at + self.clock_offset + self.lifetime

    @property
    def renewable(self) -> bool:
        """Whether there is a refresh token."""
        return self.refresh_token is not None

    def seconds_left(self, now: float, now_uptime: float) -> float:
        """Return how long the access token still lives, ``inf`` when its life is unknown."""
        if self.lifetime is None:
            return math.inf
        return self.lifetime - measure_age(self.obtained_at, self.obtained_uptime, now, now_uptime)

    def is_fresh(self, min_valid: float | None, now: float, now_uptime: float) -> bool:
        """Whether the access token lives long enough to be given out without a renewal."""
        if self.lifetime is None:
            return True
        left = self.seconds_left(now, now_uptime)
        return left > max(0.0, renewal_threshold(min_valid, self.lifetime, self.renew_early))


class TokenSource(Protocol):
    """Whatever answers "a valid token, now": a `Session`, or another program's own store."""

    @property
    def site(self) -> str:
        """The site's base URL without a trailing slash: the one origin the token may be sent to."""

    def fresh_token(self) -> Secret | None:
        """Return the access token if that takes no waiting and no I/O, else None: then call `token`."""

    def token(self, *, min_valid: float | None = None, rejected: Secret | None = None) -> TokenSet:
        """Return tokens that are valid for ``min_valid`` seconds more.

        ``rejected`` is an access token that the server answered 401 to: when it is still the current
        one, it is renewed whatever the clock says.
        """


@dataclass(frozen=True)
class RequestTime:
    """The clocks at the moment a token request was sent, and the server's at the answer.

    ``server_date`` is the answer's ``Date`` in Unix seconds, None where there was none.
    """

    wall: float
    uptime: float
    server_date: float | None = None

    @property
    def clock_offset(self) -> float:
        """Seconds to add to our wall clock to get the server's; 0 within a ``Date``'s precision."""
        if self.server_date is None or abs(self.server_date - self.wall) < _DATE_PRECISION:
            return 0.0
        return self.server_date - self.wall


def parse_token_response(
    answer: Mapping[str, Any], requested_scope: str, time: RequestTime, jitter: float
) -> TokenSet | None:
    """Read the members of a successful token response (RFC 6749 §5.1), or return None if it is none.

    Lenient where servers differ and nothing is lost by it: ``expires_in`` may be a number, a string or
    absent, ``token_type`` is matched without regard to case, unknown members are ignored, null is
    absent. A missing ``scope`` means the requested one. ``jitter`` between 0 and 1 places ``renew_early``.
    """
    access_token = _text(answer.get("access_token"))
    token_type = "Bearer" if answer.get("token_type") is None else answer["token_type"]
    if access_token is None or not isinstance(token_type, str) or token_type.lower() != "bearer":
        return None
    lifetime = _parse_lifetime(answer.get("expires_in"))
    return TokenSet(
        access_token=access_token,
        token_type="Bearer",  # noqa: S106 - the type's name, not a password
        scope=_parse_scope(answer.get("scope"), requested_scope),
        lifetime=lifetime,
        obtained_at=time.wall,
        obtained_uptime=time.uptime,
        clock_offset=time.clock_offset,
        refresh_token=read_refresh_token(answer),
        # Whatever stands there is to be judged: a malformed one must not pass for none.
        id_token=Secret(str(answer["id_token"])) if answer.get("id_token") else None,
        renew_early=0.0 if lifetime is None else round(jitter * min(_MAX_RENEW_EARLY, lifetime / 20), 3),
    )


def given_tokens(access_token: Secret) -> TokenSet:
    """Return the tokens of somebody who has an access token and nothing else: a life unknown, no renewal."""
    return TokenSet(
        access_token=access_token,
        token_type="Bearer",  # noqa: S106 - the type's name, not a password
        scope="",
        lifetime=None,
        obtained_at=wall(),
        obtained_uptime=uptime(),
    )


def carry_over(old: TokenSet, new: TokenSet) -> TokenSet:
    """Complete a refresh answer with the refresh token that it may omit (RFC 6749 §6)."""
    return replace(new, refresh_token=new.refresh_token or old.refresh_token)


def assume_lifetime(tokens: TokenSet) -> TokenSet:
    """Give a renewable token of unknown life the one that Cells gives by default.

    RFC 6749 §5.1 only recommends ``expires_in``. Without an assumption a command would print such a
    token long after its end, and nobody would tell it. One that cannot be renewed stays as it is.
    """
    if tokens.lifetime is None and tokens.renewable:
        return replace(tokens, lifetime=ASSUMED_LIFETIME)
    return tokens


def read_refresh_token(answer: Mapping[str, Any]) -> Secret | None:
    """Return the refresh token of a token response, None when there is no usable one."""
    return _text(answer.get("refresh_token"))


def _text(value: object) -> Secret | None:
    # RFC 6749 Appendix A.12: tokens are printable ASCII; anything else could break the header it goes into.
    if isinstance(value, str) and value and all("!" <= character <= "~" for character in value):
        return Secret(value)
    return None


def _parse_scope(value: object, requested: str) -> str:
    if isinstance(value, str) and value.strip():
        return " ".join(value.split())
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return " ".join(value)
    return requested


def _parse_lifetime(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return min(seconds, _MAX_LIFETIME) if seconds > 0 else None
