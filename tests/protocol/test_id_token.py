"""An ID token is believed when everything about it is right, and never with any single fault."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import time
from typing import Any

import pytest
from examples import METADATA, NOW, REQUEST
from hypothesis import given
from hypothesis import strategies as st
from signatures import ALGORITHMS, encode, encode_json, make_signer, sign_with_hmac

from cells_loopback.errors import UntrustedServerError
from cells_loopback.protocol.id_token import Claims, compute_at_hash, login_name, validate_id_token
from cells_loopback.secret import Secret

SIGNER = make_signer()
KEY_SET = {"keys": [SIGNER.jwk]}
NONCE = REQUEST.nonce.reveal()
ACCESS_TOKEN = Secret("ory_at_the-access-token")
SUB = "4f6b0d4e-8a4c-4d8e-9a53-0b1f5d3c7a10"


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of an ID token as Cells makes it; None takes one out."""
    members = {
        "iss": METADATA.issuer,
        "sub": SUB,
        "aud": ["cells-client"],
        "iat": int(NOW),
        "exp": int(NOW) + 3600,
        "nonce": NONCE,
        "name": "alice",
        "email": "alice@example.com",
        "authSource": "pydio",
        "sid": "a-session",
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


def validate(
    id_token: str, key_set: dict[str, Any] | None = None, nonce: Secret | None = REQUEST.nonce
) -> Claims:
    return validate_id_token(
        Secret(id_token),
        KEY_SET if key_set is None else key_set,
        issuer=METADATA.issuer,
        client_id="cells-client",
        nonce=nonce,
        access_token=ACCESS_TOKEN,
        now=NOW,
    )


def refused(id_token: str, key_set: dict[str, Any] | None = None) -> UntrustedServerError:
    with pytest.raises(UntrustedServerError) as caught:
        validate(id_token, key_set)
    assert caught.value.exit_code == 9
    assert caught.value.code in {"id_token_invalid", "id_token_signature"}
    assert len(id_token) < 3 or id_token not in caught.value.message
    return caught.value


def test_a_right_token_tells_who_logged_in() -> None:
    assert validate(SIGNER.sign(claims())) == Claims(sub=SUB, name="alice", all=claims())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_asymmetric_algorithm_is_verified(algorithm: str) -> None:
    signer = make_signer(algorithm)
    key_set = {"keys": [signer.jwk]}
    assert validate(signer.sign(claims()), key_set).sub == SUB
    at_hash = compute_at_hash(ACCESS_TOKEN, algorithm)
    assert validate(signer.sign(claims(at_hash=at_hash)), key_set).sub == SUB
    refused(signer.sign(claims(at_hash=compute_at_hash(Secret("another"), algorithm))), key_set)


RIGHT: dict[str, dict[str, Any]] = {
    "aud is one text": {"aud": "cells-client"},
    "aud names others too, and azp us": {"aud": ["cells-client", "other"], "azp": "cells-client"},
    "azp is us": {"azp": "cells-client"},
    "the issuer without its slash": {"iss": METADATA.issuer.rstrip("/")},
    "expired within the skew of two clocks": {"exp": NOW - 119},
    "issued in the future within the skew": {"iat": NOW + 120},
    "not valid yet, within the skew": {"nbf": NOW + 120},
    "valid since just now": {"nbf": NOW},
    "times with fractions": {"iat": NOW - 0.5, "exp": NOW + 0.5},
    "no nonce, as releases that drop it": {"nonce": None},
    "at_hash": {"at_hash": "FSoYFaAB3xyM0CjGxUMNtA"},
    "no login name": {"name": None},
    "unheard-of claims": {"acr": "0", "amr": [], "x": {"y": None}},
}


@pytest.mark.parametrize("changes", RIGHT.values(), ids=RIGHT)
def test_what_differs_between_releases_is_right(changes: dict[str, Any]) -> None:
    if "at_hash" in changes:
        half = hashlib.sha256(ACCESS_TOKEN.reveal().encode()).digest()[:16]
        changes = {"at_hash": base64.urlsafe_b64encode(half).decode().rstrip("=")}
    assert validate(SIGNER.sign(claims(**changes))).sub == SUB


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no iss": ({"iss": None}, "its issuer is another"),
    "another iss": ({"iss": "https://evil.example/oidc/"}, "its issuer is another"),
    "the iss of another path": ({"iss": "https://files.example.com/"}, "its issuer is another"),
    "an iss by http": ({"iss": METADATA.issuer.replace("https", "http")}, "its issuer is another"),
    "an iss that is a list": ({"iss": [METADATA.issuer]}, "its issuer is another"),
    "no aud": ({"aud": None}, "it was made for another client"),
    "another aud": ({"aud": ["another-client"]}, "it was made for another client"),
    "another aud as one text": ({"aud": "another-client"}, "it was made for another client"),
    "an aud that begins like ours": ({"aud": "cells-client-2"}, "it was made for another client"),
    "an empty aud": ({"aud": []}, "it was made for another client"),
    "an aud that is an object": ({"aud": {"cells-client": True}}, "it was made for another client"),
    "several aud without azp": (
        {"aud": ["cells-client", "another-client"]},
        "it was made for several clients and names no authorized party",
    ),
    "several aud and another azp": (
        {"aud": ["cells-client", "another-client"], "azp": "another-client"},
        "its authorized party is another client",
    ),
    "another azp": ({"azp": "another-client"}, "its authorized party is another client"),
    "an azp that is a list": ({"azp": ["cells-client"]}, "its authorized party is another client"),
    "no exp": ({"exp": None}, "it has expired"),
    "expired": ({"exp": NOW - 120}, "it has expired"),
    "expired long ago": ({"exp": NOW - 86400}, "it has expired"),
    "exp as a text": ({"exp": str(int(NOW) + 3600)}, "its exp is not a time"),
    "exp is true": ({"exp": True}, "its exp is not a time"),
    "exp is not a number": ({"exp": math.nan}, "it has expired"),
    "exp is infinite": ({"exp": math.inf}, "it has expired"),
    "exp is a million million": ({"exp": 10**12}, "its exp is not a time"),
    "exp is beyond every float": ({"exp": 10**400}, "its exp is not a time"),
    "exp is a list": ({"exp": [NOW + 3600]}, "its exp is not a time"),
    "no iat": ({"iat": None}, "it was issued in the future"),
    "issued in the future": ({"iat": NOW + 121}, "it was issued in the future"),
    "iat as a text": ({"iat": str(int(NOW))}, "its iat is not a time"),
    "iat is not a number": ({"iat": math.nan}, "it was issued in the future"),
    "not valid yet": ({"nbf": NOW + 121}, "it is not valid yet"),
    "nbf as a text": ({"nbf": str(int(NOW))}, "its nbf is not a time"),
    "another nonce": ({"nonce": "x" * 43}, "its nonce is not the one of this login"),
    "an empty nonce": ({"nonce": ""}, "its nonce is not the one of this login"),
    "a nonce in another case": ({"nonce": NONCE.swapcase()}, "its nonce is not the one of this login"),
    "a nonce that is a number": ({"nonce": 7}, "its nonce is not the one of this login"),
    "a nonce that is a list": ({"nonce": [NONCE]}, "its nonce is not the one of this login"),
    "no sub": ({"sub": None}, "it names no subject"),
    "an empty sub": ({"sub": ""}, "it names no subject"),
    "a sub that is a number": ({"sub": 7}, "it names no subject"),
    "another access token's at_hash": (
        {"at_hash": compute_at_hash(Secret("another"), "RS256")},
        "it was made for another access token",
    ),
    "an at_hash that is a number": ({"at_hash": 7}, "it was made for another access token"),
}


@pytest.mark.parametrize(("changes", "reason"), WRONG.values(), ids=WRONG)
def test_a_token_with_one_wrong_claim_is_not_trusted(changes: dict[str, Any], reason: str) -> None:
    error = refused(SIGNER.sign(claims(**changes)))
    assert error.code == "id_token_invalid"
    assert error.message == f"the ID token cannot be trusted: {reason}"
    assert error.hint == "log in again; if it stays so, show this to the server's administrator"


def test_a_nonce_where_none_was_sent_is_not_trusted() -> None:
    with pytest.raises(UntrustedServerError):
        validate(SIGNER.sign(claims()), nonce=None)
    assert validate(SIGNER.sign(claims(nonce=None)), nonce=None).sub == SUB


def unsigned(header: dict[str, Any]) -> str:
    return f"{encode_json(header)}.{encode_json(claims())}."


def spoiled(token: str, part: int) -> str:
    """The token with one bit of one of its three parts changed."""
    parts = token.split(".")
    octets = bytearray(base64.urlsafe_b64decode(parts[part] + "=="))
    octets[len(octets) // 2] ^= 1
    parts[part] = encode(bytes(octets))
    return ".".join(parts)


OTHER = make_signer("RS256", 1)
TOKEN = SIGNER.sign(claims())
HEAD, PAYLOAD, SIGNATURE = TOKEN.split(".")
EMBEDDED_JWK = {"jwk": OTHER.jwk, "kid": None}

FORGED = {
    "a spoiled header": spoiled(TOKEN, 0),
    "spoiled claims": spoiled(TOKEN, 1),
    "a spoiled signature": spoiled(TOKEN, 2),
    "no signature": f"{HEAD}.{PAYLOAD}.",
    "half a signature": f"{HEAD}.{PAYLOAD}.{SIGNATURE[: len(SIGNATURE) // 2]}",
    "two parts": f"{HEAD}.{PAYLOAD}",
    "four parts": f"{TOKEN}.{SIGNATURE}",
    "five parts, as if encrypted": ".".join([encode_json({"alg": "RSA-OAEP", "enc": "A256GCM"}), *"abcd"]),
    "other claims under the same signature": f"{HEAD}.{encode_json(claims(sub='root'))}.{SIGNATURE}",
    "signed by another key under our key's name": OTHER.sign(claims(), {"kid": SIGNER.kid}),
    "signed by another key under its own name": OTHER.sign(claims()),
    "signed by another key without a name": OTHER.sign(claims(), {"kid": None}),
    "an unknown kid": SIGNER.sign(claims(), {"kid": "nobody-published-this"}),
    "a kid that is a number": SIGNER.sign(claims(), {"kid": 7}),
    "a kid that is a path": SIGNER.sign(claims(), {"kid": "../../etc/passwd"}),
    "alg none": unsigned({"alg": "none", "kid": SIGNER.kid}),
    "alg None": unsigned({"alg": "None", "kid": SIGNER.kid}),
    "alg none with a signature": SIGNER.sign(claims(), {"alg": "none"}),
    "no alg": SIGNER.sign(claims(), {"alg": None}),
    "an alg that is a list": SIGNER.sign(claims(), {"alg": ["RS256"]}),
    "an alg that joserfc advises against": SIGNER.sign(claims(), {"alg": "EdDSA"}),
    "an unknown alg": SIGNER.sign(claims(), {"alg": "RS257"}),
    "another alg of the same key": SIGNER.sign(claims(), {"alg": "PS256"}),
    "an alg of another kind of key": SIGNER.sign(claims(), {"alg": "ES256"}),
    "HS256 with the public key as the secret": sign_with_hmac(
        SIGNER.public_pem, claims(), {"kid": SIGNER.kid}
    ),
    "HS256 with the public key's modulus": sign_with_hmac(
        SIGNER.jwk["n"].encode(), claims(), {"kid": SIGNER.kid}
    ),
    "HS256 with no secret": sign_with_hmac(b"", claims(), {"kid": SIGNER.kid}),
    "a key of its own in the header": OTHER.sign(claims(), EMBEDDED_JWK),
    "a key of its own elsewhere": OTHER.sign(claims(), {"jku": "https://evil.example/jwks", "kid": None}),
    "a critical extension that nobody knows": SIGNER.sign(claims(), {"crit": ["x"], "x": 1}),
    "a critical extension that is not there": SIGNER.sign(claims(), {"crit": ["exp"]}),
    "claims that are a list": SIGNER.sign([claims()]),
    "claims that are a text": SIGNER.sign("alice"),
    "claims that are null": SIGNER.sign(None),
    "claims that are no JSON": SIGNER.sign_text(f"{HEAD}.{encode(b'alice')}"),
    "claims that are not UTF-8": SIGNER.sign_text(f"{HEAD}.{encode(bytes([123, 255, 125]))}"),
    "claims that nest too deeply": SIGNER.sign_text(f"{HEAD}.{encode(b'[' * 100_000)}"),
    "a header that is a list": SIGNER.sign_text(f"{encode_json(['RS256'])}.{PAYLOAD}"),
    "a header that nests too deeply": SIGNER.sign_text(f"{encode(b'[' * 100_000)}.{PAYLOAD}"),
    "padding": TOKEN + "=",
    "a line break": TOKEN + "\n",
    "nothing": "",
    "a dot": ".",
    "dots": "..",
    "a word": "eyJ",
    "an umlaut": "ü.ü.ü",
    "a lone surrogate": "\udcff.a.b",
}


@pytest.mark.parametrize("id_token", FORGED.values(), ids=FORGED)
def test_a_token_whose_signature_is_not_the_servers_is_not_trusted(id_token: str) -> None:
    assert refused(id_token).code in {"id_token_signature", "id_token_invalid"}


def without(jwk: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    return {**{name: value for name, value in jwk.items() if name not in names}, **changes}


NO_KEY: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no keys": {"keys": []},
    "keys that are null": {"keys": None},
    "keys that are an object": {"keys": SIGNER.jwk},
    "a key that is a text": {"keys": [SIGNER.public_pem.decode()]},
    "a key for encryption": {"keys": [without(SIGNER.jwk, use="enc")]},
    "a symmetric key of the same name": {
        "keys": [{"kty": "oct", "kid": SIGNER.kid, "k": encode(SIGNER.public_pem), "alg": "HS256"}]
    },
    "a key without its modulus": {"keys": [without(SIGNER.jwk, "n")]},
    "a modulus that is a number": {"keys": [without(SIGNER.jwk, n=7)]},
    "a modulus of 1,024 bits": {"keys": [without(SIGNER.jwk, n=SIGNER.jwk["n"][:171])]},
    "a modulus of nothing": {"keys": [without(SIGNER.jwk, n="")]},
    "an exponent of one": {"keys": [without(SIGNER.jwk, e="AQ")]},
    "an exponent of many bytes": {"keys": [without(SIGNER.jwk, e="AQAB" * 2000)]},
    "a key of another kind": {"keys": [without(make_signer("ES256").jwk, kid=SIGNER.kid)]},
    "a key without a kind": {"keys": [without(SIGNER.jwk, "kty")]},
    "a kind that is a list": {"keys": [without(SIGNER.jwk, kty=["RSA"])]},
    "a use that is a list": {"keys": [without(SIGNER.jwk, use=["sig"])]},
    "a kind of tomorrow": {"keys": [without(SIGNER.jwk, kty="LATTICE")]},
    "a curve of tomorrow": {
        "keys": [{"kty": "EC", "crv": "P-1024", "x": "AQ", "y": "AQ", "kid": SIGNER.kid}]
    },
    "a point off the curve": {"keys": [without(make_signer("ES256").jwk, x="AQ" * 16, kid=SIGNER.kid)]},
    "a list as a name": {"keys": [without(SIGNER.jwk, kid=["x"])]},
}


@pytest.mark.parametrize("key_set", NO_KEY.values(), ids=NO_KEY)
def test_without_the_right_key_nothing_is_trusted(key_set: dict[str, Any]) -> None:
    error = refused(TOKEN, key_set)
    assert error.code == "id_token_signature"
    assert re.search(r": its signature cannot be verified \(\w+Error\)$", error.message)


@pytest.mark.parametrize("bad", NO_KEY.values(), ids=NO_KEY)
def test_a_key_that_is_not_understood_is_passed_over(bad: dict[str, Any]) -> None:
    """RFC 7517 §5: one odd key in the set must not lock everybody out."""
    keys = bad.get("keys")
    others = [
        without(key, kid="another") if isinstance(key, dict) else key
        for key in (keys if isinstance(keys, list) else [])
    ]
    assert validate(TOKEN, {"keys": [*others, SIGNER.jwk]}).sub == SUB


def test_the_key_is_found_among_many() -> None:
    key_set = {"keys": [make_signer(algorithm).jwk for algorithm in ALGORITHMS]}
    for algorithm in ALGORITHMS:
        assert validate(make_signer(algorithm).sign(claims()), key_set).sub == SUB


def test_a_token_without_a_kid_is_verified_by_the_only_key() -> None:
    assert validate(SIGNER.sign(claims(), {"kid": None})).sub == SUB


def test_a_key_that_says_nothing_of_its_use_is_one() -> None:
    assert validate(TOKEN, {"keys": [without(SIGNER.jwk, "use", "alg")]}).sub == SUB


def test_no_fault_repeats_the_token_or_a_claim() -> None:
    for changes, _ in WRONG.values():
        error = refused(SIGNER.sign(claims(**changes)))
        for told in (NONCE, SUB, "alice"):
            assert told not in error.message + error.hint
        assert error.__cause__ is None


def test_at_hash_is_that_of_openid_connect_core_appendix_a() -> None:
    """OpenID Connect Core Appendix A.4: access token and ``at_hash`` of the example response."""
    assert compute_at_hash(Secret("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"), "RS256") == (
        "77QmUPtjPfzWtF2AnpK9RQ"
    )


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"name": "alice", "email": "a@example.com", "sub": "1"}, "alice"),
        ({"preferred_username": "alice", "email": "a@example.com"}, "alice"),
        ({"email": "a@example.com", "sub": "1"}, "a@example.com"),
        ({"sub": "1"}, "1"),
        ({"name": "", "sub": "1"}, "1"),
        ({"name": 7, "sub": "1"}, "1"),
        ({}, ""),
    ],
    ids=str,
)
def test_the_login_name_is_the_claim_name_or_the_next_best(members: dict[str, Any], name: str) -> None:
    assert login_name(members) == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def test_a_header_member_that_nobody_knows_is_ignored() -> None:
    """RFC 7515 §4."""
    assert validate(SIGNER.sign(claims(), {"x": 1, "typ": "at+jwt"})).sub == SUB


def test_no_key_is_too_large_to_be_looked_at() -> None:
    """A modulus of half a megabyte costs the verifier no time worth mentioning."""
    huge = {"keys": [without(SIGNER.jwk, n="_" * 500_000)]}
    began = time.monotonic()
    refused(TOKEN, huge)
    assert time.monotonic() - began < 10


@given(st.sampled_from(list(claims())), JSON)
def test_a_signed_token_with_any_claim_is_judged(name: str, value: Any) -> None:
    """Also what the server itself signs is only believed when it is right."""
    members = json.loads(json.dumps({**claims(), name: value}))
    try:
        found = validate(SIGNER.sign(members))
    except UntrustedServerError:
        return
    assert found.sub == members["sub"] != ""
    assert abs(members["exp"]) < 1e12


@given(st.sampled_from(ALGORITHMS), st.sampled_from(ALGORITHMS))
def test_no_algorithm_verifies_another(signed_with: str, named: str) -> None:
    signer = make_signer(signed_with)
    token = signer.sign(claims(), {"alg": named})
    if signed_with == named:
        assert validate(token, {"keys": [signer.jwk]}).sub == SUB
    else:
        refused(token, {"keys": [without(signer.jwk, "alg")]})
