"""How PKCE failed is told from fosite's own words, in every place where releases put them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.protocol.pkce import classify_pkce_failure

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERAL = (
    "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh token"
    " is invalid, expired, revoked, does not match the redirection URI used in the authorization request, or"
    " was issued to another client."
)
NOT_FOUND = "Unable to find initial PKCE data tied to this request"
ABSENT = (
    "The PKCE code verifier was provided but the code challenge was absent from the authorization request."
)
MISMATCH = "The PKCE code challenge did not match the code verifier."

FAILURES = {
    "not found": (NOT_FOUND, "unbound"),
    "absent": (ABSENT, "unbound"),
    "mismatch": (MISMATCH, "foreign"),
}


def in_description(hint: str) -> dict[str, object]:
    return {"error": "invalid_grant", "error_description": f"{GENERAL} {hint}"}


def in_hint(hint: str) -> dict[str, object]:
    return {
        "error": "invalid_grant",
        "error_description": GENERAL,
        "error_hint": hint,
        "error_verbose": GENERAL,
        "status_code": 400,
    }


def in_debug(hint: str) -> dict[str, object]:
    return {"error": "invalid_grant", "error_description": GENERAL, "error_debug": hint}


@pytest.mark.parametrize("place", [in_description, in_hint, in_debug])
@pytest.mark.parametrize(("hint", "failure"), FAILURES.values(), ids=FAILURES)
def test_each_wording_is_known_in_each_place(place: object, hint: str, failure: str) -> None:
    assert callable(place)
    assert classify_pkce_failure(place(hint)) == failure


RESPELLINGS = {
    "upper case": str.upper,
    "lower case": str.lower,
    "without the full stop": lambda hint: hint.rstrip("."),
    "with one": lambda hint: hint.rstrip(".") + ".",
    "quoted names": lambda hint: hint.replace("code challenge", "'code challenge'"),
    "a line break": lambda hint: hint.replace(" the ", "\n  the "),
    "more words after it": lambda hint: hint + " unable to find the resource: not_found",
}


@pytest.mark.parametrize("respell", RESPELLINGS.values(), ids=RESPELLINGS)
@pytest.mark.parametrize(("hint", "failure"), FAILURES.values(), ids=FAILURES)
def test_a_wording_is_known_in_other_spellings(respell: object, hint: str, failure: str) -> None:
    assert callable(respell)
    assert classify_pkce_failure(in_description(respell(hint))) == failure


def test_where_both_stand_the_stricter_reading_holds() -> None:
    assert classify_pkce_failure({**in_hint(NOT_FOUND), "error_debug": MISMATCH}) == "foreign"


OTHER_FAILURES: dict[str, Mapping[str, object]] = {
    "nothing": {},
    "no hint": {"error": "invalid_grant", "error_description": GENERAL},
    "a used code": in_hint("The authorization code has already been used."),
    "an expired code": in_hint("The authorization code has expired."),
    "an unknown code": in_hint("The OAuth 2.0 Client's authorization code is malformed or not valid."),
    "another redirect URI": in_hint("The 'redirect_uri' from this request does not match."),
    "a short verifier": in_hint("The PKCE code verifier must be at least 43 characters."),
    "a long verifier": in_hint("The PKCE code verifier can not be longer than 128 characters."),
    "a verifier of wrong characters": in_hint("The PKCE code verifier must only contain [a-Z], [0-9]."),
    "a missing verifier": in_hint("The PKCE code verifier is missing."),
    "PKCE is required": {**in_hint(NOT_FOUND), "error": "invalid_request"},
    "the client is refused": {**in_hint(NOT_FOUND), "error": "invalid_client"},
    "the server fails": {**in_hint(MISMATCH), "error": "server_error"},
    "no error code": {"error_description": NOT_FOUND},
    "an error code of another type": {"error": ["invalid_grant"], "error_description": NOT_FOUND},
    "words of another type": {"error": "invalid_grant", "error_description": [NOT_FOUND], "error_hint": 7},
    "half of the words": in_hint("Unable to find initial"),
    "the words in a member nobody reads": {"error": "invalid_grant", "message": NOT_FOUND},
}


@pytest.mark.parametrize("answer", OTHER_FAILURES.values(), ids=OTHER_FAILURES)
def test_every_other_failure_is_none_of_pkce_and_never_downgrades(answer: Mapping[str, object]) -> None:
    assert classify_pkce_failure(answer) is None


@given(
    st.dictionaries(
        st.sampled_from(["error", "error_description", "error_hint", "error_debug"]),
        st.text(max_size=60) | st.integers() | st.none() | st.just("invalid_grant"),
    )
)
def test_no_words_but_fositess_own_are_a_pkce_failure(answer: dict[str, object]) -> None:
    assert classify_pkce_failure(answer) is None
