"""A session in aiohttp's client: renewed in time, replayed once, never sent elsewhere."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from hosts import TASKS, Expiries, current_token, make_session
from sessions import age_session

from cells_loopback.errors import LoginRequiredError
from cells_loopback.testing import CellsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from cells_loopback import Session

STATE, ECHO = "/a/frontend/state", "/a/test/echo"


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def session(server: CellsServer, config_dir: Path) -> Session:
    return make_session(server, config_dir)


@pytest.fixture
def send(session: Session) -> Callable[..., tuple[int, str]]:
    """Send one request and return status and text."""

    async def send_one(method: str, url: str, **options: Any) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession(session.site, middlewares=(session.aiohttp_middleware(),)) as client,
            client.request(method, url, **options) as answer,
        ):
            return answer.status, await answer.text()

    return lambda *arguments, **options: asyncio.run(send_one(*arguments, **options))


def sent_tokens(server: CellsServer, path: str) -> list[str]:
    return [
        request.authorization.removeprefix("Bearer ") for request in server.requests if request.path == path
    ]


def make_form() -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("a", "1")
    form.add_field("f", b"file", filename="f")
    return form


class TestToken:
    def test_it_is_sent(
        self, server: CellsServer, config_dir: Path, send: Callable[..., tuple[int, str]]
    ) -> None:
        assert send("GET", STATE)[0] == 200
        assert sent_tokens(server, STATE) == [current_token(config_dir)]

    def test_it_is_renewed_before_its_end(
        self, server: CellsServer, config_dir: Path, send: Callable[..., tuple[int, str]]
    ) -> None:
        age_session(config_dir, 600)
        assert send("GET", STATE)[0] == 200
        assert sent_tokens(server, STATE) == [current_token(config_dir)]
        assert server.count("refresh") == 1

    @pytest.mark.parametrize(
        "body",
        [{}, {"json": {"a": 1}}, {"data": {"a": "1"}}, {"data": b"bytes"}, {"data": "text"}],
        ids=["nothing", "json", "form", "bytes", "text"],
    )
    def test_a_401_is_answered_by_one_renewal_and_the_same_request_again(
        self, server: CellsServer, send: Callable[..., tuple[int, str]], body: dict[str, Any]
    ) -> None:
        server.expire_access_tokens()
        status, text = send("POST", ECHO, **body)
        assert status == 200
        assert server.count("refresh") == 1
        first, second = [request for request in server.requests if request.path == ECHO]
        assert (first.status, second.status) == (401, 200)
        assert first.headers.get("Content-Length") == second.headers.get("Content-Length")
        assert not body or '"body": ""' not in text

    def test_a_401_that_stays_reaches_the_caller(
        self, server: CellsServer, send: Callable[..., tuple[int, str]]
    ) -> None:
        assert send("GET", "/a/test/status/401")[0] == 401
        assert server.count("refresh") == 1

    @pytest.mark.parametrize("kind", ["generator", "file", "multipart"])
    def test_a_body_that_can_be_read_once_only_is_not_sent_again(
        self, server: CellsServer, session: Session, send: Callable[..., tuple[int, str]], kind: str
    ) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"once"

        bodies: dict[str, Callable[[], object]] = {
            "generator": chunks,
            "file": lambda: io.BytesIO(b"once"),
            "multipart": make_form,
        }
        server.expire_access_tokens()
        status, _ = send("POST", ECHO, data=bodies[kind]())
        if status == 401:
            assert server.count("rest") == 1
            assert send("POST", ECHO, data=bodies[kind]())[0] == 200  # the renewed token serves this one
        assert server.count("refresh") == 1

    def test_a_session_that_ended_says_so(
        self, server: CellsServer, send: Callable[..., tuple[int, str]]
    ) -> None:
        server.revoke_sessions()
        with pytest.raises(LoginRequiredError):
            send("GET", STATE)


class TestElsewhere:
    def test_another_origin_gets_no_token(self, send: Callable[..., tuple[int, str]]) -> None:
        with CellsServer() as other:
            assert send("GET", other.site + STATE)[0] == 200
            assert sent_tokens(other, STATE) == [""]

    def test_a_redirect_to_another_origin_loses_it(
        self, server: CellsServer, send: Callable[..., tuple[int, str]]
    ) -> None:
        with CellsServer() as other:
            assert send("GET", "/a/test/redirect", params={"to": other.site + STATE})[0] == 200
            assert sent_tokens(other, STATE) == [""]
        assert server.count("refresh") == 0

    def test_a_websocket_goes_without_it(self, server: CellsServer, session: Session) -> None:
        async def main() -> None:
            async with aiohttp.ClientSession(middlewares=(session.aiohttp_middleware(),)) as client:
                await client.ws_connect(session.site.replace("http", "ws", 1) + ECHO)

        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            asyncio.run(main())
        assert sent_tokens(server, ECHO) == [""]

    def test_a_redirect_within_the_site_keeps_it(self, send: Callable[..., tuple[int, str]]) -> None:
        assert send("GET", "/a/test/redirect", params={"to": ECHO})[0] == 200


def test_a_thousand_requests_from_256_tasks_across_several_expiries(
    server: CellsServer, session: Session
) -> None:
    expiries = Expiries(server)

    async def work(client: aiohttp.ClientSession) -> None:
        while expiries.go_on():
            with expiries.request():
                async with client.get(STATE) as answer:
                    assert answer.status == 200
                    await answer.read()

    async def main() -> None:
        middlewares = (session.aiohttp_middleware(),)
        connector = aiohttp.TCPConnector(limit=0)  # nobody waits for a connection, which is not fair there
        async with aiohttp.ClientSession(
            session.site, middlewares=middlewares, connector=connector
        ) as client:
            await asyncio.gather(*(work(client) for _ in range(TASKS)))

    asyncio.run(main())
    expiries.judge()
