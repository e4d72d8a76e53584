"""What holds for every host library: a traceback through an integration shows no token."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
from examples import TOKENS

import cells_loopback
from cells_loopback.errors import ServerUnavailableError
from cells_loopback.integrations.aiohttp import SessionMiddleware
from cells_loopback.integrations.httpx import SessionAuth
from cells_loopback.integrations.requests import RequestsAuth
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from cells_loopback.protocol.tokens import TokenSet
    from cells_loopback.testing import CellsServer

PACKAGE = Path(cells_loopback.__file__).parent
ECHO = "/a/test/echo"
TOKEN = "ory_at_to-be-kept"


class Source:
    """A source whose token is refused by the server, and whose renewal fails."""

    def __init__(self, site: str) -> None:
        self.site = site

    def fresh_token(self) -> Secret | None:
        return Secret(TOKEN)

    def token(self, *, min_valid: float | None = None, rejected: Secret | None = None) -> TokenSet:
        if rejected is not None:
            raise ServerUnavailableError("it is down")
        return replace(TOKENS, access_token=Secret(TOKEN))


def with_httpx(site: str) -> None:
    with httpx.Client(auth=SessionAuth(Source(site))) as client:
        client.get(site + ECHO)


async def with_httpx_async(site: str) -> None:
    async with httpx.AsyncClient(auth=SessionAuth(Source(site))) as client:
        await client.get(site + ECHO)


async def with_aiohttp(site: str) -> None:
    async with aiohttp.ClientSession(middlewares=(SessionMiddleware(Source(site)),)) as client:
        await client.get(site + ECHO)


def with_requests(site: str) -> None:
    requests = pytest.importorskip("requests")
    requests.get(site + ECHO, auth=RequestsAuth(Source(site)), timeout=30)


HOSTS: dict[str, Callable[[str], Any]] = {
    "httpx": with_httpx,
    "httpx, async": lambda site: asyncio.run(with_httpx_async(site)),
    "aiohttp": lambda site: asyncio.run(with_aiohttp(site)),
    "requests": with_requests,
}


def our_locals(traceback: TracebackType | None) -> Iterator[str]:
    """Show the local variables of our frames, as a crash reporter does."""
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename).is_relative_to(PACKAGE):
            yield repr(traceback.tb_frame.f_locals)
        traceback = traceback.tb_next


@pytest.mark.parametrize("host", HOSTS)
def test_a_renewal_that_fails_shows_no_token(host: str, server: CellsServer) -> None:
    with pytest.raises(ServerUnavailableError) as raised:
        HOSTS[host](server.site)
    shown = [*our_locals(raised.tb)]
    assert shown
    assert TOKEN not in "".join(shown)
