"""A browser made of sockets, and the server of one login for it to talk to."""

from __future__ import annotations

import asyncio
import functools
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cells_loopback.loopback.callback import CallbackServer
from cells_loopback.loopback.listener import LOOPBACK, bind_loopback, is_listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any, ParamSpec

    from cells_loopback.loopback.connections import Limits

    Parameters = ParamSpec("Parameters")

STATE = "s" * 43
PATH = "/servers/callback"
START = "/start/" + "r" * 43
ANSWER = f"{PATH}?code=the-code&state={STATE}"
AUTHORIZATION_URL = "https://files.example.com/oidc/oauth2/auth?client_id=cells-client&state=" + STATE
TIME_LIMIT = 10.0


def free_port() -> int:
    """Return a port that nobody listens on, of those that are not given to outgoing connections."""
    first = 20_000 + os.getpid() * 7 % 10_000
    for port in range(first, 32_000):
        if not any(is_listening(address, port) for address in LOOPBACK):
            return port
    raise AssertionError("no port is free")


def asynchronous(test: Callable[Parameters, Coroutine[Any, Any, None]]) -> Callable[Parameters, None]:
    """Run a test in an event loop of its own, for a limited time."""

    @functools.wraps(test)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        async def limited() -> None:
            await asyncio.wait_for(test(*args, **kwargs), TIME_LIMIT)

        asyncio.run(limited())

    return run


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def location(self) -> str:
        return self.headers.get("location", "")


class Client:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def get(self, port: int, target: str, *lines: str, host: str = "localhost") -> None:
        await self.send(request(target, *lines, host=f"{host}:{port}"))

    def half_close(self) -> None:
        self._writer.write_eof()

    async def reply(self) -> Reply:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Reply(int(status_line.split()[1]), headers, body.decode())

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass


def request(target: str, *lines: str, method: str = "GET", host: str = "localhost") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")


@dataclass
class Login:
    """The server of one login as a test sees it, listening but not started."""

    server: CallbackServer
    port: int
    rejected: list[str]
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def connect(self, address: str = "127.0.0.1") -> Client:
        client = Client(*await asyncio.open_connection(address, self.port))
        self._stack.push_async_callback(client.close)
        return client

    async def get(self, target: str, *lines: str, host: str = "localhost") -> Reply:
        return await self.ask(request(target, *lines, host=f"{host}:{self.port}"))

    async def ask(self, data: bytes) -> Reply:
        client = await self.connect()
        await client.send(data)
        return await client.reply()

    async def opened(self, target: str) -> Client:
        """A connection whose request waits for its answer."""
        client = await self.connect()
        await client.get(self.port, target)
        return client

    async def round_trip(self) -> None:
        """Until the server has seen all that was sent to it before."""
        await self.get("/favicon.ico")
        self.rejected.remove("not_found")


@asynccontextmanager
async def bound(host: str = "localhost", limits: Limits | None = None) -> AsyncIterator[Login]:
    sockets = bind_loopback(host, 0)
    port = sockets[0].getsockname()[1]
    authority = f"[{host}]" if ":" in host else host
    rejected: list[str] = []
    server = CallbackServer(
        sockets, f"http://{authority}:{port}{PATH}", on_rejected=rejected.append, limits=limits
    )
    login = Login(server, port, rejected)
    async with login._stack:
        try:
            yield login
        finally:
            await server.aclose()


@asynccontextmanager
async def serving(host: str = "localhost", limits: Limits | None = None) -> AsyncIterator[Login]:
    """A login that waits for the answer with `STATE`."""
    async with bound(host, limits) as login:
        login.server.expect(STATE)
        await login.server.start()
        yield login


@asynccontextmanager
async def sending_off() -> AsyncIterator[Login]:
    """A login whose browser is to come to `START`."""
    async with serving() as login:
        login.server.expect_browser(START)
        yield login
