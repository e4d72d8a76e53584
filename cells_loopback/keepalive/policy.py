"""When the keep-alive has to do something for a session: rules without a clock or a disk of their own.

A server does not say how long a refresh token lives. So each is renewed about once a day, which a life of
two days survives, and sooner where a session has seen that its tokens live less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cells_loopback.clock import measure_age
from cells_loopback.errors import LoginRequiredError, ServerUnavailableError
from cells_loopback.keepalive.relogin import next_step_at
from cells_loopback.keepalive.services import PERIOD_HOURS
from cells_loopback.session.forecast import estimate_refresh_lifetime

if TYPE_CHECKING:
    from cells_loopback.errors import CellsLoopbackError
    from cells_loopback.keepalive.state import Record
    from cells_loopback.store.profiles import Profile, ReloginPolicy

HOUR, DAY = 3600.0, 86400.0

DAILY = (20 * HOUR, 28 * HOUR)
"""Seconds between which a refresh token's rest is drawn, so that a fleet does not come in step."""

SHORTEST_REST = PERIOD_HOURS * HOUR
"""Seconds that a refresh token rests at least, however short its life is thought to be."""

RETRY_FIRST, RETRY_LONGEST = 15 * 60.0, 3 * HOUR
"""Seconds after which a renewal that failed is tried again: the first time, doubling, and at most."""


@dataclass(frozen=True)
class Watched:
    """What the keep-alive has to know of a profile; ``problem`` is why it could not be read.

    ``obtained_at`` and ``obtained_uptime`` are our two clocks when its tokens came, ``lifetime`` how many
    seconds an unused refresh token is thought to live.
    """

    name: str
    stamp: tuple[int, int, int]
    problem: CellsLoopbackError | None = None
    site: str = ""
    relogin: ReloginPolicy = "never"
    renewable: bool = False
    has_ended: bool = False
    refresh_token_at: float = 0.0
    obtained_at: float = 0.0
    obtained_uptime: float = 0.0
    lifetime: float = 0.0


def watch(profile: Profile, stamp: tuple[int, int, int] = (0, 0, 0)) -> Watched:
    """Return what matters of a profile."""
    return Watched(
        name=profile.name,
        stamp=stamp,
        site=profile.site.url,
        relogin=profile.settings.relogin,
        renewable=profile.tokens.renewable,
        has_ended=profile.needs_login,
        refresh_token_at=profile.renewals.refresh_token_at,
        obtained_at=profile.tokens.obtained_at,
        obtained_uptime=profile.tokens.obtained_uptime,
        lifetime=estimate_refresh_lifetime(profile.renewals),
    )


def draw(*seed: object) -> float:
    """Return a number from 0 to 1 that is always the same for the same seed, and never for two profiles."""
    import hashlib

    digest = hashlib.blake2b(repr(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def rest_before_renewal(watched: Watched) -> float:
    """Return how many seconds a refresh token rests before it is renewed: a day, or a third of its life.

    A third, so that a renewal may be missed twice before the token lapses.
    """
    shortest, longest = DAILY
    daily = shortest + (longest - shortest) * draw(watched.name, watched.refresh_token_at)
    return min(daily, max(SHORTEST_REST, watched.lifetime / 3))


def renewal_due_in(watched: Watched, now: float, now_uptime: float) -> float:
    """Return in how many seconds the renewal is due, negative when it is overdue.

    The age counts by both clocks (`clock`): one that was set back only makes a renewal come early.
    """
    age = measure_age(watched.obtained_at, watched.obtained_uptime, now, now_uptime)
    return rest_before_renewal(watched) - age


def next_try_at(watched: Watched, record: Record, now: float, now_uptime: float) -> float | None:
    """Return when there is something to do for a profile, None when nothing is until it changes."""
    record = record.about(watched.refresh_token_at)
    if watched.problem is not None:
        due: float | None = now
    elif watched.has_ended:
        due = next_step_at(watched.relogin, record, watched.refresh_token_at, now)
    elif watched.renewable:
        due = now + renewal_due_in(watched, now, now_uptime)
    else:
        due = None
    if due is None or record.retry_at is None:
        return due
    clock_was_set_back = record.tried_at is None or record.tried_at > now
    return due if clock_was_set_back else max(due, record.retry_at)


def pause_after(failures: int, drawn: float, retry_after: float | None = None) -> float:
    """Return the seconds to wait after that many failures in a row, from half of the span to all of it.

    ``retry_after`` is what the server asked for; it is heeded up to the longest span.
    """
    span = min(RETRY_LONGEST, RETRY_FIRST * 2.0 ** min(failures - 1, 10))
    return max(span * (0.5 + drawn / 2), min(retry_after or 0.0, RETRY_LONGEST))


def note_outcome(
    name: str, record: Record, error: CellsLoopbackError | None, now: float, refresh_token_at: float
) -> Record:
    """Return the record of a profile after a try that ended with ``error``, or well.

    ``refresh_token_at`` is when the refresh token came that was tried.
    """
    if error is None:
        return replace(
            record, tried_at=now, tried_of=None, exit_code=0, message="", failures=0, retry_at=None
        )
    failures = record.about(refresh_token_at).failures + 1
    wish = error.retry_after if isinstance(error, ServerUnavailableError) else None
    return replace(
        record,
        tried_at=now,
        tried_of=refresh_token_at,
        exit_code=error.exit_code,
        message=error.message,
        failures=failures,
        retry_at=now + pause_after(failures, draw(name, failures, now), wish),
    )


def worst_exit_code(exit_codes: set[int]) -> int:
    """Return the exit code of a run: what must be mended here first, then a person, then a server."""
    here = exit_codes - {0, LoginRequiredError.exit_code, ServerUnavailableError.exit_code}
    if here:
        return max(here)
    return min(exit_codes - {0}, default=0)  # 4 comes before 7
