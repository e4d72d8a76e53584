"""The opening of a login: everything up to the open browser, with nothing heavy imported.

httpx and aiohttp take longer to import than all of this takes to run, and the person types meanwhile.
`flow` tells the rest of the story.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cells_loopback import events
from cells_loopback.clock import format_time
from cells_loopback.desktop.browser import BrowserError, open_browser
from cells_loopback.early_browser import make_start_path
from cells_loopback.http.discovery import find_server
from cells_loopback.loopback.redirect import LoopbackRedirect, hold_redirect_uri
from cells_loopback.loopback_login.lock import LoginLock
from cells_loopback.loopback_login.options import plan_login
from cells_loopback.protocol.authorization import start_authorization
from cells_loopback.store.profiles import file_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cells_loopback.desktop.browser import BrowserProcess
    from cells_loopback.early_browser import EarlyBrowser
    from cells_loopback.loopback.pages import ResultPage
    from cells_loopback.loopback_login.options import LoginOptions, LoginPlan
    from cells_loopback.protocol.authorization import AuthorizationRequest
    from cells_loopback.protocol.site import ServerMetadata, Site
    from cells_loopback.store.profiles import ProfileStore


def log_notice(text: str) -> None:
    """Tell what a person should know to whoever reads the log of the program around us."""
    import logging

    logging.getLogger("cells_loopback").warning("%s", text)


@dataclass(frozen=True)
class Surroundings:
    """The outside world of one login: what a program may replace by its own.

    ``open_url`` opens an address in a browser, in place of the system's. ``render_page`` makes the HTML
    document of a result page, in place of `pages.render_page`; it may hold ``<style>`` elements and loads
    nothing. ``pasted_lines`` yields what a person types while we wait. ``one_time_address`` keeps the
    authorization URL off the browser's command line, which other users can read.
    """

    on_event: Callable[[events.Event], object] = lambda _event: None
    on_notice: Callable[[str], object] = log_notice
    open_url: Callable[[str], object] | None = None
    render_page: Callable[[ResultPage], bytes] | None = None
    pasted_lines: AsyncIterator[str] | None = None
    one_time_address: bool = True


@dataclass(frozen=True)
class Opening:
    """A login whose browser is on its way.

    ``start_path`` is the one-time address it was sent to, '' when it was sent to the authorization URL
    itself or none was opened. ``remembered`` means that the request was made from the metadata of the
    last login, which is still to be compared with the server's.
    """

    plan: LoginPlan
    lock: LoginLock
    redirect: LoopbackRedirect
    request: AuthorizationRequest
    deadline: float
    start_path: str = ""
    process: BrowserProcess | None = None
    remembered: bool = False

    def abandon(self) -> None:
        """Leave nothing behind of a login that does not go on; nothing happens when it has ended."""
        self.redirect.close()
        self.lock.abandon()


def login_lock(store: ProfileStore, plan: LoginPlan) -> LoginLock:
    """Return the lock of logins to the plan's profile; creates the directory."""
    store.prepare()
    return LoginLock(os.path.join(store.directory, file_name(plan.name) + ".login"))


def may_stand(plan: LoginPlan, options: LoginOptions) -> bool:
    """Whether the stored session may still work, so that no browser must be opened before that is known."""
    known = plan.known
    if known is None or options.force or known.needs_login:
        return False
    if options.names_client and plan.client != known.client:
        return False
    # The keep-alive's own Chromium is of use only after a person has logged in there.
    return plan.settings.relogin != "headless" or known.settings.relogin == "headless"


def open_at_once(
    options: LoginOptions, surroundings: Surroundings, store: ProfileStore, early: EarlyBrowser | None
) -> Opening | None:
    """Open the browser of a login that certainly needs one; None leaves it to `flow`.

    Raises the errors of `flow.log_in`.
    """
    plan = plan_login(options, store)
    if options.paste or plan.settings.store == "keyring" or may_stand(plan, options):
        return None
    lock = login_lock(store, plan)
    if early is not None:
        lock.take_over(early.take_over())
    elif not lock.try_acquire():
        return None
    try:
        warn_beforehand(plan, surroundings)
        redirect = hold(plan, surroundings, early)
        try:
            site, metadata = find_metadata(plan)
            return open_browser_for(
                plan.on_site(site), options, surroundings, store, lock, redirect, metadata, early
            )
        except BaseException:
            redirect.close()
            raise
    except BaseException as error:
        lock.fail(error)
        raise


def warn_beforehand(plan: LoginPlan, surroundings: Surroundings) -> None:
    """Tell what the person should know before logging in."""
    if plan.settings.insecure:
        surroundings.on_notice("certificates are not checked: anybody in between can read the token")
    if not plan.client.asks_for_refresh_token:
        surroundings.on_notice(
            "the scope has no 'offline': the session will end with its first token and cannot be renewed"
        )


def hold(plan: LoginPlan, surroundings: Surroundings, early: EarlyBrowser | None = None) -> LoopbackRedirect:
    """Hold a redirect URI, and tell about a detour. Raises `LoginFailedError` when all are taken."""
    if early is not None:
        return LoopbackRedirect(plan.client, early.redirect_uri, tuple(early.sockets))
    redirect = hold_redirect_uri(plan.client, preferred=plan.known.redirect_uri if plan.known else None)
    if redirect.notice:
        surroundings.on_notice(redirect.notice)
    return redirect


def find_metadata(plan: LoginPlan, *, remembered: bool = True) -> tuple[Site, ServerMetadata]:
    """Return the site in the scheme that answers, and its metadata: ``remembered``, or as discovered.

    Raises what `discovery.find_server` raises.
    """
    if remembered and plan.known is not None and plan.known.site == plan.site:
        return plan.site, plan.known.metadata
    return find_server(plan.site, plan.trust, try_http=plan.scheme_is_open)


def open_browser_for(
    plan: LoginPlan,
    options: LoginOptions,
    surroundings: Surroundings,
    store: ProfileStore,
    lock: LoginLock,
    redirect: LoopbackRedirect,
    metadata: ServerMetadata,
    early: EarlyBrowser | None = None,
) -> Opening:
    """Make the authorization request, announce it and open the browser."""
    request = start_authorization(
        metadata, redirect.client, redirect.redirect_uri, with_pkce=plan.settings.pkce != "off"
    )
    announce(request, options, surroundings)
    start_path, process = "", None
    if early is not None:
        start_path, process = early.start_path, early.process
        surroundings.on_event(events.BrowserOpened())
    elif options.open_browser:
        start_path = make_start_path() if surroundings.one_time_address else ""
        url = redirect.origin + start_path if start_path else request.url
        try:
            process = _open_tab(url, plan, surroundings, store)
        except BrowserError as error:
            surroundings.on_event(events.BrowserFailed(reason=str(error)))
            start_path = ""  # nobody will come there
    return Opening(
        plan=plan,
        lock=lock,
        redirect=redirect,
        request=request,
        deadline=time.monotonic() + options.timeout,
        start_path=start_path,
        process=process,
        remembered=plan.known is not None and metadata is plan.known.metadata,
    )


def announce(request: AuthorizationRequest, options: LoginOptions, surroundings: Surroundings) -> None:
    """Tell the address at which the person logs in."""
    surroundings.on_event(
        events.AuthorizationURL(
            url=request.url,
            redirect_uri=request.redirect_uri,
            expires_at=format_time(time.time() + options.timeout),
        )
    )


def _open_tab(
    url: str, plan: LoginPlan, surroundings: Surroundings, store: ProfileStore
) -> BrowserProcess | None:
    """Open ``url`` in the browser, and return its process where there is one. Raises `BrowserError`."""
    process = None
    if surroundings.open_url is not None:
        surroundings.open_url(url)
    else:
        process = open_browser(url, _browser_command(plan, store))
    surroundings.on_event(events.BrowserOpened())
    return process


def _browser_command(plan: LoginPlan, store: ProfileStore) -> str | None:
    settings = plan.settings
    if settings.relogin != "headless":
        return settings.browser
    from cells_loopback.desktop.own_chromium import own_directory, visible_command

    directory = own_directory(store.config_dir, plan.name)
    return visible_command(directory, settings.browser, insecure=settings.insecure)
