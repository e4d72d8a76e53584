"""Stay logged in while nobody looks: the runs that renew what is due (`policy` says when).

What cannot be renewed any more goes to `relogin`. A run of the scheduler (`services`) does what is due
before the next one; the resident run sleeps until something is (`wakeup`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cells_loopback.clock import uptime, wall
from cells_loopback.errors import (
    CellsLoopbackError,
    LoginRequiredError,
    NotLoggedInError,
    ServerUnavailableError,
    StoreError,
)
from cells_loopback.keepalive.policy import (
    DAY,
    HOUR,
    Watched,
    next_try_at,
    note_outcome,
    renewal_due_in,
    watch,
    worst_exit_code,
)
from cells_loopback.keepalive.services import PERIOD_HOURS, SPREAD_MINUTES
from cells_loopback.store.keyring_store import withhold_secrets
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from cells_loopback.keepalive.relogin import Relogin
    from cells_loopback.keepalive.state import Record, State, StateFile
    from cells_loopback.keepalive.wakeup import Sleeper
    from cells_loopback.store.profiles import Profile

    Outcomes = dict[str, "Outcome"]

AHEAD = PERIOD_HOURS * HOUR + SPREAD_MINUTES * 60.0
"""Seconds after which the scheduler's next run has begun: what is due until then is done in this one."""

RUN_TIMEOUT = 600.0
"""Seconds after which a run of the scheduler's starts nothing new; the unit is killed after 15 minutes."""


@dataclass(frozen=True)
class Outcome:
    """How a try ended, None for well, and which refresh token was tried, by when it came."""

    error: CellsLoopbackError | None
    refresh_token_at: float


class Keepalive:
    """Keeps the sessions of one config directory alive: all of them, or ``only`` one profile.

    ``say`` is told each thing that was done, ``complain`` what could not be.
    """

    def __init__(
        self,
        store: ProfileStore,
        state: StateFile,
        relogin: Relogin,
        *,
        say: Callable[[str], object],
        complain: Callable[[CellsLoopbackError], object],
        only: str | None = None,
    ) -> None:
        self._store = store
        # For looking: a keyring must not be woken, and perhaps ask for its password, before anything is due.
        self._looking = ProfileStore(store.config_dir, withhold_secrets)
        self._state = state
        self._relogin = relogin
        self._say = say
        self._complain = complain
        self._only = only
        self._watched: dict[str, Watched] = {}
        self._unwritten: dict[str, Record] = {}

    def run_once(self) -> int:
        """Do what is due before the scheduler's next run, and return the exit code. Raises `StoreError`."""
        outcomes = self._work(AHEAD, time.monotonic() + RUN_TIMEOUT)
        unwritten = self._note(outcomes, resident=False)
        errors = [unwritten, *(outcome.error for outcome in outcomes.values())]
        exit_codes = {error.exit_code for error in errors if error is not None}
        if any(one.has_ended for one in self._watched.values()):
            exit_codes.add(LoginRequiredError.exit_code)
        return worst_exit_code(exit_codes)

    def run(self, sleeper: Sleeper) -> NoReturn:
        """Do what is due whenever it is, until a signal ends it. Raises `StoreError`."""
        self._note(self._work(0.0, math.inf), resident=True)
        try:
            while True:
                sleeper.sleep(self._next_run(self._read_state()))
                outcomes = self._work(0.0, math.inf)
                if outcomes:
                    self._note(outcomes, resident=True)
        finally:
            self._note({}, resident=False)  # no next run is to be told of

    def _work(self, ahead: float, deadline: float) -> Outcomes:
        state = self._read_state()
        outcomes = self._renew_due(state, ahead, deadline)
        self._log_in_again(state, deadline, outcomes)
        return outcomes

    def _survey(self) -> list[Watched]:
        """Look at the profiles that are there, reading only those that have changed."""
        names = self._store.names()
        if self._only is not None:
            names = [self._only] if self._only in names else []
        self._watched = {name: self._look(name) for name in names}
        return list(self._watched.values())

    def _look(self, name: str) -> Watched:
        stamp = self._looking.stamp(name)
        known = self._watched.get(name)
        if known is not None and known.stamp == stamp:
            return known
        try:
            return watch(self._looking.read(name), stamp)
        except CellsLoopbackError as error:
            return Watched(name, stamp, problem=error)

    def _is_due(self, watched: Watched, state: State, ahead: float) -> bool:
        now = wall()
        due = next_try_at(watched, state.record(watched.name), now, uptime())
        return due is not None and due <= now + ahead

    def _renew_due(self, state: State, ahead: float, deadline: float) -> Outcomes:
        outcomes: Outcomes = {}
        down: dict[str, CellsLoopbackError] = {}
        for watched in self._survey():
            if time.monotonic() > deadline:
                break
            if watched.has_ended or not self._is_due(watched, state, ahead):
                continue
            # A server that is down keeps one profile waiting, not each of hundreds in turn.
            error = down.get(watched.site) or self._renew(watched.name, ahead)
            del self._watched[watched.name]
            if isinstance(error, NotLoggedInError):
                continue
            if isinstance(error, ServerUnavailableError):
                down[watched.site] = error
            outcomes[watched.name] = Outcome(error, watched.refresh_token_at)
            if error is not None and not isinstance(error, LoginRequiredError):
                self._complain_of(watched.name, error)
        return outcomes

    def _renew(self, name: str, ahead: float) -> CellsLoopbackError | None:
        from cells_loopback.session.renewal import StoredTokens

        try:
            profile = self._store.read(name)
            if profile.needs_login or renewal_due_in(watch(profile), wall(), uptime()) > ahead:
                return None  # another process was faster
            # Not "renew now": a renewal that another process begins meanwhile is as good.
            StoredTokens(self._store, profile).token(rejected=profile.tokens.access_token)
        except CellsLoopbackError as error:
            return error
        self._say(f"{name}: renewed")
        return None

    def _log_in_again(self, state: State, deadline: float, outcomes: Outcomes) -> None:
        """Hand the sessions that have ended to `relogin`, those that nobody could write down included."""
        left: list[Profile] = []
        for watched in self._survey():
            tried = outcomes.get(watched.name)
            refused = tried is not None and isinstance(tried.error, LoginRequiredError)
            ended = replace(watched, has_ended=True) if refused else watched
            if not ended.has_ended or time.monotonic() > deadline:
                continue
            if not self._is_due(ended, state, 0.0):
                if refused and watched.relogin != "never":
                    self._complain_of(watched.name, _ended(watched.name))
                continue
            try:
                profile = self._looking.read(watched.name)
            except CellsLoopbackError:  # gone, or damaged: the next look tells
                continue
            error = self._follow(profile, state.record(watched.name))
            outcomes[watched.name] = Outcome(error, watched.refresh_token_at)
            if isinstance(error, LoginRequiredError):
                left.append(profile)
        try:
            self._relogin.tell(left)
        except StoreError as unwritten:
            self._complain(unwritten)
        self._survey()

    def _complain_of(self, name: str, error: CellsLoopbackError) -> None:
        self._complain(CellsLoopbackError(f"{name}: {error.message}", hint=error.hint))

    def _follow(self, profile: Profile, record: Record) -> CellsLoopbackError | None:
        """Do what an ended session wants; the error tells what is left to do."""
        try:
            if self._relogin.log_in(profile):
                self._say(f"{profile.name}: logged in again")
                return None
        except ServerUnavailableError as error:
            self._complain_of(profile.name, error)
            return error
        ended = _ended(profile.name)
        is_on_record = record.about(profile.renewals.refresh_token_at).exit_code == ended.exit_code
        if not is_on_record:  # cron mails each word to somebody
            self._complain_of(profile.name, ended)
        return ended

    def _read_state(self) -> State:
        state = self._state.read()
        state.records.update(self._unwritten)
        return state

    def _note(self, outcomes: Outcomes, *, resident: bool) -> CellsLoopbackError | None:
        """Write down how it went, and return why that cannot be.

        What cannot be written is kept in mind, so that no pause is forgotten.
        """
        now = wall()
        try:
            with self._state.change() as state:
                state.records.update(self._unwritten)
                state.records.update(_noted(state, outcomes, now))
                if self._only is None:
                    state.records = {
                        name: record for name, record in state.records.items() if name in self._watched
                    }
                state.last_run = now
                state.next_run = self._next_run(state) if resident else None
            self._unwritten = {}
        except CellsLoopbackError as error:
            self._complain(error)
            self._unwritten.update(_noted(self._read_state(), outcomes, now))
            return error
        return None

    def _next_run(self, state: State) -> float:
        """Return when something is to be done next; a day from now at the latest."""
        now, now_uptime = wall(), uptime()
        tries = (next_try_at(one, state.record(one.name), now, now_uptime) for one in self._watched.values())
        return max(now + 1.0, min([now + DAY, *(at for at in tries if at is not None)]))


def _ended(name: str) -> LoginRequiredError:
    return LoginRequiredError(
        "the server no longer renews this session",
        hint=f"log in again: cells-loopback login --profile {name}",
        code="refresh_rejected",
    )


def _noted(state: State, outcomes: Outcomes, now: float) -> dict[str, Record]:
    return {
        name: note_outcome(name, state.record(name), outcome.error, now, outcome.refresh_token_at)
        for name, outcome in outcomes.items()
    }
