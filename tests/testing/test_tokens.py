"""The embedded server's token endpoint: exchange, rotation, revocation, client authentication."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from bare_client import REDIRECT_URI, SCOPE, BareClient

from cells_loopback.testing import Client

if TYPE_CHECKING:
    from bare_client import Answer

    from cells_loopback.testing import CellsServer


@pytest.fixture
def client(server: CellsServer) -> BareClient:
    return BareClient(server)


@pytest.fixture
def confidential(server: CellsServer) -> BareClient:
    server.add_client(Client("cells-curl", (REDIRECT_URI,), "pass:word +%"))
    return BareClient(server, "cells-curl")


def behave(server: CellsServer, **changes: object) -> None:
    server.behaviour = dataclasses.replace(server.behaviour, **changes)


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def is_alive(client: BareClient, token: str) -> bool:
    return client.get("/oidc/oauth2/userinfo", token).status == 200


def assert_refused(answer: Answer, error: str, hint: str = "", status: int = 400) -> None:
    assert (answer.status, answer.json["error"]) == (status, error)
    assert answer.json["error_description"].endswith(hint)


# Exchange


def test_an_exchange_answers_as_hydra_does(client: BareClient) -> None:
    answer = client.exchange(client.authorize()["code"])
    body = answer.json
    assert sorted(body) == [
        "access_token", "expires_in", "id_token", "refresh_token", "scope", "token_type",
    ]  # fmt: skip
    assert (body["expires_in"], body["scope"], body["token_type"]) == (599, SCOPE, "bearer")
    assert body["access_token"].startswith("ory_at_")
    assert body["refresh_token"].startswith("ory_rt_")
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_code_works_once_and_its_reuse_revokes_the_tokens(client: BareClient) -> None:
    code = client.authorize()["code"]
    tokens = client.exchange(code).json
    assert is_alive(client, tokens["access_token"])
    assert_refused(client.exchange(code), "invalid_grant", "The authorization code has already been used.")
    assert not is_alive(client, tokens["access_token"])
    assert client.refresh(tokens["refresh_token"]).status == 400


@pytest.mark.parametrize(("age", "status"), [(599, 200), (601, 400)])
def test_a_code_lives_ten_minutes(server: CellsServer, client: BareClient, age: int, status: int) -> None:
    code = client.authorize()["code"]
    server.advance(age)
    assert client.exchange(code).status == status


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "nothing"},
        {"redirect_uri": "cellsauth://callback/"},
        {"redirect_uri": ""},
        {"client_id": "cells-sync"},
    ],
)
def test_an_exchange_for_something_else_is_refused_and_the_code_stays_good(
    client: BareClient, changes: dict[str, str]
) -> None:
    code = client.authorize()["code"]
    assert_refused(client.exchange(**{"code": code, **changes}), "invalid_grant")
    assert client.exchange(code).status == 200


def test_other_grants_are_not_supported(client: BareClient) -> None:
    answer = client.post("/oidc/oauth2/token", {"grant_type": "password", "client_id": "cells-sync"})
    assert_refused(answer, "unsupported_grant_type")


@pytest.mark.parametrize(
    ("scope", "members"),
    [
        ("openid profile", {"id_token"}),
        ("profile offline", {"refresh_token"}),
        ("profile offline_access", {"refresh_token"}),
        ("profile", set()),
        ("", set()),
    ],
)
def test_scope_decides_which_tokens_there_are(client: BareClient, scope: str, members: set[str]) -> None:
    assert client.log_in(scope=scope).keys() & {"id_token", "refresh_token"} == members


def test_another_scope_may_be_granted(server: CellsServer, client: BareClient) -> None:
    behave(server, granted_scope="openid profile")
    tokens = client.log_in()
    assert tokens["scope"] == "openid profile"
    assert "refresh_token" not in tokens


@pytest.mark.parametrize(
    ("form", "written"), [("int", 599), ("string", "599"), ("float", 599.5), ("absent", None)]
)
def test_the_lifetime_is_written_in_many_ways(
    server: CellsServer, client: BareClient, form: str, written: object
) -> None:
    behave(server, expires_in=form)
    assert client.log_in().get("expires_in") == written


def test_answers_may_carry_more_and_spell_differently(server: CellsServer, client: BareClient) -> None:
    behave(server, token_type="Bearer", extra_members={"x": [1]})
    tokens = client.log_in()
    assert (tokens["token_type"], tokens["x"]) == ("Bearer", [1])


def test_older_tokens_are_two_parts_without_a_prefix(server: CellsServer, client: BareClient) -> None:
    behave(server, tokens="two-part")
    for token in map(client.log_in().get, ("access_token", "refresh_token")):
        assert [len(part) for part in token.split(".")] == [43, 43]


def test_an_access_token_may_be_a_jwt(server: CellsServer, client: BareClient) -> None:
    behave(server, tokens="jwt")
    token = client.log_in()["access_token"]
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["client_id"] == "cells-mobile"
    assert claims["exp"] - claims["iat"] == 600
    assert is_alive(client, token)


# Lifetimes


def test_an_access_token_lives_as_long_as_it_says(server: CellsServer, client: BareClient) -> None:
    token = client.log_in()["access_token"]
    server.advance(598)
    assert is_alive(client, token)
    server.advance(2)
    assert not is_alive(client, token)
    assert server.access_tokens() == []


def test_lifetimes_may_change_while_the_server_runs(server: CellsServer, client: BareClient) -> None:
    behave(server, access_token_lifetime=3, refresh_token_lifetime=10)
    tokens = client.log_in()
    assert tokens["expires_in"] == 2
    server.advance(4)
    assert not is_alive(client, tokens["access_token"])
    tokens = client.refresh(tokens["refresh_token"]).json
    server.advance(11)
    assert_refused(client.refresh(tokens["refresh_token"]), "invalid_grant", "The refresh token expired.")


def test_tokens_can_be_expired_at_once(server: CellsServer, client: BareClient) -> None:
    tokens = client.log_in()
    server.expire_access_tokens()
    assert not is_alive(client, tokens["access_token"])
    server.expire_refresh_tokens()
    assert_refused(client.refresh(tokens["refresh_token"]), "invalid_grant", "The refresh token expired.")


# Refresh


def test_a_refresh_token_rotates_at_every_use(server: CellsServer, client: BareClient) -> None:
    first = client.log_in()
    second = client.refresh(first["refresh_token"]).json
    third = client.refresh(second["refresh_token"]).json
    assert len({first["refresh_token"], second["refresh_token"], third["refresh_token"]}) == 3
    assert server.refresh_tokens() == [third["refresh_token"]]
    assert (server.count("exchange"), server.count("refresh")) == (1, 2)
    assert is_alive(client, first["access_token"])


def test_an_old_refresh_token_ends_the_whole_session(server: CellsServer, client: BareClient) -> None:
    first = client.log_in()
    second = client.refresh(first["refresh_token"]).json
    other = client.log_in()
    assert_refused(
        client.refresh(first["refresh_token"]), "invalid_grant", "The refresh token was already used."
    )
    assert not is_alive(client, second["access_token"])
    assert client.refresh(second["refresh_token"]).status == 400
    assert is_alive(client, other["access_token"])
    assert server.refresh_tokens() == [other["refresh_token"]]


def test_reuse_is_a_401_on_older_releases(server: CellsServer, client: BareClient) -> None:
    behave(server, refresh_reuse="token-inactive", error_format="error-hint")
    tokens = client.log_in()
    client.refresh(tokens["refresh_token"])
    answer = client.refresh(tokens["refresh_token"])
    assert_refused(answer, "token_inactive", status=401)
    assert answer.json["error_hint"] == "Token validation failed."


@pytest.mark.parametrize("token", ["", "nothing", "ory_rt_a.b"])
def test_an_unknown_refresh_token_is_malformed(client: BareClient, token: str) -> None:
    assert_refused(client.refresh(token), "invalid_grant", "malformed or not valid.")


def test_a_refresh_token_belongs_to_its_client(client: BareClient) -> None:
    tokens = client.log_in()
    assert_refused(client.refresh(tokens["refresh_token"], client_id="cells-sync"), "invalid_grant")
    assert client.refresh(tokens["refresh_token"]).status == 200


def test_a_refresh_may_keep_the_refresh_token(server: CellsServer, client: BareClient) -> None:
    behave(server, refresh_omits=("refresh_token", "id_token"))
    tokens = client.log_in()
    for _ in range(2):
        answer = client.refresh(tokens["refresh_token"])
        assert answer.status == 200
        assert not answer.json.keys() & {"refresh_token", "id_token"}


def test_a_refresh_may_end_the_older_access_tokens(server: CellsServer, client: BareClient) -> None:
    behave(server, refresh_revokes_access_tokens=True)
    tokens = client.log_in()
    renewed = client.refresh(tokens["refresh_token"]).json
    assert server.access_tokens() == [renewed["access_token"]]


def test_a_session_that_loses_offline_cannot_be_refreshed_again(
    server: CellsServer, client: BareClient
) -> None:
    tokens = client.log_in()
    behave(server, granted_scope="openid")
    renewed = client.refresh(tokens["refresh_token"]).json
    assert renewed["scope"] == "openid"
    assert "refresh_token" not in renewed


# Revocation


@pytest.mark.parametrize("member", ["access_token", "refresh_token"])
def test_revocation_ends_the_session_of_either_token(client: BareClient, member: str) -> None:
    tokens = client.log_in()
    answer = client.revoke(tokens[member])
    assert (answer.status, answer.body) == (200, b"")
    assert not is_alive(client, tokens["access_token"])
    assert client.refresh(tokens["refresh_token"]).status == 400


def test_revoking_what_is_unknown_is_no_error(client: BareClient) -> None:
    assert client.revoke("nothing").status == 200


def test_revocation_needs_the_right_client(client: BareClient) -> None:
    tokens = client.log_in()
    assert_refused(client.revoke(tokens["refresh_token"], client_id=""), "invalid_client", status=401)
    assert_refused(client.revoke(tokens["refresh_token"], client_id="cells-sync"), "unauthorized_client")
    assert is_alive(client, tokens["access_token"])


def test_an_administrator_revokes_one_person(server: CellsServer, client: BareClient) -> None:
    tokens = client.log_in()
    server.revoke_sessions("bob")
    assert is_alive(client, tokens["access_token"])
    server.revoke_sessions("alice")
    assert client.refresh(tokens["refresh_token"]).status == 400
    server.revoke_sessions()
    assert server.access_tokens() == []


# Client authentication


def test_a_confidential_client_authenticates_by_basic(server: CellsServer, confidential: BareClient) -> None:
    confidential.headers = basic("cells-curl", "pass%3Aword+%2B%25")
    tokens = confidential.log_in()
    assert confidential.refresh(tokens["refresh_token"]).status == 200


@pytest.mark.parametrize("headers", [{}, basic("cells-curl", "wrong"), basic("nobody", "pass%3Aword+%2B%25")])
def test_a_confidential_client_without_its_secret_is_refused(
    confidential: BareClient, headers: dict[str, str]
) -> None:
    confidential.headers = headers
    answer = confidential.exchange(confidential.authorize()["code"])
    assert_refused(answer, "invalid_client", status=401)


def test_a_secret_in_the_body_needs_a_client_registered_for_it(
    server: CellsServer, confidential: BareClient
) -> None:
    code = confidential.authorize()["code"]
    answer = confidential.exchange(code, client_secret="pass:word +%")
    assert_refused(answer, "invalid_client", status=401)
    assert "'client_secret_post' was requested" in answer.json["error_description"]
    server.add_client(Client("cells-curl", (REDIRECT_URI,), "pass:word +%", "client_secret_post"))
    assert confidential.exchange(code, client_secret="pass:word +%").status == 200


def test_basic_credentials_of_a_public_client_are_dropped_or_rejected(
    server: CellsServer, client: BareClient
) -> None:
    code = client.authorize()["code"]
    client.headers = basic("cells-mobile", "")
    behave(server, public_client_basic="rejected")
    assert_refused(client.exchange(code), "invalid_client", status=401)
    behave(server, public_client_basic="dropped")
    assert_refused(client.exchange(code, client_id=""), "invalid_client", status=401)
    assert client.exchange(code).status == 200


@pytest.mark.parametrize("credentials", ["%%%", "/w=="])
def test_garbage_for_credentials_is_an_invalid_request(client: BareClient, credentials: str) -> None:
    client.headers = {"Authorization": f"Basic {credentials}"}
    assert_refused(client.exchange("x"), "invalid_request")


def test_every_secret_is_remembered_for_leak_tests(server: CellsServer, client: BareClient) -> None:
    code = client.authorize()["code"]
    tokens = client.exchange(code).json
    known = set(server.secrets())
    assert {code, tokens["access_token"], tokens["refresh_token"], tokens["id_token"]} <= known
    assert server.add_personal_access_token() not in known
    assert all(len(secret) > 40 for secret in known)
