"""``login`` and ``login_sync``: the login for programs that embed it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypedDict

from cells_loopback.errors import UsageError
from cells_loopback.loopback_login.flow import log_in
from cells_loopback.loopback_login.opening import Surroundings
from cells_loopback.loopback_login.options import LoginOptions
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from cells_loopback.events import Event
    from cells_loopback.loopback.pages import ResultPage
    from cells_loopback.protocol.pkce import PKCEPolicy
    from cells_loopback.session.session import Session
    from cells_loopback.store.profiles import ReloginPolicy, StoreKind


class LoginKeywords(TypedDict, total=False):
    """The options of `login`, as `LoginOptions` describes them."""

    profile: str | None
    client_id: str | None
    redirect_uris: tuple[str, ...]
    scope: str | None
    pkce: PKCEPolicy | None
    browser: str | None
    open_browser: bool
    timeout: float
    ca_bundle: str | None
    insecure: bool | None
    force: bool
    store: StoreKind | None
    relogin: ReloginPolicy | None
    app_name: str | None


async def login(
    site: str | None = None,
    *,
    client_secret: str | Secret | None = None,
    config_dir: str | None = None,
    on_event: Callable[[Event], object] | None = None,
    open_url: Callable[[str], object] | None = None,
    render_page: Callable[[ResultPage], bytes] | None = None,
    **options: Unpack[LoginKeywords],
) -> Session:
    """Log in through the person's browser and return the stored `Session`.

    ``site`` may be left out to log in again with the settings of the profile. ``on_event`` is called
    with each `Event`; ``open_url`` opens the browser in place of the system's way; ``render_page`` makes
    the HTML document that the browser shows at the end, from a `ResultPage`. Cancel the task to
    cancel the login: no listener and no changed session stays behind. Raises the errors of
    `loopback_login.flow.log_in`.
    """
    surroundings = Surroundings(
        on_event=on_event or (lambda _event: None), open_url=open_url, render_page=render_page
    )
    secret = Secret(client_secret) if isinstance(client_secret, str) else client_secret
    return await log_in(LoginOptions(site=site, client_secret=secret, **options), surroundings, config_dir)


def login_sync(
    site: str | None = None,
    *,
    client_secret: str | Secret | None = None,
    config_dir: str | None = None,
    on_event: Callable[[Event], object] | None = None,
    open_url: Callable[[str], object] | None = None,
    render_page: Callable[[ResultPage], bytes] | None = None,
    **options: Unpack[LoginKeywords],
) -> Session:
    """Do the same as `login`, for code without an event loop. Raises `UsageError` where one runs."""
    if _is_in_event_loop():
        raise UsageError("an event loop runs in this thread", hint="await cells_loopback.login there")
    return asyncio.run(
        login(
            site,
            client_secret=client_secret,
            config_dir=config_dir,
            on_event=on_event,
            open_url=open_url,
            render_page=render_page,
            **options,
        )
    )


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
