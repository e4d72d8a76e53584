"""What follows when a session can no longer be renewed, as its ``relogin`` setting says.

``browser`` opens the person's browser, ``headless`` the profile's own Chromium without a window: both go
through the same login as ever, and a web session that still lives sends them straight back with a code.
When that fails, and with ``notify``, the person is told once, with the one command. ``never`` does nothing.

A tab may wait for a person who is not there, so an ended session gets one tab, by whichever process
claims it first, and another only after an answer that the server could not go on with.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cells_loopback.clock import wall
from cells_loopback.desktop.browser import (
    BrowserError,
    find_browser,
    open_browser,
    this_platform,
    why_no_screen,
)
from cells_loopback.desktop.notify import send_notification
from cells_loopback.errors import CellsLoopbackError, LoginFailedError, ServerUnavailableError
from cells_loopback.keepalive.services import escape_sandbox
from cells_loopback.keepalive.state import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cells_loopback.keepalive.state import StateFile
    from cells_loopback.store.profiles import Profile, ReloginPolicy

    Notify = Callable[[str, str], bool]

logger = logging.getLogger("cells_loopback")

BROWSER_TIMEOUT, HEADLESS_TIMEOUT = 120.0, 60.0
"""Seconds that a browser has to come back with a code."""

BROWSER_PAUSE = 3600.0
"""Seconds between two browsers opened for one profile, at least."""

NOTIFY_PAUSE = 86400.0
"""Seconds between two notifications about one profile, at least."""

_MOST_COMMANDS = 5


def may_open(record: Record, ended: float, now: float) -> bool:
    """Whether a browser may be opened for the session whose last refresh token came at ``ended``."""
    return record.browser_of != ended and _is_over(record.browser_at, BROWSER_PAUSE, now)


def may_notify(record: Record, ended: float, now: float) -> bool:
    """Whether the person may be told of the end of that session."""
    return record.notified_of != ended and _is_over(record.notified_at, NOTIFY_PAUSE, now)


def next_step_at(policy: ReloginPolicy, record: Record, ended: float, now: float) -> float | None:
    """Return when more may be done about an ended session, None when it is the person's turn.

    Where a browser may still do it, the person is not told before it has been tried.
    """
    if policy == "never":
        return None
    if policy != "notify" and record.browser_of != ended:
        return _next(record.browser_at, BROWSER_PAUSE, now)
    if record.notified_of != ended:
        return _next(record.notified_at, NOTIFY_PAUSE, now)
    return None


def _is_over(since: float | None, pause: float, now: float) -> bool:
    return since is None or not since <= now < since + pause  # a moment to come is a clock set back


def _next(since: float | None, pause: float, now: float) -> float:
    return now if since is None or _is_over(since, pause, now) else since + pause


class Relogin:
    """Follows the ``relogin`` settings of one config directory."""

    def __init__(
        self,
        config_dir: str,
        state: StateFile,
        *,
        environ: Mapping[str, str] = os.environ,
        notify: Notify = send_notification,
    ) -> None:
        self._config_dir = config_dir
        self._state = state
        self._environ = environ
        self._notify = notify

    def log_in(self, profile: Profile) -> bool:
        """Log in again without a word from the person, if the profile wants that and it can be done.

        Raises `ServerUnavailableError` when there is nobody to log in to: it is to be tried later.
        """
        name, ended = profile.name, profile.renewals.refresh_token_at
        kind = _BROWSERS.get(profile.settings.relogin)
        if kind is None or not may_open(self._state.read().record(name), ended, wall()):
            return False
        make_browser, timeout = kind
        try:
            with make_browser(profile, self._config_dir, self._environ) as open_browser_at:
                _check_server(profile)
                self._log_in(profile, open_browser_at, timeout)
        except ServerUnavailableError:
            self._give_back(name, ended)
            raise
        except (BrowserError, CellsLoopbackError) as error:
            logger.info("%s: no login without a person: %s", name, error)
            return False
        return True

    def _log_in(self, profile: Profile, open_browser_at: Callable[[str], None], timeout: float) -> None:
        """Log in as `login` does; without ``force``, so never as another user than the profile's."""
        import asyncio

        from cells_loopback.loopback_login.flow import log_in
        from cells_loopback.loopback_login.opening import Surroundings
        from cells_loopback.loopback_login.options import LoginOptions

        def open_url(url: str) -> None:
            self._claim(profile)
            try:
                open_browser_at(url)
            except BrowserError as error:  # the login would wait for its callback all the same
                raise LoginFailedError(error.reason, code="no_browser") from None

        def note(text: str) -> None:
            logger.info("%s: %s", profile.name, text)

        options = LoginOptions(profile=profile.name, timeout=timeout)
        asyncio.run(log_in(options, Surroundings(on_notice=note, open_url=open_url), self._config_dir))

    def _claim(self, profile: Profile) -> None:
        """Take the one browser of an ended session, before it is opened. Raises `LoginFailedError`."""
        name, ended, now = profile.name, profile.renewals.refresh_token_at, wall()
        with self._state.change() as state:
            record = state.record(name)
            if not may_open(record, ended, now):
                raise LoginFailedError(f"a browser was opened for {name} already", code="browser_open")
            state.records[name] = replace(record, browser_at=now, browser_of=ended)

    def _give_back(self, name: str, ended: float) -> None:
        """Let the browser be opened again, though not at once: the server was not there to go on with."""
        if self._state.read().record(name).browser_of == ended:
            with self._state.change() as state:
                state.records[name] = replace(state.record(name), browser_of=None)

    def tell(self, ended: Sequence[Profile]) -> None:
        """Tell the person about those ended sessions that nothing was said about yet. Raises `StoreError`."""
        ended = [profile for profile in ended if profile.settings.relogin != "never"]
        if not self._untold(ended, self._state.read().records):
            return
        now = wall()
        with self._state.change() as state:  # first, so that nobody else tells the same
            untold = self._untold(ended, state.records)
            before = {profile.name: state.record(profile.name) for profile in untold}
            for profile in untold:
                of = profile.renewals.refresh_token_at
                state.records[profile.name] = replace(before[profile.name], notified_at=now, notified_of=of)
        if untold and not self._notify(*describe(untold)):
            logger.info("there is no desktop to show a notification on")
            with self._state.change() as state:
                for name, record in before.items():
                    state.records[name] = replace(
                        state.record(name), notified_at=record.notified_at, notified_of=record.notified_of
                    )

    def _untold(self, ended: Sequence[Profile], records: Mapping[str, Record]) -> list[Profile]:
        now = wall()
        return [
            profile
            for profile in ended
            if may_notify(records.get(profile.name, Record()), profile.renewals.refresh_token_at, now)
        ]


def describe(ended: Sequence[Profile]) -> tuple[str, str]:
    """Return title and body of the notification about some ended sessions: what to do, and how."""
    commands = [f"cells-loopback login --profile {profile.name}" for profile in ended[:_MOST_COMMANDS]]
    if len(ended) > _MOST_COMMANDS:
        commands.append("cells-loopback status")
    if len(ended) == 1:
        title = f"Log in to {ended[0].site.authority} again"
        introduction = f"The session {ended[0].name} can no longer be renewed. Run in a terminal:"
    else:
        title = f"Log in again: {len(ended)} sessions have ended"
        introduction = "They can no longer be renewed. Run in a terminal:"
    return title, "\n".join([introduction, *commands])


def _check_server(profile: Profile) -> None:
    """Ask the server first: no browser is to be opened on one that is down. Raises what that raises."""
    from cells_loopback.http.discovery import find_server
    from cells_loopback.http.trust import Trust

    find_server(profile.site, Trust.of(profile.settings), try_http=False)


@contextmanager
def _persons_browser(
    profile: Profile, _config_dir: str, environ: Mapping[str, str]
) -> Iterator[Callable[[str], None]]:
    """Yield what opens a tab in the person's browser. Raises `BrowserError` when nobody would see it."""
    reason = why_no_screen(environ, this_platform(environ))
    if reason is not None:
        raise BrowserError(reason)
    command = _escaping_command(profile.settings.browser, environ)

    def open_tab(url: str) -> None:
        open_browser(url, command, environ=environ)

    yield open_tab


def _escaping_command(command: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the command that opens the browser outside the hardened unit, when we are inside."""
    words = find_browser(command, environ).argv("%s")
    escaped = escape_sandbox(words, environ)
    if escaped == words:
        return command
    import shlex

    return shlex.join(escaped)


@contextmanager
def _own_chromium(
    profile: Profile, config_dir: str, environ: Mapping[str, str]
) -> Iterator[Callable[[str], None]]:
    """Yield what goes to an address in the profile's own Chromium, without a window.

    Raises `BrowserError` when there is no such Chromium.
    """
    from cells_loopback.desktop.own_chromium import HeadlessChromium, headless_command, own_directory

    settings = profile.settings
    directory = own_directory(config_dir, profile.name)
    command = headless_command(directory, settings.browser, insecure=settings.insecure, environ=environ)
    started: list[HeadlessChromium] = []

    def start(url: str) -> None:
        escaped = escape_sandbox([*command, url], environ, seconds=int(HEADLESS_TIMEOUT))
        started.append(HeadlessChromium(escaped, environ))

    try:
        yield start
    finally:
        for chromium in started:
            chromium.close()


_BROWSERS = {"browser": (_persons_browser, BROWSER_TIMEOUT), "headless": (_own_chromium, HEADLESS_TIMEOUT)}
