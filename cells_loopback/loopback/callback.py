"""The server of one login: it sends the browser off, receives the answer, and shows how it ended.

A browser comes up to three times, each time to an address that only it can know::

    GET /start/<random>                 -> 303 to the authorization URL, once
    GET <redirect path>?code=..&state=..   waits for the login's end, then -> 303
    GET /result/<random>                -> the page

The last step takes the code out of the address bar and the history. Everybody else can reach the
port too (RFC 8252 §8.3): every other request is answered, reported by a word, and changes nothing.
Whether a code is good, and what the page says, is for `loopback_login` to decide.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cells_loopback.loopback import pages
from cells_loopback.loopback.callback_request import (
    RejectedError,
    check_request,
    host_authorities,
    is_by_browser,
    parse_query,
)
from cells_loopback.loopback.callback_response import page_response, redirect_response, refusal
from cells_loopback.loopback.connections import Connections, Limits, RequestProtocol
from cells_loopback.loopback.listener import BACKLOG

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from aiohttp import web

    from cells_loopback.loopback.callback_request import CallbackResponse
    from cells_loopback.loopback.connections import Connection

REPORTS_PER_REASON = 3
"""How often one kind of rejected request is reported: a page that fires them in a loop is one story."""

FOLLOW_PATIENCE = {True: 5.0, False: 1.0}
"""Seconds that a browser has left to come for the page on the connection that it was sent on, however busy
the machine is; and any other client, which may keep it open without an intention to come."""

FOLLOW_GRACE = 0.3
"""Seconds that a client which has closed its connection has left to come for the page on a new one."""

BROWSER_PATIENCE = 10.0
"""Seconds in which a browser that was opened at the start address is expected to come there."""

_ACCEPTS_PER_TURN = 32  # so that an old connection is read before many new ones push it out


class CallbackServer:
    """The callback server of one login, on sockets that listen already.

    ``on_rejected`` hears the word for each kind of request that was not this login's, a few times.
    Order of use: `expect`, `start`, `wait`, then `finish`, `delivered` and `aclose`.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        redirect_uri: str,
        *,
        on_rejected: Callable[[str], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        parts = urlsplit(redirect_uri)
        self._sockets = list(sockets)
        self._servers: list[asyncio.Server] = []
        self._connections: Connections | None = None
        self._limits = limits or Limits()
        self._on_rejected = on_rejected
        self._rejections: Counter[str] = Counter()
        self._authorities = host_authorities(parts.hostname or "", parts.port or 80)
        self._redirect_path = parts.path or "/"
        self._start_path = ""
        self._result_path = "/result/" + secrets.token_urlsafe(32)
        self._start = _Errand()
        self._start_is_open = self._browser_is_due = False
        self._state: bytes | None = None
        self._answers: list[_Answer] = []
        self._current: _Answer | None = None
        self._received = asyncio.Event()
        self._document: bytes | None = None
        self._audience = _Audience()
        self._over = asyncio.Event()

    async def start(self) -> None:
        """Serve; whoever has connected since the sockets were bound is served first."""
        self._connections = Connections(
            self._handle,
            refusal=refusal,
            on_refused=self._report,
            on_closed=self._on_closed,
            limits=self._limits,
        )
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            server = await loop.create_server(self._connections, sock=listening, backlog=_ACCEPTS_PER_TURN)
            self._servers.append(server)
            # asyncio has one number for two things: what the system queues, and what is taken at once.
            listening.listen(BACKLOG)

    async def aclose(self) -> None:
        """Stop listening at once and end all connections; the page that is being written is finished."""
        sockets, self._sockets = self._sockets, []
        try:
            if self._connections is not None:
                await self._connections.stop_accepting(sockets)
        finally:
            for server in self._servers:
                server.close()
            for listening in sockets:
                listening.close()
        if self._connections is not None:
            await self._connections.aclose(finish_answers=self._document is not None)

    async def __aenter__(self) -> CallbackServer:
        try:
            await self.start()
        except BaseException:  # a cancellation too, which may come when one address is served already
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    def expect_browser(self, start_path: str) -> None:
        """Expect one browser at ``start_path``, an address that nobody can guess, and send it on from there.

        That address stands in the browser's command line, which every user of the machine can read, in
        place of the authorization URL with its ``state``. `delivered` waits for the browser to come, if
        only for `BROWSER_PATIENCE`. Call it before `start`: the browser may be there already.
        """
        self._start_path = start_path
        self._start_is_open = self._browser_is_due = True
        asyncio.get_running_loop().call_later(BROWSER_PATIENCE, self.expect_no_browser)

    def expect_no_browser(self) -> None:
        """Stop expecting a browser at the start address: the one that was opened does not come."""
        self._browser_is_due = False
        self._check_audience()

    def set_authorization_url(self, url: str) -> None:
        """Send the browser that is, or will be, at the start address to ``url``."""
        self._start.settle(_Destination(url))

    def expect(self, state: str) -> None:
        """Accept the answer with this ``state`` from now on, and no other."""
        self._state = state.encode()
        self._current = None
        self._received.clear()

    async def wait(self) -> CallbackResponse:
        """Wait for the answer with the expected state; its browser stays, waiting for `finish`.

        After another `expect` and a `redirect` it waits again, for the second answer.
        """
        while self._current is None:
            await self._received.wait()
        return self._current.parameters

    def redirect(self, url: str) -> bool:
        """Send the browser that brought the answer to ``url``: a second authorization in its window.

        Returns whether a browser brought it; a person may have carried it over.
        """
        for answer in self._answers:
            answer.errand.settle(_Destination(url))
        return bool(self._answers)

    def finish(
        self, page: pages.ResultPage, render: Callable[[pages.ResultPage], bytes] | None = None
    ) -> None:
        """Show ``page`` to the browser, whether it waits with the answer or still at the start.

        ``render`` makes an HTML document of it in place of `pages.render_page`.
        """
        self._document = (render or pages.render_page)(page)
        for errand in (self._start, *(answer.errand for answer in self._answers)):
            errand.settle(_Destination(self._result_path, self._document))
        self._check_audience()

    async def delivered(self, timeout: float) -> bool:
        """Wait until the browser has the page of `finish`, or no browser is there to have it.

        ``timeout`` in seconds. Returns whether anybody has got the page.
        """
        try:
            await asyncio.wait_for(self._over.wait(), timeout)
        except asyncio.TimeoutError:
            pass
        return self._audience.has_page

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request.protocol, RequestProtocol)  # noqa: S101 - there is no other; for mypy
        connection = request.protocol.connection
        connection.begin_answer()
        try:
            return await self._answer(request, connection)
        except RejectedError as rejected:
            self._report(rejected.reason)
            response = refusal(rejected.status, rejected.reason)
            if request.body_exists:
                await connection.linger_after(request, response)
            return response

    async def _answer(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        check_request(request, self._authorities)
        path, _, query = request.raw_path.partition("?")
        if path == self._redirect_path:
            errand = self._accept(parse_query(query))
            return self._send(request, connection, await self._errand_of(connection, errand))
        if self._start_path and _is_same(path, self._start_path):
            return await self._send_off(request, connection)
        if _is_same(path, self._result_path) and self._document is not None:
            connection.hold()
            self._audience.reads(connection)
            return page_response(200, self._document)
        raise RejectedError(404, "not_found")

    def _accept(self, parameters: CallbackResponse) -> _Errand:
        """Find the answer that this request repeats, or take it as the one that was expected."""
        digest = hashlib.sha256(repr(sorted(parameters.items())).encode()).digest()
        for answer in self._answers:
            if hmac.compare_digest(answer.digest, digest):
                return answer.errand
        if "state" not in parameters:
            raise RejectedError(400, "state_missing")
        if self._state is None or not hmac.compare_digest(parameters["state"].encode(), self._state):
            raise RejectedError(400, "state_mismatch")
        if self._current is not None:
            raise RejectedError(400, "already_answered")
        self._current = _Answer(parameters, digest)
        self._answers.append(self._current)
        self._received.set()
        if self._document is not None:  # it has ended meanwhile, in another way or by its time limit
            self._current.errand.settle(_Destination(self._result_path, self._document))
        return self._current.errand

    async def _send_off(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        """Send one browser on from the start address: the first that still waits when it is known where."""
        destination = await self._errand_of(connection, self._start)
        if connection.is_at_eof or not self._start_is_open:  # reloaded meanwhile, or another came first
            self._audience.left(connection, cleanly=False)
            raise RejectedError(410, "already_used")
        self._start_is_open = self._browser_is_due = False
        return self._send(request, connection, destination)

    async def _errand_of(self, connection: Connection, errand: _Errand) -> _Destination:
        """Let a browser wait until it is known where it goes."""
        connection.hold()
        self._audience.waits(connection)
        return await errand.wait()

    def _send(
        self, request: web.BaseRequest, connection: Connection, destination: _Destination
    ) -> web.Response:
        response = redirect_response(destination.location, destination.document)
        if destination.document is None:
            self._audience.left(connection, cleanly=False)
            response.force_close()
        else:
            # Kept open: a browser comes for the page on the same connection, and a client that does
            # not follow closes it. Either way nobody waits longer than needed.
            self._audience.follows(connection)
            if not connection.allow_another(FOLLOW_PATIENCE[is_by_browser(request.headers)]):
                response.force_close()
        return response

    def _on_closed(self, connection: Connection, cleanly: bool) -> None:
        if self._audience.left(connection, cleanly=cleanly):
            asyncio.get_running_loop().call_later(FOLLOW_GRACE, self._end_grace)
        self._check_audience()

    def _end_grace(self) -> None:
        self._audience.end_grace()
        self._check_audience()

    def _check_audience(self) -> None:
        nobody_comes = self._audience.is_empty and not self._browser_is_due
        if self._document is not None and (self._audience.has_read or nobody_comes):
            self._over.set()

    def _report(self, reason: str) -> None:
        self._rejections[reason] += 1
        if self._on_rejected is not None and self._rejections[reason] <= REPORTS_PER_REASON:
            self._on_rejected(reason)


@dataclass(frozen=True)
class _Destination:
    """Where a browser is sent; ``document`` is what it will find there when that is a page of ours."""

    location: str = field(repr=False)
    document: bytes | None = field(default=None, repr=False)


class _Errand:
    """What a browser waits for: its destination, settled once, the same for all who ask."""

    def __init__(self) -> None:
        self._destination: _Destination | None = None
        self._settled = asyncio.Event()

    def settle(self, destination: _Destination) -> None:
        if self._destination is None:
            self._destination = destination
            self._settled.set()

    async def wait(self) -> _Destination:
        while self._destination is None:
            await self._settled.wait()
        return self._destination


@dataclass(frozen=True)
class _Answer:
    """An authorization response that was accepted, and its browser's errand."""

    parameters: CallbackResponse
    digest: bytes = field(repr=False)
    errand: _Errand = field(default_factory=_Errand)


class _Audience:
    """Who still has to see the page: those that wait for it, are on their way to it, or are reading it."""

    def __init__(self) -> None:
        self._waiting: set[Connection] = set()
        self._following: set[Connection] = set()
        self._reading: set[Connection] = set()
        self._graces = 0
        self.has_page = False  # somebody has it, be it as the body of the redirect
        self.has_read = False  # somebody has it where it belongs

    def waits(self, connection: Connection) -> None:
        self._waiting.add(connection)

    def follows(self, connection: Connection) -> None:
        self._waiting.discard(connection)
        self._following.add(connection)

    def reads(self, connection: Connection) -> None:
        self._following.discard(connection)
        self._reading.add(connection)

    def left(self, connection: Connection, *, cleanly: bool) -> bool:
        """Take a closed connection out; True when its client may come back on another, within a grace."""
        self._waiting.discard(connection)
        if connection in self._reading:
            self._reading.discard(connection)
            self.has_read = self.has_read or cleanly
            self.has_page = self.has_page or cleanly
        if connection not in self._following:
            return False
        self._following.discard(connection)
        self.has_page = self.has_page or cleanly
        self._graces += 1
        return True

    def end_grace(self) -> None:
        self._graces -= 1

    @property
    def is_empty(self) -> bool:
        return not (self._waiting or self._following or self._reading or self._graces)


def _is_same(path: str, secret_path: str) -> bool:
    return hmac.compare_digest(path.encode(), secret_path.encode())
