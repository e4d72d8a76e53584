"""A login as a program calls it, with a person who does what the test says, and everything that was seen."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from cells_loopback.errors import CellsLoopbackError
from cells_loopback.events import AuthorizationURL
from cells_loopback.loopback_login.flow import log_in
from cells_loopback.loopback_login.opening import Surroundings
from cells_loopback.loopback_login.options import LoginOptions
from cells_loopback.store.profiles import ProfileStore
from cells_loopback.testing import Browser

if TYPE_CHECKING:
    from collections.abc import Callable

    from cells_loopback.events import Event
    from cells_loopback.session.session import Session
    from cells_loopback.testing import CellsServer, Page, RecordedRequest

REDIRECT_URI = "http://127.0.0.1:0/servers/callback"


@dataclass
class Login:
    """One login by a program: what happened, and where it ended."""

    server: CellsServer
    config_dir: str
    options: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    session: Session | None = None
    error: CellsLoopbackError | None = None

    def run(self, person: Callable[[Login], object] | None = None) -> Login:
        """Log in; ``person`` acts in a thread of its own once the authorization URL is known."""
        act = person or Login.sign_in
        threads: list[threading.Thread] = []

        def open_url(_url: str) -> None:
            threads.append(threading.Thread(target=act, args=(self,), daemon=True))
            threads[0].start()

        options = {"client_id": "any-port", "redirect_uris": (REDIRECT_URI,), "timeout": 20.0, **self.options}
        surroundings = Surroundings(
            on_event=self.events.append,
            on_notice=lambda _text: None,
            open_url=open_url,
            one_time_address=False,
        )
        try:
            self.session = asyncio.run(
                log_in(LoginOptions(site=self.server.site, **options), surroundings, self.config_dir)
            )
        except CellsLoopbackError as error:
            self.error = error
        for thread in threads:
            thread.join(20)
        return self

    def sign_in(self) -> Page:
        """What a person does: log in where they were sent."""
        self.pages.append(self.server.sign_in(self.url))
        return self.pages[-1]

    @property
    def announced(self) -> AuthorizationURL:
        return next(event for event in self.events if isinstance(event, AuthorizationURL))

    @property
    def url(self) -> str:
        return self.announced.url

    @property
    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query))

    @property
    def redirect_uri(self) -> str:
        return self.announced.redirect_uri

    @property
    def port(self) -> int:
        return urlsplit(self.redirect_uri).port or 80

    @property
    def stored(self) -> list[str]:
        return ProfileStore(self.config_dir).names()

    @property
    def rejections(self) -> list[str]:
        return [event.to_dict()["reason"] for event in self.events if event.event == "callback_rejected"]

    def get(self, query: str, path: str = "/servers/callback", **headers: str) -> httpx.Response:
        """Ask the callback server, as anybody on the machine can."""
        url = f"http://127.0.0.1:{self.port}{path}{query}"
        return httpx.get(url, headers=headers, trust_env=False, timeout=20)

    @property
    def visible_secrets(self) -> list[str]:
        """Every code, token and verifier that has existed on the server so far."""
        return [secret for secret in self.server.secrets() if len(secret) > 8]


def requests_of(server: CellsServer, kind: str) -> list[RecordedRequest]:
    return [request for request in server.requests if request.kind == kind]


def ours(server: CellsServer) -> list[RecordedRequest]:
    """What this package has sent, and not a browser."""
    return [request for request in server.requests if "Mozilla" not in request.headers.get("User-Agent", "")]


class Thief(Browser):
    """A browser whose answer never reaches the callback server."""

    def _fetch(self, url: str, form: Any, history: tuple[str, ...] = ()) -> Any:
        if urlsplit(url).path == "/servers/callback":
            url = "cellsauth://callback?" + urlsplit(url).query  # where the embedded browser stops
        return super()._fetch(url, form, history)


def intercepted(login: Login) -> dict[str, str]:
    """The person logs in, and somebody else gets the parameters of the answer."""
    page = login.server.sign_in(login.url, browser=Thief())
    return dict(parse_qsl(urlsplit(page.url).query))
