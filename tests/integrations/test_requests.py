"""A session in requests: renewed in time, replayed once, never sent elsewhere."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hosts import THREADS, Expiries, current_token, make_session
from requires import thorough
from sessions import age_session

from cells_loopback.errors import LoginRequiredError
from cells_loopback.testing import CellsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cells_loopback import Session

requests = pytest.importorskip("requests")

STATE, ECHO = "/a/frontend/state", "/a/test/echo"


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def session(server: CellsServer, config_dir: Path) -> Session:
    return make_session(server, config_dir)


@pytest.fixture
def send(session: Session) -> Iterator[Callable[..., Any]]:
    """Send one request."""
    with requests.Session() as client:
        client.auth = session.requests_auth()
        client.trust_env = False
        yield lambda method, url, **options: client.request(
            method, url if "://" in url else session.site + url, timeout=30, **options
        )


def sent_tokens(server: CellsServer, path: str) -> list[str]:
    return [
        request.authorization.removeprefix("Bearer ") for request in server.requests if request.path == path
    ]


class TestToken:
    def test_it_is_sent(self, server: CellsServer, config_dir: Path, send: Callable[..., Any]) -> None:
        assert send("GET", STATE).status_code == 200
        assert sent_tokens(server, STATE) == [current_token(config_dir)]

    def test_it_is_renewed_before_its_end(
        self, server: CellsServer, config_dir: Path, send: Callable[..., Any]
    ) -> None:
        age_session(config_dir, 600)
        assert send("GET", STATE).status_code == 200
        assert sent_tokens(server, STATE) == [current_token(config_dir)]
        assert server.count("refresh") == 1

    @pytest.mark.parametrize(
        "body",
        [{}, {"json": {"a": 1}}, {"data": {"a": "1"}}, {"data": b"bytes"}, {"files": {"f": b"file"}}],
        ids=["nothing", "json", "form", "bytes", "file"],
    )
    def test_a_401_is_answered_by_one_renewal_and_the_same_request_again(
        self, server: CellsServer, send: Callable[..., Any], body: dict[str, Any]
    ) -> None:
        server.expire_access_tokens()
        answer = send("POST", ECHO, **body)
        assert answer.status_code == 200
        assert [past.status_code for past in answer.history] == [401]
        assert server.count("refresh") == 1
        if body:
            assert answer.json()["body"]

    def test_a_401_that_stays_reaches_the_caller(self, server: CellsServer, send: Callable[..., Any]) -> None:
        assert send("GET", "/a/test/status/401").status_code == 401
        assert server.count("refresh") == 1
        assert server.count("rest") == 2

    @pytest.mark.parametrize("make_body", [lambda: iter([b"once"]), lambda: io.BytesIO(b"once")])
    def test_a_body_that_can_be_read_once_only_is_not_sent_again(
        self, server: CellsServer, send: Callable[..., Any], make_body: Callable[[], object]
    ) -> None:
        server.expire_access_tokens()
        assert send("POST", ECHO, data=make_body()).status_code == 401
        assert server.count("rest") == 1
        assert send("POST", ECHO, data=make_body()).status_code == 200
        assert server.count("refresh") == 1

    def test_a_fresh_one_takes_no_look_at_the_disk(
        self, send: Callable[..., Any], session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = session.token().access_token
        monkeypatch.setattr(session, "fresh_token", lambda: token)
        monkeypatch.setattr(session, "token", None)
        assert send("GET", STATE).status_code == 200

    def test_a_session_that_ended_says_so(self, server: CellsServer, send: Callable[..., Any]) -> None:
        server.revoke_sessions()
        with pytest.raises(LoginRequiredError):
            send("GET", STATE)


class TestElsewhere:
    def test_another_origin_gets_no_token(self, send: Callable[..., Any]) -> None:
        with CellsServer() as other:
            assert send("GET", other.site + STATE).status_code == 200
            assert sent_tokens(other, STATE) == [""]

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_a_redirect_to_another_origin_loses_it(
        self, server: CellsServer, send: Callable[..., Any], host: str
    ) -> None:
        with CellsServer(host=host) as other:
            assert send("GET", "/a/test/redirect", params={"to": other.site + STATE}).status_code == 200
            assert sent_tokens(other, STATE) == [""]
        assert server.count("refresh") == 0

    def test_a_redirect_within_the_site_keeps_it(self, send: Callable[..., Any]) -> None:
        assert send("GET", "/a/test/redirect", params={"to": "/a/test/echo"}).json()["user"] == "alice"

    def test_an_expired_token_on_the_way_of_a_redirect_is_renewed_once(
        self, server: CellsServer, send: Callable[..., Any]
    ) -> None:
        server.expire_access_tokens()
        assert send("GET", "/a/test/redirect", params={"to": "/a/test/echo"}).status_code == 200
        assert server.count("refresh") == 1


@thorough
def test_a_thousand_requests_from_32_threads_across_several_expiries(
    server: CellsServer, session: Session
) -> None:
    expiries = Expiries(server)
    auth = session.requests_auth()

    def work() -> None:
        while expiries.go_on():
            with expiries.request():
                assert requests.get(session.site + STATE, auth=auth, timeout=60).status_code == 200

    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(work) for _ in range(THREADS)]:
            done.result()
    expiries.judge()


def test_requests_itself_is_not_needed() -> None:
    code = "import cells_loopback.integrations.requests, sys; assert 'requests' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
