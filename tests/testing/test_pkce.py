"""PKCE as the embedded server binds, loses or replaces it, with fosite's words and the code's fate."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from bare_client import CHALLENGE, VERIFIER, BareClient

from cells_loopback.testing import Behaviour, CellsServer

if TYPE_CHECKING:
    from bare_client import Answer

UNBOUND = "Unable to find initial PKCE data tied to this request"
OLD_WORDING = (
    "The PKCE code verifier was provided but the code challenge was absent from the authorization request."
)
MISMATCH = "The PKCE code challenge did not match the code verifier."
WRONG = "w" * 43


@pytest.fixture
def client(server: CellsServer) -> BareClient:
    return BareClient(server)


def behave(server: CellsServer, **changes: object) -> None:
    server.behaviour = dataclasses.replace(server.behaviour, **changes)


def assert_refused(answer: Answer, hint: str) -> None:
    assert answer.status == 400
    assert answer.json["error"] == "invalid_grant"
    assert answer.json["error_description"].endswith(" " + hint)


def test_bound_takes_the_right_verifier(client: BareClient) -> None:
    assert client.exchange(client.authorize()["code"]).status == 200


def test_bound_takes_a_plain_challenge(client: BareClient) -> None:
    code = client.authorize(code_challenge=VERIFIER, code_challenge_method="plain")["code"]
    assert client.exchange(code).status == 200
    code = client.authorize(code_challenge=VERIFIER, code_challenge_method="")["code"]
    assert client.exchange(code).status == 200


@pytest.mark.parametrize(
    ("verifier", "hint"),
    [
        (WRONG, MISMATCH),
        (CHALLENGE, MISMATCH),
        ("", "The PKCE code verifier must be at least 43 characters."),
        ("v" * 42, "The PKCE code verifier must be at least 43 characters."),
        ("v" * 129, "The PKCE code verifier can not be longer than 128 characters."),
        (
            "v" * 43 + "/",
            "The PKCE code verifier must only contain [a-Z], [0-9], '-', '.', '_', '~'.",
        ),
    ],
)
def test_bound_refuses_any_other_verifier(client: BareClient, verifier: str, hint: str) -> None:
    assert_refused(client.exchange(client.authorize()["code"], code_verifier=verifier), hint)


def test_a_verifier_without_a_challenge_finds_no_pkce_data(client: BareClient) -> None:
    code = client.authorize(code_challenge="", code_challenge_method="")["code"]
    assert_refused(client.exchange(code), UNBOUND)


@pytest.mark.parametrize(
    ("pkce", "hint"), [("unbound", UNBOUND), ("unbound-old-wording", OLD_WORDING), ("foreign", MISMATCH)]
)
def test_a_lost_challenge_is_told_and_the_code_survives_it(
    server: CellsServer, client: BareClient, pkce: str, hint: str
) -> None:
    behave(server, pkce=pkce)
    code = client.authorize()["code"]
    assert_refused(client.exchange(code), hint)
    assert client.exchange(code, code_verifier="").status == 200
    assert client.exchange(code, code_verifier="").status == 400


@pytest.mark.parametrize("pkce", ["unbound", "unbound-old-wording"])
def test_a_client_without_pkce_notices_nothing(server: CellsServer, client: BareClient, pkce: str) -> None:
    behave(server, pkce=pkce)
    code = client.authorize(code_challenge="", code_challenge_method="")["code"]
    assert client.exchange(code, code_verifier="").status == 200


def test_foreign_puts_nothing_in_the_place_of_no_challenge(server: CellsServer, client: BareClient) -> None:
    behave(server, pkce="foreign")
    code = client.authorize(code_challenge="", code_challenge_method="")["code"]
    assert client.exchange(code, code_verifier="").status == 200


@pytest.mark.parametrize("pkce", ["unbound", "unbound-old-wording"])
def test_the_hint_stands_apart_on_older_releases(pkce: str) -> None:
    behaviour = Behaviour(pkce=pkce, error_format="error-hint", error_details=True)
    with CellsServer(behaviour=behaviour) as server:
        client = BareClient(server)
        body = client.exchange(client.authorize()["code"]).json
    assert body["error_hint"] == (UNBOUND if pkce == "unbound" else OLD_WORDING)
    assert body["error_hint"] not in body["error_description"]
    assert body["status_code"] == 400
    assert "error_debug" in body


def test_required_refuses_a_request_without_a_challenge(server: CellsServer, client: BareClient) -> None:
    behave(server, pkce_required=True)
    redirect = client.authorize(code_challenge="", code_challenge_method="")
    assert redirect["error"] == "invalid_request"
    assert "code_challenge" in redirect["error_hint"]
    assert client.exchange(client.authorize()["code"]).status == 200


def test_required_does_not_take_a_code_that_lost_its_challenge(
    server: CellsServer, client: BareClient
) -> None:
    behave(server, pkce_required=True, pkce="unbound")
    code = client.authorize()["code"]
    assert_refused(client.exchange(code), UNBOUND)
    assert client.exchange(code, code_verifier="").json["error"] == "invalid_request"
