"""The connections to the callback server: bounded in bytes, in time and in number.

The port is known to every web page and every program on the machine. Whatever they do with it, a
connection here ends by itself, and a new one is always accepted: when there are too many, the oldest
that has not asked for anything goes. So nobody can hold up a login, only lose a connection.

aiohttp's protocol gets one whole request head at a time and never sees a partial one, a body or what
follows. What a request means, and what it is answered, is `callback`'s part.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable

_HEAD_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.[01]\r\n")

_logger = logging.getLogger(__name__)

# aiohttp's own error lines quote the request, and the request may hold a code: they go nowhere.
_silent_logger = logging.getLogger(f"{__name__}.aiohttp")
_silent_logger.disabled = True


@dataclass(frozen=True)
class Limits:
    """What one client may take. The browser's own request needs a thousandth of it."""

    head_bytes: int = 16 * 1024
    """Request line and headers together; browsers and servers commonly stop at 8 to 16 KiB."""

    head_seconds: float = 5.0
    """From the connection to the end of the request head."""

    linger_seconds: float = 1.0
    """For dropping what a refused client still sends: closing with unread data is a TCP reset, and that
    can take our answer out of its hands (RFC 9112 §9.6)."""

    dropped_bytes: int = 64 * 1024
    """More than this is left unread, so that a flood costs the flooder and not us."""

    closing_seconds: float = 1.0
    """For an answer that is being written while the server closes."""

    connections: int = 256
    """At the same time. Fewer where the system gives few descriptors (macOS: 256 to a process)."""


class Connections:
    """All open connections, oldest first."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        refusal: Callable[[int, str], web.Response],
        on_refused: Callable[[str], None],
        on_closed: Callable[[Connection, bool], None],
        limits: Limits,
    ) -> None:
        # handler_cancellation: a handler that waits for the login's end ends with its connection.
        self._server = web.Server(handler, handler_cancellation=True)
        self._on_closed = on_closed
        self._maximum = min(limits.connections, _affordable_connections())
        self._open: dict[Connection, None] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()
        self.is_closing = False
        self.refusal = refusal
        self.on_refused = on_refused
        self.limits = limits

    def __len__(self) -> int:
        return len(self._open)

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self)

    def make_http(self, connection: Connection) -> RequestProtocol:
        """Make aiohttp's side of a connection that has a request."""
        return RequestProtocol(connection, self._server)

    def add(self, connection: Connection) -> None:
        """Take a new connection in; the oldest that nothing is known of makes room for it."""
        if self.is_closing:  # it was accepted a moment before the listening sockets were closed
            connection.abort()
        self._open[connection] = None
        self._none_open.clear()
        if len(self._open) > self._maximum:
            oldest = next((other for other in self._open if not other.is_held), None)
            if oldest is not None:
                self.on_refused("too_many_connections")
                oldest.abort()
                del self._open[oldest]  # the next one to make room is another

    def discard(self, connection: Connection, *, cleanly: bool) -> None:
        """Forget a connection that is gone; ``cleanly`` when all that was written to it has been sent."""
        self._open.pop(connection, None)
        if not self._open:
            self._none_open.set()
        self._on_closed(connection, cleanly)

    async def stop_accepting(self, sockets: Iterable[socket.socket]) -> None:
        """Accept nothing more on ``sockets``, which may be closed when this returns.

        asyncio accepts in one turn of its loop and makes the connection in the next: what it has
        accepted when its server is closed would be lost, and stay open until it is collected.
        """
        self.is_closing = True
        for listening in sockets:
            try:
                asyncio.get_running_loop().remove_reader(listening)
            except RuntimeError:  # other loops than asyncio's own for POSIX have no readers and lose nothing
                pass
        await asyncio.sleep(0)

    async def aclose(self, *, finish_answers: bool) -> None:
        """End all connections at once, but with ``finish_answers`` let what is being answered be written."""
        for connection in list(self._open):
            if not (finish_answers and connection.is_held and connection.is_answering):
                connection.abort()
        try:
            await asyncio.wait_for(self._none_open.wait(), self.limits.closing_seconds)
        except asyncio.TimeoutError:
            for connection in list(self._open):
                connection.abort()
            await self._none_open.wait()


class _Phase(enum.Enum):
    READING = enum.auto()  # waiting for a request head
    ANSWERING = enum.auto()  # aiohttp has the request
    LINGERING = enum.auto()  # answered; what still comes is dropped


class Connection(asyncio.Protocol):
    """One connection. It serves one request, and another one only after `allow_another`."""

    def __init__(self, group: Connections) -> None:
        self._group = group
        self._limits = group.limits
        self._transport: asyncio.Transport | None = None
        self._http: RequestProtocol | None = None
        self._phase = _Phase.READING
        self._head = bytearray()
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._at_eof = asyncio.Event()
        self.is_held = False

    @property
    def is_answering(self) -> bool:
        """Whether a request has been taken and its answer is not all written."""
        return self._phase is _Phase.ANSWERING

    @property
    def is_at_eof(self) -> bool:
        """Whether the client has sent its last: most often, it has gone."""
        return self._at_eof.is_set()

    def hold(self) -> None:
        """Keep this connection however many others come: its client has shown that it belongs here."""
        self.is_held = True

    def allow_another(self, seconds: float) -> bool:
        """Take another request within ``seconds`` after the answer to come; False when none can come."""
        if self.is_at_eof or self._group.is_closing:
            return False
        self._phase = _Phase.READING
        self._start_timer(seconds, self._on_overdue)
        return True

    async def linger_after(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Answer, then drop what the client still sends, until it stops or its time is over."""
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:  # it has gone already
            return
        self._stop_sending()
        try:
            await asyncio.wait_for(self._at_eof.wait(), self._limits.linger_seconds)
        except asyncio.TimeoutError:
            pass

    def close(self) -> None:
        """End the connection when everything is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection without another word."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock and make room."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a TCP server; for mypy
        self._transport = transport
        self._start_timer(self._limits.head_seconds, self._on_overdue)
        self._group.add(self)

    def data_received(self, data: bytes) -> None:
        """Collect one request head and hand it on whole."""
        if self._phase is not _Phase.READING:
            self._drop(data)
            return
        limit = self._limits.head_bytes
        searched = max(0, len(self._head) - len(_HEAD_END))
        self._head += data[: limit + 1]
        end = self._head.find(_HEAD_END, searched, limit)
        if not self._head[:1].isalpha():
            # A TLS handshake, a scanner, leading empty lines: none of them grows into a request.
            self._refuse(400, "malformed")
        elif end >= 0 and not _REQUEST_LINE.match(self._head):
            self._refuse(400, "malformed")
        elif end >= 0:
            head = bytes(self._head[: end + len(_HEAD_END)])
            self._head.clear()
            self._phase = _Phase.ANSWERING
            self._pass_on(head)
        elif len(self._head) >= limit:
            self._refuse(431, "too_large")

    def eof_received(self) -> bool:
        """Stay open for a client that has said all and waits for the answer."""
        self._at_eof.set()
        if self._phase is _Phase.READING and self._head:  # half a request, and the rest never comes
            self._refuse(400, "malformed")
        return self._phase is _Phase.ANSWERING

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up, and tell whose connection it was."""
        self._stop_timer()
        self._at_eof.set()
        if self._http is not None:
            self._http.connection_lost(exc)
        self._group.discard(self, cleanly=exc is None)

    def pause_writing(self) -> None:
        """Forward the transport's flow control."""
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """Forward the transport's flow control."""
        if self._http is not None:
            self._http.resume_writing()

    def begin_answer(self) -> None:
        """Stop the clock: aiohttp has made a request of the head."""
        self._stop_timer()

    def refuse_unreadable(self, status: int) -> web.Response:
        """Return the answer to a head that aiohttp makes no request of."""
        self._stop_timer()
        reason = "malformed" if status < 500 else "internal_error"
        self._group.on_refused(reason)
        return self._group.refusal(status, reason)

    def _pass_on(self, head: bytes) -> None:
        if self._http is None and self._transport is not None:
            self._http = self._group.make_http(self)
            self._http.connection_made(self._transport)
        if self._http is not None:
            self._http.data_received(head)

    def _drop(self, data: bytes) -> None:
        """Read what is not asked for only so far as a client may send it before it sees our answer."""
        self._dropped += len(data)
        if self._dropped > self._limits.dropped_bytes and self._transport is not None:
            self._transport.pause_reading()

    def _on_overdue(self) -> None:
        if self.is_held:  # it was sent on, and has not come back on this connection
            self.close()
        else:
            self._refuse(408, "request_timeout")

    def _refuse(self, status: int, reason: str) -> None:
        """Answer in place of aiohttp, which has seen nothing of this request."""
        self._group.on_refused(reason)
        self._head.clear()
        if self._transport is not None:
            self._transport.write(_serialize(self._group.refusal(status, reason)))
        self._stop_sending()
        self._start_timer(self._limits.linger_seconds, self.abort)

    def _stop_sending(self) -> None:
        self._phase = _Phase.LINGERING
        try:
            if self._transport is not None and self._transport.can_write_eof():
                self._transport.write_eof()
        except OSError:  # the client has reset the connection already
            self.abort()

    def _start_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RequestProtocol(web.RequestHandler):
    """aiohttp's side of a `Connection`."""

    def __init__(self, connection: Connection, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log_class=_NoAccessLog,
            logger=_silent_logger,
            lingering_time=0,
            tcp_keepalive=False,
        )
        self.connection = connection

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's own signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """Answer what aiohttp cannot parse in our own words, without repeating any of it."""
        if status >= 500:
            _logger.error("the callback server failed: %s", type(exc).__name__)
        return self.connection.refuse_unreadable(status)


class _NoAccessLog(AbstractAccessLogger):
    """Requests hold codes: none is logged."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log nothing."""

    @property
    def enabled(self) -> bool:
        return False


def _serialize(response: web.Response) -> bytes:
    body = response.body if isinstance(response.body, bytes) else b""
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name != "Content-Length"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def _affordable_connections() -> int:
    """Return half of the descriptors that this process may have; the rest is for everything else."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return Limits.connections
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Limits.connections if soft == resource.RLIM_INFINITY else max(16, soft // 2)
