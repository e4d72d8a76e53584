"""The embedded server's discovery, keys, ID tokens and userinfo, judged by a JOSE library it does not use."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from bare_client import NONCE, BareClient
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import KeySet

from cells_loopback.testing import Behaviour

if TYPE_CHECKING:
    from cells_loopback.testing import CellsServer

DISCOVERY = "/oidc/.well-known/openid-configuration"
JWKS = "/oidc/.well-known/jwks.json"


@pytest.fixture
def client(server: CellsServer) -> BareClient:
    return BareClient(server)


def behave(server: CellsServer, **changes: object) -> None:
    server.behaviour = dataclasses.replace(server.behaviour, **changes)


def verify(client: BareClient, id_token: str) -> dict[str, Any]:
    keys = [key for key in client.get(JWKS).json["keys"] if key["kty"] == "RSA"]
    return jwt.decode(id_token, KeySet.import_key_set({"keys": keys}), algorithms=["RS256"]).claims


def read_part(id_token: str, part: int) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(id_token.split(".")[part] + "=="))
    return decoded


# Discovery


def test_discovery_names_every_endpoint(server: CellsServer, client: BareClient) -> None:
    document = client.get(DISCOVERY).json
    site = server.site
    assert document["issuer"] == f"{site}/oidc/"
    assert document["authorization_endpoint"] == f"{site}/oidc/oauth2/auth"
    assert document["token_endpoint"] == f"{site}/oidc/oauth2/token"
    assert document["revocation_endpoint"] == f"{site}/oidc/oauth2/revoke"
    assert document["userinfo_endpoint"] == f"{site}/oidc/oauth2/userinfo"
    assert document["jwks_uri"] == f"{site}/oidc/.well-known/jwks.json"
    assert document["code_challenge_methods_supported"] == ["plain", "S256"]
    assert "authorization_response_iss_parameter_supported" not in document


def test_discovery_differs_between_releases(server: CellsServer, client: BareClient) -> None:
    server.behaviour = Behaviour(
        issuer_slash=False,
        code_challenge_methods_supported=None,
        iss="right",
        discovery={"scopes_supported": None, "token_endpoint": 7},
    )
    document = client.get(DISCOVERY).json
    assert document["issuer"] == f"{server.site}/oidc"
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["token_endpoint"] == 7
    assert not document.keys() & {"code_challenge_methods_supported", "scopes_supported"}
    behave(server, issuer="https://elsewhere.example/oidc/")
    assert client.get(DISCOVERY).json["issuer"] == "https://elsewhere.example/oidc/"


# ID tokens


def test_an_id_token_carries_what_cells_puts_into_it(server: CellsServer, client: BareClient) -> None:
    tokens = client.log_in()
    claims = verify(client, tokens["id_token"])
    assert claims["iss"] == f"{server.site}/oidc/"
    assert claims["aud"] == ["cells-mobile"]
    assert (claims["name"], claims["email"]) == ("alice", "alice@example.com")
    assert claims["authSource"] == "pydio"
    assert str(uuid.UUID(claims["sub"])) == server.user.uuid
    assert uuid.UUID(claims["sid"])
    assert claims["nonce"] == NONCE
    assert abs(claims["iat"] - time.time()) < 60
    assert claims["exp"] == claims["iat"] + 3600
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    assert claims["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()
    assert "azp" not in claims


@pytest.mark.parametrize(("nonce", "kept"), [("kept", True), ("dropped", False)])
def test_the_nonce_is_kept_or_dropped(
    server: CellsServer, client: BareClient, nonce: str, kept: bool
) -> None:
    behave(server, nonce=nonce)
    assert ("nonce" in verify(client, client.log_in()["id_token"])) is kept


def test_a_wrong_nonce_is_another_one(server: CellsServer, client: BareClient) -> None:
    behave(server, nonce="wrong")
    assert verify(client, client.log_in()["id_token"])["nonce"] != NONCE


@pytest.mark.parametrize(("azp", "value"), [("right", "cells-mobile"), ("wrong", "another-client")])
def test_azp_is_there_where_the_release_has_it(
    server: CellsServer, client: BareClient, azp: str, value: str
) -> None:
    behave(server, azp=azp)
    assert verify(client, client.log_in()["id_token"])["azp"] == value


@pytest.mark.parametrize("fault", ["iss", "aud", "sub", "at_hash"])
def test_a_fault_in_one_claim_changes_that_claim_alone(
    server: CellsServer, client: BareClient, fault: str
) -> None:
    right = verify(client, client.log_in()["id_token"])
    behave(server, id_token_fault=fault)
    wrong = verify(client, client.log_in()["id_token"])
    volatile = {"jti", "sid", "iat", "exp", "auth_time", "rat", "at_hash"} - {fault}
    differing = {
        name for name in right.keys() | wrong.keys() if right.get(name) != wrong.get(name)
    } - volatile
    assert differing == {fault}


def test_faults_of_time_are_hours_away(server: CellsServer, client: BareClient) -> None:
    behave(server, id_token_fault="exp")
    assert verify(client, client.log_in()["id_token"])["exp"] < time.time() - 3000
    behave(server, id_token_fault="iat")
    assert verify(client, client.log_in()["id_token"])["iat"] > time.time() + 7000


def test_a_bad_signature_does_not_verify(server: CellsServer, client: BareClient) -> None:
    behave(server, id_token_fault="signature")
    with pytest.raises(BadSignatureError):
        verify(client, client.log_in()["id_token"])


@pytest.mark.parametrize(
    ("fault", "algorithm"), [("alg-none", "none"), ("alg-hs256", "HS256"), ("kid", "RS256")]
)
def test_attacks_on_the_header(server: CellsServer, client: BareClient, fault: str, algorithm: str) -> None:
    behave(server, id_token_fault=fault)
    token = client.log_in()["id_token"]
    assert read_part(token, 0)["alg"] == algorithm
    with pytest.raises((JoseError, ValueError)):
        verify(client, token)


def test_an_id_token_may_be_missing(server: CellsServer, client: BareClient) -> None:
    behave(server, id_token_fault="missing")
    assert "id_token" not in client.log_in()


def test_claims_may_be_replaced_one_by_one(server: CellsServer, client: BareClient) -> None:
    behave(server, id_token_claims={"email": None, "aud": ["cells-mobile", "io"]})
    claims = verify(client, client.log_in()["id_token"])
    assert "email" not in claims
    assert claims["aud"] == ["cells-mobile", "io"]


def test_the_clock_of_the_whole_server_may_be_off(server: CellsServer, client: BareClient) -> None:
    behave(server, clock_offset=-7200)
    tokens = client.log_in()
    claims = verify(client, tokens["id_token"])
    assert abs(claims["iat"] - (time.time() - 7200)) < 60
    answer = client.get(DISCOVERY)
    sent = time.mktime(time.strptime(answer.headers["Date"], "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert abs(sent - server.now()) < 60
    assert client.get("/oidc/oauth2/userinfo", tokens["access_token"]).status == 200


# Keys


def test_an_old_key_verifies_until_it_is_retired(server: CellsServer, client: BareClient) -> None:
    old = client.log_in()["id_token"]
    server.rotate_signing_key()
    new = client.log_in()["id_token"]
    assert read_part(old, 0)["kid"] != read_part(new, 0)["kid"]
    assert verify(client, old)
    assert verify(client, new)
    server.rotate_signing_key(retire=True)
    with pytest.raises((JoseError, ValueError)):
        verify(client, new)


def test_decoys_stand_before_the_key_that_signs(server: CellsServer, client: BareClient) -> None:
    behave(server, jwks_decoys=True)
    assert [key["kty"] for key in client.get(JWKS).json["keys"]] == ["LATTICE", "EC", "RSA"]
    assert verify(client, client.log_in()["id_token"])


# Userinfo


@pytest.mark.parametrize("path", ["/oidc/oauth2/userinfo", "/oidc/userinfo"])
def test_userinfo_is_at_one_of_two_paths(server: CellsServer, client: BareClient, path: str) -> None:
    behave(server, userinfo_path=path)
    token = client.log_in()["access_token"]
    assert client.get(DISCOVERY).json["userinfo_endpoint"] == server.site + path
    assert client.get(path, token).json["name"] == "alice"
    (other,) = {"/oidc/oauth2/userinfo", "/oidc/userinfo"} - {path}
    assert client.get(other, token).status == 404


def test_userinfo_takes_live_access_tokens_only(server: CellsServer, client: BareClient) -> None:
    for token in ("", "nothing", server.add_personal_access_token(), client.log_in()["refresh_token"]):
        answer = client.get("/oidc/oauth2/userinfo", token)
        assert (answer.status, answer.json["error"]) == (401, "request_unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
