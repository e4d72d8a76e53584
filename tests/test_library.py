"""The library as an embedding program meets it: quiet, cancellable, and leaving everything as it was."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import warnings
from typing import TYPE_CHECKING

import pytest

import cells_loopback
from cells_loopback import LoginTimeoutError, NotLoggedInError, Session, UsageError, login, login_sync
from cells_loopback.events import AuthorizationURL
from cells_loopback.loopback_login import flow
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cells_loopback import Event
    from cells_loopback.library import LoginKeywords
    from cells_loopback.loopback.pages import ResultPage
    from cells_loopback.testing import CellsServer

ANY_PORT: LoginKeywords = {"client_id": "any-port", "redirect_uris": ("http://127.0.0.1:0/servers/callback",)}

IMPATIENT: LoginKeywords = {**ANY_PORT, "timeout": 0.2}


@pytest.fixture
def config_dir(tmp_path: Path) -> str:
    return str(tmp_path / "config")


@pytest.fixture
def person(server: CellsServer) -> Callable[[str], None]:
    """Opens an address as the person would: in another thread, logging in there."""

    def open_url(url: str) -> None:
        threading.Thread(target=server.sign_in, args=(url,), daemon=True).start()

    return open_url


def test_a_login_returns_a_session_that_works_at_once(
    server: CellsServer, config_dir: str, person: Callable[[str], None]
) -> None:
    seen: list[str] = []

    async def main() -> Session:
        return await login(
            server.site,
            config_dir=config_dir,
            on_event=lambda event: seen.append(event.event),
            open_url=person,
            **ANY_PORT,
        )

    session = asyncio.run(main())
    assert server.is_live_access_token(session.access_token())
    assert session.user is not None
    assert session.user.name == "alice"
    assert seen == ["authorization_url", "browser_opened", "callback_received", "token_received", "logged_in"]


def test_login_sync_is_the_same_without_a_loop(
    server: CellsServer, config_dir: str, person: Callable[[str], None]
) -> None:
    session = login_sync(server.site, config_dir=config_dir, open_url=person, **ANY_PORT)
    again = Session.load(config_dir=config_dir)
    assert again.access_token() == session.access_token()


def test_the_browser_is_told_of_a_defect_of_the_program_too(server: CellsServer, config_dir: str) -> None:
    shown: list[str] = []
    threads: list[threading.Thread] = []

    def open_url(url: str) -> None:
        threads.append(threading.Thread(target=lambda: shown.append(server.sign_in(url).text)))
        threads[0].start()

    def on_event(event: Event) -> None:
        if event.event == "token_received":
            raise RuntimeError("open-sesame")

    with pytest.raises(RuntimeError):
        login_sync(server.site, config_dir=config_dir, open_url=open_url, on_event=on_event, **ANY_PORT)
    threads[0].join()
    assert "The login failed unexpectedly." in shown[0]
    assert "open-sesame" not in shown[0]


def test_login_sync_inside_a_loop_is_wrong_usage(config_dir: str) -> None:
    async def main() -> None:
        login_sync("files.example.com", config_dir=config_dir)

    with pytest.raises(UsageError, match="event loop"):
        asyncio.run(main())


def test_a_client_secret_may_be_a_plain_string(
    server: CellsServer, config_dir: str, person: Callable[[str], None]
) -> None:
    options: LoginKeywords = {"client_id": "cells-curl", "redirect_uris": ANY_PORT["redirect_uris"]}
    session = login_sync(
        server.site, config_dir=config_dir, open_url=person, client_secret="password", **options
    )
    assert session.token(refresh_now=True)
    assert session.stored.client.client_secret == Secret("password")


def test_a_program_may_show_a_page_of_its_own(server: CellsServer, config_dir: str) -> None:
    shown: list[str] = []
    done = threading.Event()

    def open_url(url: str) -> None:
        def visit() -> None:
            shown.append(server.sign_in(url).text)
            done.set()

        threading.Thread(target=visit, daemon=True).start()

    def render_page(page: ResultPage) -> bytes:
        return f"<!doctype html><title>{page.outcome}</title><style>p{{}}</style><p>Back to work".encode()

    login_sync(server.site, config_dir=config_dir, open_url=open_url, render_page=render_page, **ANY_PORT)
    assert done.wait(10)
    assert "Back to work" in shown[0]


def test_events_are_typed_and_hold_no_secret(
    server: CellsServer, config_dir: str, person: Callable[[str], None]
) -> None:
    events: list[Event] = []
    login_sync(server.site, config_dir=config_dir, open_url=person, on_event=events.append, **ANY_PORT)
    told = repr(events) + repr([event.to_dict() for event in events])
    assert [secret for secret in server.secrets() if secret in told] == []


def test_cancelling_the_task_leaves_no_listener_and_no_session(server: CellsServer, config_dir: str) -> None:
    opened: list[str] = []

    async def main() -> int:
        announced = asyncio.Event()
        ports: list[int] = []

        def on_event(event: Event) -> None:
            if isinstance(event, AuthorizationURL):
                ports.append(int(event.redirect_uri.split(":")[2].split("/")[0]))
                announced.set()

        task = asyncio.create_task(
            login(server.site, config_dir=config_dir, open_url=opened.append, on_event=on_event, **ANY_PORT)
        )
        await announced.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return ports[0]

    port = asyncio.run(main())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    with pytest.raises(NotLoggedInError):
        Session.load(config_dir=config_dir)


def test_an_error_is_the_last_event_and_the_exception(
    server: CellsServer, config_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_DELIVERY_TIMEOUT", 0.1)  # seconds for a browser that never comes
    events: list[Event] = []
    with pytest.raises(LoginTimeoutError) as caught:
        login_sync(
            server.site,
            config_dir=config_dir,
            open_url=lambda _url: None,
            on_event=events.append,
            **IMPATIENT,
        )
    assert caught.value.exit_code == 6
    assert events[-1].to_dict()["exit_code"] == 6


def test_loop_logging_and_signal_handlers_stay_as_they_were(
    server: CellsServer, config_dir: str, person: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    def own_handler(number: int, frame: object) -> None: ...

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, own_handler)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    loop = asyncio.new_event_loop()
    try:
        session = loop.run_until_complete(
            login(server.site, config_dir=config_dir, open_url=person, **ANY_PORT)
        )
        session.token(refresh_now=True)
        assert signal.getsignal(signal.SIGTERM) is own_handler
        assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT]
        assert (list(root.handlers), root.level) == (handlers, level)
        assert not loop.is_closed()
    finally:
        loop.close()
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert capfd.readouterr().out == ""


def test_the_login_may_run_in_a_thread_of_a_program_with_a_loop_of_its_own(
    server: CellsServer, config_dir: str, person: Callable[[str], None]
) -> None:
    async def main() -> str:
        session = await asyncio.to_thread(
            lambda: login_sync(server.site, config_dir=config_dir, open_url=person, **ANY_PORT)
        )
        return await session.access_token_async()

    assert server.is_live_access_token(asyncio.run(main()))


def test_the_public_names_are_there_under_their_own_names() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert callable(cells_loopback.login)
        assert {name for name in cells_loopback.__all__ if not hasattr(cells_loopback, name)} == set()
