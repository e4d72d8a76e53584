"""What was asked judges the answer: only a response to this very request can be exchanged."""

from __future__ import annotations

import collections
import math
import re
import string
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest
from examples import METADATA, REQUEST
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import LoginFailedError, UntrustedServerError
from cells_loopback.protocol.authorization import (
    AuthorizationResponse,
    authorization_error,
    compare_values,
    compute_code_challenge,
    generate_random_value,
    server_words,
    start_authorization,
)
from cells_loopback.protocol.client import CELLS_CLIENT
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cells_loopback.protocol.authorization import (
        AuthorizationRequest,
    )

STATE = REQUEST.state.reveal()
CODE = "ory_ac_the-code.with-a-second_part"

# What Cells can put into the redirect as plain text without breaking it; RFC 3986 §2.3 without "." and "~".
URL_SAFE = frozenset(string.ascii_letters + string.digits + "-_")


def parameters_of(request: AuthorizationRequest) -> dict[str, str]:
    pairs = parse_qsl(urlsplit(request.url).query, keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_the_s256_challenge_is_that_of_rfc_7636_appendix_b() -> None:
    verifier = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert compute_code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_random_value_has_256_bits_in_43_url_safe_characters() -> None:
    for _ in range(200):
        value = generate_random_value().reveal()
        assert len(value) == 43
        assert URL_SAFE.issuperset(value)
    # 43 characters of 6 bits each hold 258 bits; two of the last character's are padding.
    assert 43 * math.log2(len(URL_SAFE)) - 2 == 256


def test_random_values_use_the_whole_alphabet_evenly() -> None:
    counts = collections.Counter(
        character for _ in range(2000) for character in generate_random_value().reveal()[:-1]
    )
    expected = 2000 * 42 / 64
    assert set(counts) == URL_SAFE
    # Chi squared with 63 degrees of freedom is beyond 160 once in 10^10 runs.
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 160


def test_random_values_come_from_the_systems_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: bytes(range(size)))
    assert generate_random_value().reveal() == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


def test_no_random_value_is_used_twice() -> None:
    requests = [
        start_authorization(METADATA, CELLS_CLIENT, REQUEST.redirect_uri, with_pkce=True) for _ in range(50)
    ]
    values = [
        value.reveal()
        for request in requests
        for value in (request.state, request.nonce, request.code_verifier)
        if value is not None
    ]
    assert len(set(values)) == 150


def test_a_second_authorization_shares_nothing_with_the_first() -> None:
    first, second = (
        start_authorization(METADATA, CELLS_CLIENT, REQUEST.redirect_uri, with_pkce=with_pkce)
        for with_pkce in (True, False)
    )
    assert first.state != second.state
    assert first.nonce != second.nonce
    assert second.code_verifier is None
    assert first.redirect_uri == second.redirect_uri == REQUEST.redirect_uri


def test_the_url_asks_for_a_code_with_pkce() -> None:
    assert REQUEST.url.startswith("https://files.example.com/oidc/oauth2/auth?")
    assert parameters_of(REQUEST) == {
        "response_type": "code",
        "client_id": "cells-client",
        "redirect_uri": "http://localhost:3000/servers/callback",
        "scope": "openid email profile pydio offline",
        "state": STATE,
        "nonce": REQUEST.nonce.reveal(),
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }


def test_without_pkce_the_url_has_no_challenge() -> None:
    parameters = parameters_of(replace(REQUEST, code_verifier=None))
    assert not [name for name in parameters if name.startswith("code_")]


def test_neither_verifier_nor_client_secret_is_in_the_url() -> None:
    request = replace(REQUEST, client=replace(CELLS_CLIENT, client_secret=Secret("open-sesame")))
    assert request.code_verifier is not None
    assert request.code_verifier.reveal() not in request.url
    assert "open-sesame" not in request.url


def test_the_state_needs_no_encoding() -> None:
    request = start_authorization(METADATA, CELLS_CLIENT, REQUEST.redirect_uri, with_pkce=True)
    assert f"state={request.state.reveal()}" in request.url


def test_an_endpoint_with_a_query_keeps_it() -> None:
    """RFC 6749 §3.1: the endpoint's own query "MUST be retained when adding additional query parameters"."""
    endpoint = METADATA.authorization_endpoint + "?tenant=7"
    request = replace(REQUEST, metadata=replace(METADATA, authorization_endpoint=endpoint))
    assert request.url.startswith(endpoint + "&response_type=code&")
    assert parameters_of(request)["tenant"] == "7"


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_whatever_the_client_is_called_the_url_is_one_url(client_id: str) -> None:
    request = replace(REQUEST, client=replace(CELLS_CLIENT, client_id=client_id))
    assert parameters_of(request)["client_id"] == client_id
    assert request.url.isascii()
    assert not re.search(r"\s", request.url)


def answer(**changes: str | None) -> dict[str, str]:
    members = {"code": CODE, "state": STATE, **changes}
    return {name: value for name, value in members.items() if value is not None}


def test_the_right_answer_is_a_response_to_this_request() -> None:
    response = REQUEST.validate_response(answer())
    assert response == AuthorizationResponse(REQUEST, Secret(CODE))


def test_more_parameters_do_no_harm() -> None:
    assert REQUEST.validate_response(answer(scope="openid", session_state="x", unheard_of="y"))


WRONG_STATES = {
    "missing": None,
    "empty": "",
    "another": "x" * 43,
    "shorter": STATE[:-1],
    "longer": STATE + "x",
    "in another case": STATE.swapcase(),
    "with a space": STATE + " ",
    "not ASCII": "é" * 43,
    "a lone surrogate": "\udcff" * 43,
    "the nonce": REQUEST.nonce.reveal(),
}


@pytest.mark.parametrize("state", WRONG_STATES.values(), ids=WRONG_STATES)
def test_an_answer_with_another_state_is_not_trusted(state: str | None) -> None:
    with pytest.raises(UntrustedServerError) as caught:
        REQUEST.validate_response(answer(state=state))
    assert (caught.value.exit_code, caught.value.code) == (9, "state_mismatch")
    assert caught.value.message == "the answer does not belong to this login: its state is another"
    assert caught.value.hint == "log in again"


def test_an_error_with_another_state_is_not_even_read() -> None:
    with pytest.raises(UntrustedServerError):
        REQUEST.validate_response({"error": "access_denied", "state": "x" * 43})


@pytest.mark.parametrize(
    "iss",
    ["https://files.example.com/oidc/", "https://files.example.com/oidc", "https://FILES.example.com/oidc"],
)
def test_the_servers_own_iss_is_right(iss: str) -> None:
    assert REQUEST.validate_response(answer(iss=iss))


@pytest.mark.parametrize(
    "iss",
    ["https://evil.example/oidc/", "https://files.example.com", "http://files.example.com/oidc/", "", "x"],
)
def test_another_iss_is_not_trusted(iss: str) -> None:
    """RFC 9207 §2.4: an answer of another issuer is a mix-up attack, be it a code or an error."""
    for parameters in (answer(iss=iss), {"error": "access_denied", "state": STATE, "iss": iss}):
        with pytest.raises(UntrustedServerError) as caught:
            REQUEST.validate_response(parameters)
        assert (caught.value.exit_code, caught.value.code) == (9, "iss_mismatch")
        assert caught.value.message == (f"the answer comes from another issuer: {iss or 'it names none'}")
        assert caught.value.hint.startswith("do not log in through this network until the server's admin")


def test_iss_may_be_missing_unless_the_server_has_promised_it() -> None:
    assert REQUEST.validate_response(answer())
    promising = replace(METADATA, authorization_response_iss_parameter_supported=True)
    request = replace(REQUEST, metadata=promising)
    assert request.validate_response(answer(iss=METADATA.issuer))
    with pytest.raises(UntrustedServerError) as caught:
        request.validate_response(answer())
    assert caught.value.code == "iss_mismatch"
    assert caught.value.message == "the answer comes from another issuer: it names none"


def test_an_error_is_told_even_where_the_promised_iss_was_forgotten_on_it() -> None:
    promising = replace(METADATA, authorization_response_iss_parameter_supported=True)
    request = replace(REQUEST, metadata=promising)
    refused = {"error": "access_denied", "state": REQUEST.state.reveal()}
    with pytest.raises(LoginFailedError) as caught:
        request.validate_response(refused)
    assert caught.value.code == "access_denied"
    with pytest.raises(UntrustedServerError):
        request.validate_response({**refused, "iss": "https://other.example.com/oidc/"})


@pytest.mark.parametrize("code", [None, ""])
def test_an_answer_without_a_code_is_a_failure(code: str | None) -> None:
    with pytest.raises(LoginFailedError) as caught:
        REQUEST.validate_response(answer(code=code))
    assert (caught.value.exit_code, caught.value.code) == (5, "no_code")
    assert caught.value.message == "the server came back without a code and without an error"
    assert caught.value.hint == "log in again; if it stays so, ask the server's administrator"


def test_refused_consent_is_told_in_the_servers_words() -> None:
    parameters = {
        "error": "access_denied",
        "error_description": "The resource owner denied the request.",
        "state": STATE,
    }
    with pytest.raises(LoginFailedError) as caught:
        REQUEST.validate_response(parameters)
    assert (caught.value.exit_code, caught.value.code) == (5, "access_denied")
    assert caught.value.message == (
        "the login was refused: access_denied: The resource owner denied the request."
    )
    assert caught.value.hint == "log in again and agree"


def test_any_other_error_is_told_in_the_servers_words() -> None:
    parameters = {"error": "invalid_scope", "error_hint": "The scope pydio is unknown.", "state": STATE}
    with pytest.raises(LoginFailedError) as caught:
        REQUEST.validate_response(parameters)
    assert caught.value.code == "authorization_error"
    assert caught.value.message == (
        "the server answered with an error: invalid_scope: The scope pydio is unknown."
    )
    assert caught.value.hint == (
        "log in again; if it stays so, show the message to the server's administrator"
    )


def test_an_error_counts_even_beside_a_code() -> None:
    with pytest.raises(LoginFailedError):
        REQUEST.validate_response(answer(error="server_error"))


NAMES = st.sampled_from(["code", "state", "iss", "error", "error_description", "error_hint", "x"])
TEXTS = st.text(max_size=40) | st.sampled_from([STATE, CODE, METADATA.issuer])


@given(st.dictionaries(NAMES, TEXTS))
def test_any_parameters_are_judged(parameters: dict[str, str]) -> None:
    try:
        response = REQUEST.validate_response(parameters)
    except (LoginFailedError, UntrustedServerError):
        return
    assert parameters["state"] == STATE
    assert "error" not in parameters
    assert response.code.reveal() == parameters["code"] != ""


@given(st.text(max_size=60))
def test_values_are_equal_only_to_themselves(text: str) -> None:
    assert compare_values(text, REQUEST.state) is (text == STATE)


def test_values_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert REQUEST.matches_state(STATE)
    assert not REQUEST.matches_state("x" * 43)
    assert compared == [(STATE.encode(), STATE.encode()), (b"x" * 43, STATE.encode())]


WORDS: dict[str, tuple[Mapping[str, object], str]] = {
    "nothing": ({}, ""),
    "a word": ({"error": "invalid_grant"}, "invalid_grant"),
    "a word and a sentence": ({"error": "invalid_grant", "error_description": "No."}, "invalid_grant: No."),
    "the hint apart, on older releases": (
        {"error": "invalid_grant", "error_description": "No.", "error_hint": "Used."},
        "invalid_grant: No. Used.",
    ),
    "the hint repeated": (
        {"error": "invalid_grant", "error_description": "No. Used.", "error_hint": "Used."},
        "invalid_grant: No. Used.",
    ),
    "the hint repeated, with a space behind": (
        {"error": "invalid_grant", "error_description": "No. Used.", "error_hint": "Used. "},
        "invalid_grant: No. Used.",
    ),
    "only a hint": ({"error_hint": "Used."}, "Used."),
    "spaces around": ({"error": " invalid_grant ", "error_description": "  "}, "invalid_grant"),
    "other types": ({"error": 7, "error_description": ["No."], "error_hint": None}, ""),
    "other members": ({"error": "x", "error_debug": "secret details", "status_code": 400}, "x"),
}


@pytest.mark.parametrize(("members", "words"), WORDS.values(), ids=WORDS)
def test_the_servers_words_are_one_line(members: Mapping[str, object], words: str) -> None:
    assert server_words(members) == words


def test_a_server_cannot_flood_the_terminal() -> None:
    assert server_words({"error": "x", "error_description": "y" * 100_000}) == "x: " + "y" * 497 + "…"
    assert server_words({"error": "x", "error_description": "y" * 497}) == "x: " + "y" * 497


@given(st.dictionaries(NAMES, TEXTS))
def test_an_error_answer_always_becomes_an_error(parameters: dict[str, str]) -> None:
    error = authorization_error(parameters)
    assert (error.exit_code, bool(error.hint)) == (5, True)
