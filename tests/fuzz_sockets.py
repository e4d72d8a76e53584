"""The two readers that are fuzzed from the first byte on: the callback server, and our HTTP clients."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from examples import RESPONSE, TOKENS

from cells_loopback.errors import CellsLoopbackError
from cells_loopback.http.discovery import find_server
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.loopback.callback import CallbackServer
from cells_loopback.loopback.connections import Limits
from cells_loopback.loopback.listener import bind_loopback
from cells_loopback.protocol.site import Site, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

TIME_LIMIT = 10.0
STATE = "qX7-the-state-of-this-login-and-no-other-Zk9"
CALLBACK_PATH = "/servers/callback"


@contextmanager
def waiting_login() -> Iterator[Callable[[list[bytes]], None]]:
    """A login that waits for its answer; at the end the right one must still be taken at once."""
    login = _Login()
    try:
        yield login.check
        login.check_that_the_right_answer_is_taken()
    finally:
        login.close()


class _Login:
    """A callback server in a thread of its own, asked over real connections."""

    def __init__(self) -> None:
        self._sockets = bind_loopback("localhost", 0)
        self._port = int(self._sockets[0].getsockname()[1])
        self._host = f"localhost:{self._port}"
        self._reported: list[str] = []
        self._errors: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, context: self._errors.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(self._start())
        self._answer = asyncio.run_coroutine_threadsafe(self._server.wait(), self._loop)

    async def _start(self) -> CallbackServer:
        server = CallbackServer(
            self._sockets,
            f"http://{self._host}{CALLBACK_PATH}",
            on_rejected=self._reported.append,
            limits=Limits(head_seconds=1.0, linger_seconds=0.2),
        )
        await server.start()
        server.expect(STATE)
        return server

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIME_LIMIT)

    def close(self) -> None:
        self._answer.cancel()
        self._run(self._server.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def check(self, pieces: list[bytes]) -> None:
        """Send the pieces, each by itself, and look at what came of it."""
        data = [piece.replace(b"{host}", self._host.encode()) for piece in pieces]
        reply = self._ask(data)
        assert reply == b"" or reply.startswith(b"HTTP/1."), reply
        assert b"internal_error" not in reply
        assert "internal_error" not in self._reported
        assert not self._errors, self._errors
        if STATE.encode() not in b"".join(data):
            assert not self._answer.done(), "an answer without the state was accepted"

    def _ask(self, data: list[bytes]) -> bytes:
        reply = b""
        with socket.create_connection(("127.0.0.1", self._port), TIME_LIMIT) as client:
            try:
                for piece in data:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
                while received := client.recv(65536):
                    reply += received
            except TimeoutError:
                raise
            except OSError:  # it had answered, and did not want to hear the rest
                pass
        return reply

    def check_that_the_right_answer_is_taken(self) -> None:
        request = f"GET {CALLBACK_PATH}?code=c&state={STATE} HTTP/1.1\r\nHost: {self._host}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self._port), TIME_LIMIT) as client:
            client.sendall(request.encode())
            assert self._answer.result(2)["state"] == STATE


@contextmanager
def answering_server(judge: Callable[[CellsLoopbackError], None]) -> Iterator[Callable[[bytes], None]]:
    """A server that answers everything with the same bytes, and both ways in which we would read them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answers = [b""]
        threading.Thread(target=_serve, args=(listening, answers), daemon=True).start()
        site = Site("http", "127.0.0.1", listening.getsockname()[1])

        def check(answer: bytes) -> None:
            answers[0] = answer
            for ask in (_get, _post, _find):
                try:
                    ask(site)
                except CellsLoopbackError as error:
                    judge(error)

        try:
            yield check
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, answers: list[bytes]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(answers[0])
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                pass


def _get(site: Site) -> None:
    with SiteClient(site, Trust()) as client:
        client.get(f"{site.url}/x", bearer=TOKENS.access_token).json_object()


def _post(site: Site) -> None:
    with SiteClient(site, Trust()) as client:
        client.post_form(f"{site.url}/x", {"code": RESPONSE.code}, None).json_object()


def _find(site: Site) -> None:
    _, metadata = find_server(site, Trust(), try_http=False)
    assert origin_of(metadata.token_endpoint) == site.url
