"""Faults that can be switched on, and the request log that tells what really happened."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from bare_client import BareClient

from cells_loopback.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells_loopback.testing import CellsServer

DISCOVERY = "/oidc/.well-known/openid-configuration"
CUT = (urllib.error.URLError, http.client.HTTPException, ConnectionError)


@pytest.fixture
def client(server: CellsServer) -> BareClient:
    return BareClient(server)


@pytest.fixture
def in_background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def test_a_fault_answers_in_place_of_the_server_for_so_many_times(
    server: CellsServer, client: BareClient
) -> None:
    page = "<html>Bad gateway</html>"
    server.fault(DISCOVERY, Fault(status=502, times=2, headers={"Retry-After": "7"}, body=page))
    for _ in range(2):
        answer = client.get(DISCOVERY)
        assert (answer.status, answer.headers["Retry-After"], answer.text) == (502, "7", page)
    assert client.get(DISCOVERY).status == 200
    assert server.count("discovery") == 3
    assert server.count("discovery", 502) == 2


def test_a_fault_may_last_until_it_is_cleared(server: CellsServer, client: BareClient) -> None:
    server.fault("/oidc/*", Fault(status=503, times=None))
    assert [client.get(DISCOVERY).status for _ in range(3)] == [503] * 3
    assert client.get("/").status == 200
    server.clear_faults()
    assert client.get(DISCOVERY).status == 200


def test_a_fault_may_wait_for_its_turn(server: CellsServer, client: BareClient) -> None:
    server.fault("discovery", Fault(status=500, skip=1))
    assert [client.get(DISCOVERY).status for _ in range(3)] == [200, 500, 200]


def test_a_fault_may_act_on_refreshes_alone(server: CellsServer, client: BareClient) -> None:
    server.fault("refresh", Fault(status=429, headers={"Retry-After": "1"}))
    tokens = client.log_in()
    assert client.refresh(tokens["refresh_token"]).status == 429
    assert client.refresh(tokens["refresh_token"]).status == 200


def test_dropped_before_means_that_nothing_happened(server: CellsServer, client: BareClient) -> None:
    tokens = client.log_in()
    server.fault("refresh", Fault(drop="before"))
    with pytest.raises(CUT):
        client.refresh(tokens["refresh_token"])
    assert server.refresh_tokens() == [tokens["refresh_token"]]
    assert [request.status for request in server.requests if request.kind == "refresh"] == [None]
    assert client.refresh(tokens["refresh_token"]).status == 200


def test_dropped_after_means_that_the_answer_was_lost(server: CellsServer, client: BareClient) -> None:
    tokens = client.log_in()
    server.fault("refresh", Fault(drop="after"))
    with pytest.raises(CUT):
        client.refresh(tokens["refresh_token"])
    assert len(server.refresh_tokens()) == 1
    assert server.refresh_tokens() != [tokens["refresh_token"]]
    assert client.refresh(tokens["refresh_token"]).status == 400


def test_a_proxy_may_fail_after_the_server_has_rotated(server: CellsServer, client: BareClient) -> None:
    tokens = client.log_in()
    server.fault("refresh", Fault(status=504, processed=True))
    assert client.refresh(tokens["refresh_token"]).status == 504
    assert server.refresh_tokens() != [tokens["refresh_token"]]


def test_an_answer_may_be_edited(server: CellsServer, client: BareClient) -> None:
    server.fault("discovery", Fault(edit=lambda document: {**document, "issuer": "https://evil.example"}))
    assert client.get(DISCOVERY).json["issuer"] == "https://evil.example"
    assert client.get(DISCOVERY).json["issuer"] == f"{server.site}/oidc/"


def test_a_redirect_leads_to_another_origin(server: CellsServer, client: BareClient) -> None:
    server.fault("exchange", Fault(status=307, headers={"Location": "https://elsewhere.example/"}))
    answer = client.exchange("x")
    assert (answer.status, answer.headers["Location"]) == (307, "https://elsewhere.example/")


def test_padding_makes_an_answer_huge_and_still_json(server: CellsServer, client: BareClient) -> None:
    server.fault("discovery", Fault(padding=3_000_000))
    answer = client.get(DISCOVERY)
    assert "Content-Length" not in answer.headers
    assert len(answer.body) > 3_000_000
    assert answer.json["issuer"]


def test_an_answer_may_drip(server: CellsServer, client: BareClient) -> None:
    server.fault("discovery", Fault(status=200, body=b"0123456789", drip=0.01))
    started = time.monotonic()
    assert client.get(DISCOVERY).text == "0123456789"
    assert time.monotonic() - started > 0.09


def test_a_delay_comes_before_the_answer(server: CellsServer, client: BareClient) -> None:
    server.fault("discovery", Fault(delay=0.05, answer_delay=0.05))
    started = time.monotonic()
    assert client.get(DISCOVERY).status == 200
    assert time.monotonic() - started > 0.09


def test_a_request_is_held_until_the_test_lets_it_go(
    server: CellsServer, client: BareClient, in_background: ThreadPoolExecutor
) -> None:
    tokens = client.log_in()
    gate = threading.Event()
    server.fault("refresh", Fault(hold=gate))
    answer = in_background.submit(client.refresh, tokens["refresh_token"])
    server.wait_for("refresh")
    assert server.refresh_tokens() == [tokens["refresh_token"]]
    gate.set()
    assert answer.result().status == 200


def test_an_answer_is_held_after_the_server_has_rotated(
    server: CellsServer, client: BareClient, in_background: ThreadPoolExecutor
) -> None:
    tokens = client.log_in()
    gate = threading.Event()
    server.fault("refresh", Fault(answer_hold=gate))
    answer = in_background.submit(client.refresh, tokens["refresh_token"])
    server.wait_for("refresh")
    assert client.get(DISCOVERY).status == 200  # the others are served meanwhile
    assert server.refresh_tokens() != [tokens["refresh_token"]]
    assert not answer.done()
    gate.set()
    assert answer.result().json["refresh_token"] == server.refresh_tokens()[0]


def test_a_fault_acts_on_refusals_too(server: CellsServer, client: BareClient) -> None:
    server.fault("rest", Fault(drop="after"))
    with pytest.raises(CUT):
        client.get("/a/config/ctl", "nothing")
    server.fault("rest", Fault(edit=lambda body: {**body, "Detail": "edited"}))
    assert client.get("/a/config/ctl", "nothing").json["Detail"] == "edited"


def test_a_server_that_is_stopped_cuts_what_it_holds(
    server: CellsServer, client: BareClient, in_background: ThreadPoolExecutor
) -> None:
    server.fault("discovery", Fault(hold=threading.Event()))
    answer = in_background.submit(client.get, DISCOVERY)
    server.wait_for("discovery")
    server.stop()
    assert isinstance(answer.exception(), CUT)


# The request log


def test_the_log_tells_what_arrived(server: CellsServer, client: BareClient) -> None:
    client.log_in()
    assert [request.kind for request in server.requests] == [
        "authorize", "login-page", "login", "exchange",
    ]  # fmt: skip
    authorize, exchange = server.requests[0], server.requests[-1]
    assert (authorize.method, authorize.path) == ("GET", "/oidc/oauth2/auth")
    assert authorize.query["response_type"] == "code"
    assert authorize.client_id == exchange.client_id == "cells-mobile"
    assert exchange.form["grant_type"] == "authorization_code"
    assert exchange.status == 200
    assert exchange.headers["content-type"].startswith("application/x-www-form-urlencoded")


def test_the_log_knows_every_kind(server: CellsServer, client: BareClient) -> None:
    client.get("/oidc/.well-known/jwks.json")
    client.get("/oidc/oauth2/userinfo")
    client.get("/oauth2/oob")
    client.get("/a/user/alice")
    client.get("/io/object")
    client.get("/data")
    client.get("/?X-Amz-Signature=0")
    client.get("/elsewhere")
    client.revoke("x")
    client.refresh("x")
    client.post("/oidc/oauth2/token", {"grant_type": "password"})
    assert [request.kind for request in server.requests] == [
        "jwks", "userinfo", "oob", "rest", "s3", "s3", "s3", "other", "revoke", "refresh", "token",
    ]  # fmt: skip


def test_the_log_prints_no_secret(server: CellsServer, client: BareClient) -> None:
    tokens = client.log_in()
    client.get("/a/test/echo", tokens["access_token"])
    assert server.requests[-1].authorization == "Bearer " + tokens["access_token"]
    printed = repr(server.requests)
    assert not [secret for secret in server.secrets() if secret in printed]


def test_waiting_for_what_never_comes_says_so(server: CellsServer) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 refresh requests"):
        server.wait_for("refresh", timeout=0.01)
