"""The login, told in order: from a typed address to a session on the disk.

`opening` goes as far as the open browser: site, client and bound redirect URI, discovery,
authorization request. From there: the response that carries our ``state``, exchange, ID Token, who came
back, saved profile, the page that says so. Each step is an event. Everything is undone when it does not
end well: no listener, no half-written file, no changed session stays behind.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from cells_loopback import events
from cells_loopback.errors import CellsLoopbackError, LoginFailedError, LoginTimeoutError
from cells_loopback.loopback import pages
from cells_loopback.loopback.callback import CallbackServer
from cells_loopback.loopback_login.code_exchange import CodeExchange
from cells_loopback.loopback_login.opening import (
    announce,
    find_metadata,
    hold,
    login_lock,
    may_stand,
    open_browser_for,
    warn_beforehand,
)
from cells_loopback.loopback_login.options import plan_login
from cells_loopback.loopback_login.pasted import wait_for_address, wait_for_code
from cells_loopback.loopback_login.standing_session import still_works
from cells_loopback.process.background import first_of, in_thread, in_thread_to_its_end, unless_cancelled
from cells_loopback.protocol.authorization import start_authorization
from cells_loopback.protocol.client import out_of_band_client, out_of_band_redirect_uri
from cells_loopback.session.session import Session
from cells_loopback.store.config_dir import find_config_dir
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from cells_loopback.desktop.browser import BrowserProcess
    from cells_loopback.loopback_login.lock import LoginLock
    from cells_loopback.loopback_login.opening import Opening, Surroundings
    from cells_loopback.loopback_login.options import LoginOptions, LoginPlan
    from cells_loopback.protocol.authorization import AuthorizationRequest, AuthorizationResponse
    from cells_loopback.store.profiles import Profile

Result = TypeVar("Result")

_DELIVERY_TIMEOUT = 3.0
_CANCEL_TIMEOUT = 0.3  # a person who pressed Ctrl-C wants the prompt back
_BROWSER_WATCH, _BROWSER_PAUSE = 10.0, 0.2
_DEFECT = "The login failed unexpectedly."


async def log_in(
    options: LoginOptions,
    surroundings: Surroundings,
    config_dir: str | None = None,
    opening: Opening | None = None,
) -> Session:
    """Log in as ``options`` say and return the stored session.

    A cancellation undoes everything, until the session is on the disk: from then on it comes too late.
    ``opening`` is what `opening.open_at_once` has done already. Raises `LoginTimeoutError` when
    nobody finishes it in time, `LoginFailedError` when it is refused, `NotLoggedInError` when neither a
    site nor a profile tells where, `UntrustedServerError`, `ServerUnavailableError`, `StoreError` and
    `UsageError` as their names say. The last event is `LoggedIn` or `LoginError`.
    """
    store = ProfileStore(find_config_dir(config_dir))
    try:
        name = await _log_in(options, surroundings, store, opening)
        session = Session.load(name, config_dir=store.config_dir)
    except CellsLoopbackError as error:
        surroundings.on_event(failed_event(error))
        raise
    surroundings.on_event(logged_in_event(session.stored))
    return session


def failed_event(error: CellsLoopbackError) -> events.LoginError:
    """Return the last event of a login that failed."""
    return events.LoginError(
        code=error.code, message=error.message, hint=error.hint, exit_code=error.exit_code
    )


def logged_in_event(profile: Profile) -> events.LoggedIn:
    """Return the last event of a login that went well."""
    return events.LoggedIn(
        profile=profile.name,
        site=profile.site.url,
        user=profile.user.name,
        expires_at=events.format_optional_time(profile.tokens.expires_at),
        renewable=profile.tokens.renewable,
    )


async def _log_in(
    options: LoginOptions, surroundings: Surroundings, store: ProfileStore, opening: Opening | None
) -> str:
    if opening is not None:
        login = _Login(opening.plan, options, surroundings, store)
        await _holding(opening.lock, login.complete(opening))
        return opening.plan.name
    plan = plan_login(options, store)
    if may_stand(plan, options) and await in_thread(lambda: still_works(plan, store)):
        return plan.name
    lock = login_lock(store, plan)
    if await lock.acquire_or_join(options.timeout, _tell_join(plan, surroundings)):
        await _holding(lock, _Login(plan, options, surroundings, store).run(lock))
    return plan.name


async def _holding(lock: LoginLock, login: Coroutine[Any, Any, None]) -> None:
    """Do the login and tell those who wait for the lock how it ended."""
    try:
        await login
    except BaseException as error:
        lock.fail(error)
        raise
    lock.release(None)


def _tell_join(plan: LoginPlan, surroundings: Surroundings) -> Callable[[str], object]:
    return lambda pid: surroundings.on_notice(
        f"a login to {plan.site.url} is already under way (process {pid}): finish it in its browser tab"
    )


class _Login:
    """One login from the decided plan to the saved profile."""

    def __init__(
        self, plan: LoginPlan, options: LoginOptions, surroundings: Surroundings, store: ProfileStore
    ) -> None:
        self.plan = plan
        self.options = options
        self.surroundings = surroundings
        self.store = store

    async def run(self, lock: LoginLock) -> None:
        """Tell the story from the beginning."""
        if self.plan.settings.store == "keyring":
            from cells_loopback.store.keyring_store import check_keyring

            await in_thread(lambda: check_keyring(self.store.config_dir))
        warn_beforehand(self.plan, self.surroundings)
        redirect = None if self.options.paste else hold(self.plan, self.surroundings)
        try:
            # What is remembered is for a quick start; only a login with a browser here checks it later.
            remembered = redirect is not None
            site, metadata = await in_thread(lambda: find_metadata(self.plan, remembered=remembered))
            self.plan = self.plan.on_site(site)
            if redirect is None:
                client = out_of_band_client(self.plan.client)
                with_pkce = self.plan.settings.pkce != "off"
                uri = out_of_band_redirect_uri(site)
                await self._paste(start_authorization(metadata, client, uri, with_pkce=with_pkce))
                return
            opening = open_browser_for(
                self.plan, self.options, self.surroundings, self.store, lock, redirect, metadata
            )
        except BaseException:
            if redirect is not None:
                redirect.close()
            raise
        await self.complete(opening)

    async def complete(self, opening: Opening) -> None:
        """Go on from the open browser."""
        server = CallbackServer(
            opening.redirect.sockets, opening.redirect.redirect_uri, on_rejected=self._tell_rejected
        )
        server.expect(opening.request.state.reveal())
        if opening.start_path:  # the browser may be waiting there already
            server.expect_browser(opening.start_path)
        async with server:
            with self._exchange(opening.request, remembered=opening.remembered) as exchange:
                try:
                    await self._authorize(exchange, server, opening)
                except CellsLoopbackError as error:
                    nobody_came = isinstance(error, LoginTimeoutError)
                    patience = _CANCEL_TIMEOUT if nobody_came else _DELIVERY_TIMEOUT
                    await self._fail(server, error.message, error.hint, patience)
                    raise
                except asyncio.CancelledError:
                    await self._fail(server, "The login was cancelled.", "", _CANCEL_TIMEOUT)
                    raise
                except Exception:
                    await self._fail(
                        server, _DEFECT, "The program that you started tells more.", _DELIVERY_TIMEOUT
                    )
                    raise
                # The session is on the disk: a cancellation comes too late, and only ends the waiting.
                page = pages.success(self.plan.site.url, exchange.user.name, app_name=self._app_name)
                self._finish(server, page)
                if not await unless_cancelled(self._see_off(server, exchange)):
                    await unless_cancelled(server.delivered(_CANCEL_TIMEOUT))

    async def _see_off(self, server: CallbackServer, exchange: CodeExchange) -> None:
        """Wait until the page is there and, meanwhile, the replaced session has been ended on the server."""
        revocation = asyncio.create_task(in_thread(exchange.revoke_old))
        await server.delivered(_DELIVERY_TIMEOUT)
        await server.aclose()
        await revocation

    async def _fail(self, server: CallbackServer, message: str, hint: str, timeout: float) -> None:
        page = pages.failure(message, hint, site=self.plan.site.url, app_name=self._app_name)
        self._finish(server, page)
        await server.delivered(timeout)

    def _finish(self, server: CallbackServer, page: pages.ResultPage) -> None:
        server.finish(page, self.surroundings.render_page)

    @property
    def _app_name(self) -> str:
        return self.plan.settings.app_name or ""

    def _exchange(self, request: AuthorizationRequest, *, remembered: bool = False) -> CodeExchange:
        return CodeExchange(
            self.plan, self.store, request.metadata, self.surroundings.on_notice, remembered=remembered
        )

    async def _authorize(self, exchange: CodeExchange, server: CallbackServer, opening: Opening) -> None:
        request = await self._send_off(exchange, server, opening)
        response = await self._response(request, server, opening.deadline, opening.process)
        while not await in_thread(lambda: exchange.exchange(response)):  # noqa: B023 - awaited at once
            # Foreign PKCE: once more without it, in the same window, where the web session lives.
            request = exchange.restart_without_pkce(request)
            server.expect(request.state.reveal())
            if not server.redirect(request.url):
                announce(request, self.options, self.surroundings)  # it was pasted: its window is elsewhere
            response = await self._response(request, server, opening.deadline)
        await self._conclude(exchange)

    async def _send_off(
        self, exchange: CodeExchange, server: CallbackServer, opening: Opening
    ) -> AuthorizationRequest:
        """Let the browser go to the server, at a known one as soon as that is there and what it was."""
        request = opening.request
        if opening.remembered:
            metadata = await self._until(opening.deadline, in_thread(exchange.discover))
            if metadata.authorization_endpoint == request.metadata.authorization_endpoint:
                request = replace(request, metadata=metadata)
            else:
                with_pkce = request.code_verifier is not None
                request = start_authorization(
                    metadata, request.client, request.redirect_uri, with_pkce=with_pkce
                )
                server.expect(request.state.reveal())
                announce(request, self.options, self.surroundings)
        if opening.start_path:
            server.set_authorization_url(request.url)
        return request

    async def _conclude(self, exchange: CodeExchange) -> None:
        self.surroundings.on_event(events.TokenReceived())
        missing = exchange.missing_scope()
        if missing:
            self.surroundings.on_notice(f"the server granted less than was asked: without {missing}")
        await in_thread(exchange.identify)
        await in_thread_to_its_end(exchange.save)

    async def _paste(self, request: AuthorizationRequest) -> None:
        with self._exchange(request) as exchange:
            response = await self._pasted_response(request)
            while not await in_thread(lambda: exchange.exchange(response)):  # noqa: B023 - awaited at once
                request = exchange.restart_without_pkce(request)
                response = await self._pasted_response(request)
            await self._conclude(exchange)
            await unless_cancelled(in_thread(exchange.revoke_old))

    async def _pasted_response(self, request: AuthorizationRequest) -> AuthorizationResponse:
        lines = self.surroundings.pasted_lines
        if lines is None:
            raise LoginFailedError(
                "there is nobody to paste the code", hint="run it in a terminal", code="paste"
            )
        announce(request, self.options, self.surroundings)
        deadline = time.monotonic() + self.options.timeout
        parameters = await self._until(deadline, wait_for_code(request, lines))
        self.surroundings.on_event(events.CallbackReceived())
        return request.validate_response(parameters)

    async def _response(
        self,
        request: AuthorizationRequest,
        server: CallbackServer,
        deadline: float,
        process: BrowserProcess | None = None,
    ) -> AuthorizationResponse:
        """Wait for the answer with our state, from the browser here or pasted from one elsewhere.

        ``process`` is a browser that was started and may fail meanwhile.
        """
        sources: list[Coroutine[Any, Any, Mapping[str, str]]] = [server.wait()]
        if process is not None:
            sources.append(self._watch_browser(process, server))
        if self.surroundings.pasted_lines is not None:
            sources.append(wait_for_address(request, self.surroundings.pasted_lines, self._tell_wrong_paste))
        parameters = await self._until(deadline, first_of(sources))
        self.surroundings.on_event(events.CallbackReceived())
        return request.validate_response(parameters)

    async def _until(self, deadline: float, waiting: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await asyncio.wait_for(waiting, deadline - time.monotonic())
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            raise LoginTimeoutError(
                f"nobody finished the login within {self.options.timeout:g} s",
                hint="log in again; --timeout SECONDS gives more time",
            ) from None

    def _tell_rejected(self, reason: str) -> None:
        self.surroundings.on_event(events.CallbackRejected(reason=reason))

    def _tell_wrong_paste(self) -> None:
        self._tell_rejected("pasted_line")
        self.surroundings.on_notice("that is not the address this login waits for; it goes on waiting")

    async def _watch_browser(self, process: BrowserProcess, server: CallbackServer) -> Mapping[str, str]:
        """Tell when the browser that was started ends with an error at once."""
        for _ in range(int(_BROWSER_WATCH / _BROWSER_PAUSE)):
            status = process.poll()
            if status:
                reason = f"the browser ended at once with status {status}"
                self.surroundings.on_event(events.BrowserFailed(reason=reason))
                server.expect_no_browser()
            if status is not None:
                break
            await asyncio.sleep(_BROWSER_PAUSE)
        return await asyncio.Future()  # the answer comes from elsewhere
