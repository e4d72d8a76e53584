"""The two clocks that the life of a token is measured with, and what they say about it.

The wall clock can be hours wrong and can be set while we sleep. The uptime clock runs steadily, a
suspend included, but starts anew with the machine. So a token's age is measured from the moment its
request was sent, by both clocks, and the greater age counts: whatever happened to one clock, the
worst that follows is a renewal that was not needed yet.

Light on purpose: the warm path of ``token`` imports this.
"""

from __future__ import annotations

import time

MIN_VALID = 60.0
"""Seconds a token must still live when nobody asks for more (``token --min-valid``)."""

# A clock that is set back by less than this is a clock being disciplined, not a clock being changed.
_SLACK = 2.0

_LAST_TIME = 253_402_300_799  # 9999-12-31T23:59:59Z

wall = time.time
"""Seconds since the epoch, by the machine's wall clock."""

# Linux: CLOCK_BOOTTIME. macOS: CLOCK_MONOTONIC goes on while the machine sleeps (CLOCK_UPTIME_RAW does not).
_UPTIME = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def uptime() -> float:
    """Return seconds since some point before the machine started, time asleep included."""
    if _UPTIME is None:  # Windows, whose monotonic clock counts the time asleep
        return time.monotonic()
    return time.clock_gettime(_UPTIME)


def measure_age(obtained_at: float, obtained_uptime: float, now: float, now_uptime: float) -> float:
    """Return how many seconds old a token is, ``inf`` when neither clock can tell.

    ``obtained_*`` are the readings of `wall` and `uptime` when its request was sent.
    """
    by_wall, by_uptime = now - obtained_at, now_uptime - obtained_uptime
    restarted = by_uptime < 0
    if by_wall < -_SLACK:  # the wall clock was set back
        return float("inf") if restarted else by_uptime
    return max(by_wall, by_uptime, 0.0)


def renewal_threshold(min_valid: float | None, lifetime: float, renew_early: float) -> float:
    """Return the seconds of life below which a token is renewed.

    ``min_valid`` is what the caller asked for, None for the default: who asks for more than a token ever
    lives gets a new one at each call. ``renew_early`` is the jitter drawn when the token was stored, so
    that machines that got their tokens together do not come back together; it never overrides what the
    caller asked for.
    """
    if min_valid is None:
        return min(MIN_VALID + renew_early, lifetime / 2)
    return min_valid


def attainable(min_valid: float, lifetime: float) -> float:
    """Return ``min_valid``, or half of the life of a token that never lives so long."""
    return min_valid if min_valid < lifetime else lifetime / 2


def format_time(seconds: float) -> str:
    """Return an instant in Unix seconds as RFC 3339 in UTC, whole seconds, not before 1970.

    A server's ``Date`` can be anything: what the format cannot write becomes its first or last instant.
    """
    within = min(max(seconds, 0.0), _LAST_TIME)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(within))
