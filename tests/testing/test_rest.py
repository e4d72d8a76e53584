"""The embedded server's little REST API, and the endpoints made to test clients with."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from bare_client import BareClient

if TYPE_CHECKING:
    from cells_loopback.testing import CellsServer


@pytest.fixture
def client(server: CellsServer) -> BareClient:
    return BareClient(server)


@pytest.fixture
def token(server: CellsServer) -> str:
    return server.add_personal_access_token()


def test_the_sample_call_is_for_administrators(server: CellsServer, client: BareClient) -> None:
    assert client.get("/a/config/ctl", client.log_in()["access_token"]).json["Services"]
    answer = client.get("/a/config/ctl", server.add_personal_access_token("bob"))
    assert (answer.status, answer.json["Status"]) == (403, "Forbidden")


@pytest.mark.parametrize(
    "path", ["/a/config/ctl", "/a/user/alice", "/a/test/echo", "/a/test/status/200", "/a/nothing"]
)
@pytest.mark.parametrize("token", ["", "nothing"])
def test_a_bad_token_is_a_401_in_json(client: BareClient, path: str, token: str) -> None:
    answer = client.get(path, token)
    assert (answer.status, answer.json["Code"]) == (401, 401)


def test_the_state_of_the_web_page_is_xml_and_tells_who_asks(client: BareClient, token: str) -> None:
    user = ET.fromstring(client.get("/a/frontend/state", token).text).find("user")
    assert user is not None
    assert user.get("id") == "alice"
    assert ET.fromstring(client.get("/a/frontend/state").text).find("user") is None
    assert client.get("/a/frontend/state", "nothing").status == 401


def test_any_user_may_look_up_a_user(server: CellsServer, client: BareClient) -> None:
    bobs = server.add_personal_access_token("bob")
    user = client.get("/a/user/alice", bobs).json
    assert (user["Login"], user["Uuid"]) == ("alice", server.user.uuid)
    assert user["Attributes"]["email"] == "alice@example.com"
    assert client.get("/a/user/nobody", bobs).status == 404


def test_personal_access_tokens_end(server: CellsServer, client: BareClient) -> None:
    short = server.add_personal_access_token(lifetime=60)
    long = server.add_personal_access_token()
    server.advance(61)
    assert client.get("/a/test/echo", short).status == 401
    assert client.get("/a/test/echo", long).status == 200
    server.revoke_personal_access_tokens()
    assert client.get("/a/test/echo", long).status == 401


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_the_echo_tells_what_arrived_but_not_the_token(client: BareClient, token: str, method: str) -> None:
    answer = client.get("/a/test/echo?a=1&b=%20", token, method, b"a body")
    echo = answer.json
    assert (echo["method"], echo["query"], echo["body"]) == (method, {"a": "1", "b": " "}, "a body")
    assert (echo["user"], echo["headers"]["Authorization"]) == ("alice", "Bearer ***")
    assert token not in answer.text


@pytest.mark.parametrize("status", [200, 204, 301, 404, 429, 503])
def test_a_status_of_choice(client: BareClient, token: str, status: int) -> None:
    assert client.get(f"/a/test/status/{status}", token).status == status


def test_a_redirect_to_anywhere(client: BareClient, token: str) -> None:
    answer = client.get("/a/test/redirect?to=https://elsewhere.example/", token)
    assert (answer.status, answer.headers["Location"]) == (302, "https://elsewhere.example/")
    assert client.get("/a/test/redirect").status == 401


def test_the_rest_of_the_api_is_not_there(client: BareClient, token: str) -> None:
    assert client.get("/a/nothing", token, "POST", b"").json["Code"] == 404
