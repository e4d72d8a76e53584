"""When will a session need a person? A forecast from the age of its refresh token.

The server does not say how long a refresh token lives. Cells' default is 60 days, some installations
have 30; what this session has seen itself comes first: the longest rest that a refresh token survived,
and the shortest that one did not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cells_loopback.store.profiles import Renewals

if TYPE_CHECKING:
    from cells_loopback.store.profiles import Profile

DAY = 86400.0

ASSUMED_LIFETIME = 30 * DAY
"""Seconds that an unused refresh token is taken to live until this session has seen otherwise."""

WARNING_SPAN = 2 * DAY
"""Seconds before the forecast end from which `status` says that a person is needed; at most a quarter
of the life."""

SHORTEST_LIFETIME = 3 * 3600.0
"""Seconds; a refresh token refused earlier says nothing of its life: it will have been revoked."""


@dataclass(frozen=True)
class Forecast:
    """``needs_person`` is true now or soon; ``needs_person_at`` is the instant, None when unknown."""

    needs_person: bool
    needs_person_at: float | None


def estimate_refresh_lifetime(renewals: Renewals) -> float:
    """Return how many seconds an unused refresh token may be counted on to live."""
    if renewals.refused_rest is not None and renewals.refused_rest > renewals.longest_rest:
        return max(renewals.longest_rest, min(ASSUMED_LIFETIME, renewals.refused_rest))
    return max(ASSUMED_LIFETIME, renewals.longest_rest)


def start_renewals(known: Renewals | None, now: float) -> Renewals:
    """Return the renewals of a session that begins now; what ``known``, the one before it, learned stays."""
    if known is None:
        return Renewals(logged_in_at=now, refresh_token_at=now)
    refused = known.refused_rest
    return Renewals(
        logged_in_at=now,
        refresh_token_at=now,
        longest_rest=known.longest_rest,
        refused_rest=None if refused is None or refused < SHORTEST_LIFETIME else refused,
    )


def forecast(profile: Profile, now: float) -> Forecast:
    """Say when the session of ``profile`` will need a person, if nobody uses it until then."""
    tokens = profile.tokens
    if profile.needs_login:
        return Forecast(True, now)
    if not tokens.renewable:
        if tokens.lifetime is None:  # a personal access token: its end cannot be seen from here
            return Forecast(False, None)
        ends_at = tokens.obtained_at + tokens.lifetime
        return Forecast(ends_at <= now, ends_at)
    lifetime = estimate_refresh_lifetime(profile.renewals)
    ends_at = profile.renewals.refresh_token_at + lifetime
    return Forecast(ends_at - min(WARNING_SPAN, lifetime / 4) <= now, ends_at)
