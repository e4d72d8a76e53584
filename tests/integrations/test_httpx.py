"""A session in httpx, sync and async: renewed in time, replayed once, never sent elsewhere."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from hosts import TASKS, THREADS, Expiries, ShortLives, current_token, make_session
from requires import THOROUGH, thorough
from sessions import age_session

from cells_loopback.errors import LoginRequiredError, ServerUnavailableError
from cells_loopback.testing import CellsServer, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from cells_loopback import Session

UNDER_WAY = 64 if THOROUGH else 8
STATE, ECHO = "/a/frontend/state", "/a/test/echo"


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def session(server: CellsServer, config_dir: Path) -> Session:
    return make_session(server, config_dir)


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest, session: Session) -> Callable[..., httpx.Response]:
    """Send one request with a client of either kind."""

    def send_sync(method: str, url: str, **options: object) -> httpx.Response:
        with httpx.Client(base_url=session.site, auth=session.auth, follow_redirects=True) as client:
            return client.request(method, url, **options)  # type: ignore[arg-type]  # passed on as they are

    async def send_async(method: str, url: str, **options: object) -> httpx.Response:
        auth = session.auth
        async with httpx.AsyncClient(base_url=session.site, auth=auth, follow_redirects=True) as client:
            return await client.request(method, url, **options)  # type: ignore[arg-type]  # as above

    if request.param == "sync":
        return send_sync
    return lambda *arguments, **options: asyncio.run(send_async(*arguments, **options))


def sent_tokens(server: CellsServer, path: str) -> list[str]:
    return [
        request.authorization.removeprefix("Bearer ") for request in server.requests if request.path == path
    ]


class TestToken:
    def test_it_is_sent(
        self, server: CellsServer, config_dir: Path, send: Callable[..., httpx.Response]
    ) -> None:
        assert send("GET", STATE).status_code == 200
        assert sent_tokens(server, STATE) == [current_token(config_dir)]
        assert server.count("refresh") == 0

    def test_it_is_renewed_before_its_end(
        self, server: CellsServer, config_dir: Path, send: Callable[..., httpx.Response]
    ) -> None:
        age_session(config_dir, 600)
        assert send("GET", STATE).status_code == 200
        assert sent_tokens(server, STATE) == [current_token(config_dir)]
        assert server.count("refresh") == 1

    @pytest.mark.parametrize(
        "body",
        [{}, {"json": {"a": 1}}, {"data": {"a": "1"}}, {"content": b"bytes"}, {"files": {"f": b"file"}}],
        ids=["nothing", "json", "form", "bytes", "file"],
    )
    def test_a_401_is_answered_by_one_renewal_and_the_same_request_again(
        self, server: CellsServer, send: Callable[..., httpx.Response], body: dict[str, object]
    ) -> None:
        server.expire_access_tokens()
        answer = send("POST", ECHO, **body)
        assert answer.status_code == 200
        assert server.count("refresh") == 1
        first, second = [request for request in server.requests if request.path == ECHO]
        assert (first.status, second.status) == (401, 200)
        assert first.headers.get("Content-Length") == second.headers.get("Content-Length")
        if body:
            assert answer.json()["body"]

    def test_a_401_that_stays_reaches_the_caller(
        self, server: CellsServer, send: Callable[..., httpx.Response]
    ) -> None:
        assert send("GET", "/a/test/status/401").status_code == 401
        assert server.count("refresh") == 1
        assert server.count("rest") == 2

    def test_a_403_is_no_401(self, server: CellsServer, send: Callable[..., httpx.Response]) -> None:
        assert send("GET", "/a/test/status/403").status_code == 403
        assert server.count("refresh") == 0


class TestStreams:
    """A body that can be read once only is not sent a second time."""

    def test_sync(self, server: CellsServer, config_dir: Path, session: Session) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"once"

        server.expire_access_tokens()
        with httpx.Client(base_url=session.site, auth=session.auth) as client:
            assert client.post(ECHO, content=chunks()).status_code == 401
            assert server.count("rest") == 1
            assert client.post(ECHO, content=chunks()).status_code == 200  # the renewed token serves this one
        assert server.count("refresh") == 1

    def test_async(self, server: CellsServer, session: Session) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"once"

        async def main() -> list[int]:
            async with httpx.AsyncClient(base_url=session.site, auth=session.auth) as client:
                return [(await client.post(ECHO, content=chunks())).status_code for _ in range(2)]

        server.expire_access_tokens()
        assert asyncio.run(main()) == [401, 200]
        assert server.count("refresh") == 1


class TestElsewhere:
    def test_another_origin_gets_no_token(self, send: Callable[..., httpx.Response]) -> None:
        with CellsServer() as other:
            assert send("GET", other.site + STATE).status_code == 200
            assert sent_tokens(other, STATE) == [""]

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_a_redirect_to_another_origin_loses_it(
        self, server: CellsServer, send: Callable[..., httpx.Response], host: str
    ) -> None:
        with CellsServer(host=host) as other:
            answer = send("GET", "/a/test/redirect", params={"to": other.site + STATE})
            assert answer.status_code == 200
            assert sent_tokens(other, STATE) == [""]
        assert server.count("refresh") == 0

    def test_a_redirect_within_the_site_keeps_it(
        self, server: CellsServer, config_dir: Path, send: Callable[..., httpx.Response]
    ) -> None:
        assert send("GET", "/a/test/redirect", params={"to": ECHO}).json()["user"] == "alice"

    def test_a_401_of_another_origin_renews_nothing(
        self, server: CellsServer, send: Callable[..., httpx.Response]
    ) -> None:
        with CellsServer() as other:
            assert send("GET", other.site + ECHO).status_code == 401
            assert send("GET", "/a/test/redirect", params={"to": other.site + ECHO}).status_code == 401
            assert len(sent_tokens(other, ECHO)) == 2
        assert server.count("refresh") == 0


class TestFailures:
    def test_they_are_those_of_the_session(
        self, server: CellsServer, config_dir: Path, send: Callable[..., httpx.Response]
    ) -> None:
        age_session(config_dir, 600)
        server.fault("refresh", Fault(status=503, headers={"Retry-After": "9999"}))
        with pytest.raises(ServerUnavailableError):
            send("GET", STATE)
        assert server.count("rest") == 0

    def test_a_session_that_ended_says_so(
        self, server: CellsServer, send: Callable[..., httpx.Response]
    ) -> None:
        server.revoke_sessions()
        with pytest.raises(LoginRequiredError):
            send("GET", STATE)


@thorough
class TestManyRequests:
    """A thousand requests across several expiries: no 401 reaches the caller, one refresh for each expiry."""

    def test_from_threads(self, server: CellsServer, session: Session) -> None:
        expiries = Expiries(server)

        def work() -> None:
            while expiries.go_on():
                with expiries.request():
                    assert client.get(STATE).status_code == 200

        with (
            httpx.Client(base_url=session.site, auth=session.auth) as client,
            ThreadPoolExecutor(THREADS) as threads,
        ):
            for done in [threads.submit(work) for _ in range(THREADS)]:
                done.result()
        expiries.judge()

    def test_from_tasks(self, server: CellsServer, session: Session) -> None:
        expiries = Expiries(server)

        async def work(client: httpx.AsyncClient, gate: asyncio.Semaphore) -> None:
            while expiries.go_on():
                async with gate:
                    with expiries.request():
                        assert (await client.get(STATE)).status_code == 200

        async def main() -> None:
            # httpcore looks at all that wait, for each connection: they wait here rather than there.
            gate = asyncio.Semaphore(UNDER_WAY)
            async with httpx.AsyncClient(base_url=session.site, auth=session.auth) as client:
                await asyncio.gather(*(work(client, gate) for _ in range(TASKS)))

        asyncio.run(main())
        expiries.judge()

    def test_while_tokens_live_for_two_seconds(self, server: CellsServer, config_dir: Path) -> None:
        lives = ShortLives(server)
        session = make_session(server, config_dir)

        def work() -> None:
            with httpx.Client(base_url=session.site, auth=session.auth) as client:
                while lives.go_on():
                    assert client.get(STATE).status_code == 200

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        lives.judge()
