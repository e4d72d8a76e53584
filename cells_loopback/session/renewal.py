"""Stay logged in: one refresh at a time, and its result on the disk before anybody sees it.

Refresh tokens of Cells rotate at every use, and one that is used twice ends the whole session. So a
renewal is: lock, read again, decide, reserve room on the disk, refresh, write, flush, rename, unlock.
The same story serves processes, threads and event loops.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cells_loopback.clock import renewal_threshold, uptime, wall
from cells_loopback.errors import (
    CellsLoopbackError,
    LoginRequiredError,
    NotLoggedInError,
    ServerUnavailableError,
    StoreError,
)
from cells_loopback.http.endpoints import RefreshRejectedError, UnusableAnswerError, refresh
from cells_loopback.http.trust import Trust
from cells_loopback.process.thread_lock import ThreadLock
from cells_loopback.process.uninterrupted import run_uninterrupted
from cells_loopback.session.renewal_note import (
    RenewalNote,
    read_note,
    timestamp,
    write_failure,
    write_note,
    write_running,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cells_loopback.protocol.tokens import TokenSet
    from cells_loopback.secret import Secret
    from cells_loopback.store.lock import FileLock
    from cells_loopback.store.private_file import Replacement
    from cells_loopback.store.profiles import Profile, ProfileStore

logger = logging.getLogger("cells_loopback")

WRITE_TIMEOUT = 10.0
"""Seconds for which a renewed session that cannot be written is tried again."""

LOOK_AGAIN = 1.0
"""Seconds after which a change made by another process is seen at the latest."""

_NEVER_SEEN = (-1, -1, -1)


class StoredTokens:
    """The tokens of one stored profile, renewed when needed, for `Session` to give out. Thread-safe."""

    def __init__(self, store: ProfileStore, profile: Profile) -> None:
        self._store = store
        # One attribute for both, so that no thread ever pairs an old profile with a new stamp.
        self._seen = (profile, _NEVER_SEEN)
        self._renewing = ThreadLock()
        self._unwritten: tuple[Secret | None, Profile] | None = None

    @property
    def site(self) -> str:
        """The site's base URL."""
        return self.profile.site.url

    @property
    def profile(self) -> Profile:
        """The profile as last seen."""
        return self._seen[0]

    def look_again(self) -> Profile:
        """Read the profile again if its file has been replaced. Raises `NotLoggedInError`, `StoreError`."""
        profile, stamp = self._seen
        return profile if self._store.stamp(profile.name) == stamp else self._read()

    def _read(self) -> Profile:
        name = self.profile.name
        stamp = self._store.stamp(name)  # before the file: a change meanwhile is then seen at the next look
        profile = self._store.read(name)
        self._seen = (profile, stamp)
        return profile

    def fresh_until(self, tokens: TokenSet) -> float:
        """Return the `uptime` until which ``tokens`` may be given out without another look."""
        if tokens.lifetime is None:
            return uptime() + LOOK_AGAIN
        left = tokens.seconds_left(wall(), uptime())
        return uptime() + min(LOOK_AGAIN, left - renewal_threshold(None, tokens.lifetime, tokens.renew_early))

    def token(
        self, *, min_valid: float | None = None, rejected: Secret | None = None, refresh_now: bool = False
    ) -> TokenSet:
        """Return tokens valid for ``min_valid`` seconds more, renewed first where that is needed.

        ``rejected`` is an access token that the server answered 401 to; ``refresh_now`` asks for a
        renewal whatever the clock says. In both cases a renewal that another process has finished since
        is taken instead. Raises any of the errors of exit codes 3 to 5 and 7 to 9.
        """
        if self._unwritten is not None:
            self._write_at_last()
        seen = self.look_again().tokens
        forced = refresh_now or seen.access_token == rejected
        if not forced and seen.is_fresh(min_valid, wall(), uptime()):
            return seen
        if not forced and _is_good_enough(seen, min_valid):
            return self._renew_early(seen)
        return self._renew(seen, None)

    def renew_holding(self, lock: FileLock, min_valid: float | None = None) -> TokenSet:
        """Return the same as `token`, for who holds the profile's lock, or wanted it; it is given back."""
        seen = self._seen[0].tokens
        early = _is_good_enough(seen, min_valid)

        def is_fresh(tokens: TokenSet) -> bool:
            return tokens.is_fresh(min_valid, wall(), uptime())

        try:
            if not lock.is_held and not self._wait_for(lock, is_fresh):
                return self.profile.tokens
            return run_uninterrupted(lambda: self._renew_locked(lock, is_fresh, 0 if early else None))
        except (ServerUnavailableError, LoginRequiredError, StoreError):
            if early and self._unwritten is None:
                return seen
            raise

    def _renew_early(self, seen: TokenSet) -> TokenSet:
        """Renew tokens of which only their jitter says that they are due: one try, and it may fail."""
        try:
            return self._renew(seen, 0)
        except (ServerUnavailableError, LoginRequiredError, StoreError):
            if self._unwritten is None:
                return seen
            raise

    def _renew(self, seen: TokenSet, patience: float | None) -> TokenSet:
        def is_renewed(tokens: TokenSet) -> bool:
            return tokens.access_token != seen.access_token and tokens.is_fresh(0, wall(), uptime())

        lock = self._store.lock(self.profile.name)
        with self._renewing:
            if is_renewed(self.look_again().tokens):
                return self.profile.tokens
            if not self._wait_for(lock, is_renewed):
                return self.profile.tokens
            # The thread that does the work gives the lock back: the caller may be interrupted before.
            return run_uninterrupted(lambda: self._renew_locked(lock, is_renewed, patience))

    def _wait_for(self, lock: FileLock, is_done: Callable[[TokenSet], bool]) -> bool:
        """Take the lock; False when its holder has done the work meanwhile. Raises how the holder failed.

        Both are seen without the lock, or all who wait would learn of it one after the other.
        """

        def is_over() -> bool:
            if is_done(self.look_again().tokens):
                return True
            read_note(lock).raise_shared_failure(lock.wanted_since)
            return False

        return lock.acquire(until=is_over)

    def _renew_locked(
        self, lock: FileLock, is_done: Callable[[TokenSet], bool], patience: float | None
    ) -> TokenSet:
        """Renew unless that ``is_done`` already.

        ``patience`` is in seconds for a server that fails, None for as many as a request usually has.
        """
        try:
            # Read in any case: the stamp of a file may be cached (NFS) or coarse, and the price of an old
            # refresh token is the session.
            profile = self._read()
            if is_done(profile.tokens):
                return profile.tokens
            check_renewable(profile)
            note = read_note(lock)
            note.raise_shared_failure(lock.wanted_since)
            with self._store.replacement(profile.name) as replacement:
                # Opening it puts in place what a killed process had written.
                profile = self.look_again()
                if is_done(profile.tokens):
                    return profile.tokens
                return self._refresh(profile, replacement, lock, note, patience)
        finally:
            lock.release()

    def _refresh(
        self,
        profile: Profile,
        replacement: Replacement,
        lock: FileLock,
        note: RenewalNote,
        patience: float | None,
    ) -> TokenSet:
        lost: list[ServerUnavailableError] = []
        write_running(lock)
        try:
            tokens = _request_tokens(profile, patience, lost)
        except RefreshRejectedError as error:
            refusal = _tell_rejected(profile, error, lost, note.open_end)
            return self._rejected(profile, replacement, lock, refusal, patience)
        except ServerUnavailableError as error:
            failure = error
            if error.answer_lost or lost:
                note = RenewalNote(f"an answer to a renewal was lost at {timestamp()}")
                failure = _answer_lost(error)
            write_failure(lock, note, failure)
            raise failure from None
        except UnusableAnswerError as error:
            if error.refresh_token is None:
                write_note(lock, RenewalNote(f"an answer to a renewal could not be used at {timestamp()}"))
                raise
            tokens = replace(profile.tokens, refresh_token=error.refresh_token)
            self._keep(_renewed(profile, tokens), profile, replacement)
            write_note(lock, RenewalNote())
            raise
        except CellsLoopbackError:  # refused or never sent: the refresh token is as good as before
            write_note(lock, note)
            raise
        self._keep(_renewed(profile, tokens), profile, replacement)
        write_note(lock, RenewalNote())
        return self.profile.tokens

    def _rejected(
        self,
        profile: Profile,
        replacement: Replacement,
        lock: FileLock,
        refusal: LoginRequiredError,
        patience: float | None,
    ) -> TokenSet:
        # Where locks do not reach (a network home, a restored backup) another process may have renewed.
        stored = self._read()
        write_note(lock, RenewalNote())
        if stored.tokens.refresh_token != profile.tokens.refresh_token:
            if stored.tokens.is_fresh(0, wall(), uptime()):
                return stored.tokens
            check_renewable(stored)
            return self._refresh(stored, replacement, lock, RenewalNote(), patience)
        try:
            self._write(_refused(profile), replacement)
        except StoreError as unwritten:
            logger.info("the refusal is not on record: %s", unwritten.message)
        raise refusal

    def _write(self, profile: Profile, replacement: Replacement) -> None:
        self._store.write(profile, replacement)
        self._seen = (profile, self._store.stamp(profile.name))

    def _keep(self, profile: Profile, spent: Profile, replacement: Replacement) -> None:
        """Write the renewed session, trying for a while: nothing else in the world holds it."""
        self._unwritten = (spent.tokens.refresh_token, profile)
        deadline = time.monotonic() + WRITE_TIMEOUT
        pause = 0.05
        while True:
            try:
                self._write(profile, replacement)
            except StoreError as error:
                if time.monotonic() + pause > deadline:
                    raise _unwritten(error) from None
                logger.warning("%s; trying again", error.message)
            else:
                self._unwritten = None
                return
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _write_at_last(self) -> None:
        """Write what could not be written, unless the stored session is another one by now."""
        lock = self._store.lock(self.profile.name)
        with self._renewing:
            lock.acquire()
            run_uninterrupted(lambda: self._write_locked(lock))

    def _write_locked(self, lock: FileLock) -> None:
        try:
            if self._unwritten is None:
                return
            spent, profile = self._unwritten
            with self._store.replacement(profile.name) as replacement:
                try:
                    stored = self._read().tokens.refresh_token
                except NotLoggedInError:  # logged out meanwhile
                    stored = None
                if stored is not None and stored == spent:
                    self._write(profile, replacement)
            self._unwritten = None
            write_note(lock, RenewalNote())
        except StoreError as error:
            raise _unwritten(error) from None
        finally:
            lock.release()


def _is_good_enough(tokens: TokenSet, min_valid: float | None) -> bool:
    """Whether ``tokens`` live as long as they must, their jitter left aside."""
    return replace(tokens, renew_early=0.0).is_fresh(min_valid, wall(), uptime())


def _request_tokens(profile: Profile, patience: float | None, lost: list[ServerUnavailableError]) -> TokenSet:
    """Refresh, again and again while the server fails; what may have been carried out goes to ``lost``.

    A second try is right even then: if the first one was carried out, its answer held the only token
    that could go on with the session, and nothing is left to lose.
    """
    # httpx is imported where a request is due, not for those who wait for another's or only look.
    from cells_loopback.http.transport import RETRY_TIMEOUT, SiteClient, retry_unavailable

    def note_failure(error: ServerUnavailableError, pause: float) -> None:
        logger.info("%s; trying again in %.1f s", error.message, pause)
        if error.answer_lost:
            lost.append(error)

    with SiteClient(profile.site, Trust.of(profile.settings)) as client:
        return retry_unavailable(
            lambda: refresh(client, profile.metadata, profile.client, profile.tokens),
            total=RETRY_TIMEOUT if patience is None else patience,
            on_retry=note_failure,
        )


def _renewed(profile: Profile, tokens: TokenSet) -> Profile:
    now = wall()
    renewals = replace(
        profile.renewals,
        refresh_token_at=now,
        rejected_at=None,
        longest_rest=max(profile.renewals.longest_rest, now - profile.renewals.refresh_token_at),
    )
    # The ID Token told at the login who it was; nobody needs another one (OpenID Connect Core §12.2).
    return replace(profile, tokens=replace(tokens, id_token=None), renewals=renewals)


def _refused(profile: Profile) -> Profile:
    now = wall()
    rest = now - profile.renewals.refresh_token_at
    shortest = profile.renewals.refused_rest
    renewals = replace(
        profile.renewals, rejected_at=now, refused_rest=rest if shortest is None else min(shortest, rest)
    )
    return replace(profile, renewals=renewals)


def check_renewable(profile: Profile) -> None:
    """Raise `LoginRequiredError` for a session that no request can renew."""
    again = f"cells-loopback login --profile {profile.name}"
    if not profile.tokens.renewable:
        raise LoginRequiredError(
            f"the session of {profile.name} cannot be renewed: it has no refresh token",
            hint=f"log in again: {again}",
            code="not_renewable",
        )
    if profile.needs_login:
        raise LoginRequiredError(
            f"the server no longer renews the session of {profile.name}",
            hint=f"log in again: {again}",
            code="refresh_rejected",
        )


def _tell_rejected(
    profile: Profile, error: RefreshRejectedError, lost: list[ServerUnavailableError], open_end: str
) -> LoginRequiredError:
    message = error.message
    if lost:
        message += " (the answer to the renewal just before was lost on its way, and the session with it)"
    elif open_end:
        message += f" (an earlier renewal was cut off before its answer was stored: {open_end})"
    return LoginRequiredError(
        message,
        hint=f"log in again: cells-loopback login --profile {profile.name}",
        code="refresh_rejected",
    )


def _answer_lost(error: ServerUnavailableError) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"{error.message}; nobody knows whether it has renewed the session",
        hint="try again later: the stored session is kept, and the next renewal will tell",
        code=error.code,
        retry_after=error.retry_after,
        answer_lost=True,
    )


def _unwritten(error: StoreError) -> StoreError:
    return StoreError(
        f"the session was renewed but could not be stored: {error.message}",
        hint="the stored refresh token is spent now: mend the disk, then log in again",
        code="unwritten",
    )
