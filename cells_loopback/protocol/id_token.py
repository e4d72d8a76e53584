"""Validate an ID Token against keys handed in (OpenID Connect Core §3.1.3.7 and §3.1.3.8).

Signatures are joserfc's work; the claims are judged here, cheap checks before the signature. No
network: `endpoints` fetches the keys.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cells_loopback.errors import UntrustedServerError, without_frames
from cells_loopback.protocol.authorization import compare_values
from cells_loopback.protocol.json_decoder import FiniteJSONDecoder
from cells_loopback.protocol.site import same_issuer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cells_loopback.secret import Secret

_CLOCK_SKEW = 120.0
"""Seconds by which two honest clocks may differ, the server's own ``Date`` already considered."""

# What joserfc and cryptography raise, beside their own errors, for members of a wrong kind or size.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)

_LAST_TIME = 1e12
"""Seconds, in some 30,000 years: arithmetic with what is beyond has lost its seconds."""

# Asymmetric only: a key from a public key set must never verify a MAC (RFC 8725 §3.1, §3.2).
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")

_SHORTEST_MODULUS = 342
"""Characters of base64url for the 2,048 bits that an RSA key must have (RFC 7518 §3.3)."""


@dataclass(frozen=True)
class Claims:
    """The claims of a validated ID Token that we use; ``all`` holds every one as the server sent it."""

    sub: str
    name: str
    all: Mapping[str, Any]


def validate_id_token(
    id_token: Secret,
    key_set: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    nonce: Secret | None,
    access_token: Secret,
    now: float,
) -> Claims:
    """Return the claims of ``id_token``, or raise `UntrustedServerError` for any single fault.

    ``key_set`` is the JWKS document; ``now`` is Unix seconds by the server's clock. ``nonce`` is the
    one sent in the authorization request: when the ID Token carries a nonce it must be that one. Cells
    v2 to v4 drop the nonce on the way, so its absence alone is no fault.
    ``access_token`` is the one that came with it, which ``at_hash`` ties to it where there is one.
    """
    return without_frames(lambda: _validate(id_token, key_set, issuer, client_id, nonce, access_token, now))


def _validate(
    id_token: Secret,
    key_set: Mapping[str, Any],
    issuer: str,
    client_id: str,
    nonce: Secret | None,
    access_token: Secret,
    now: float,
) -> Claims:
    algorithm, claims = _verify_signature(id_token, key_set)
    _validate_audience(claims, client_id)
    iss = claims.get("iss")
    if not isinstance(iss, str) or not same_issuer(iss, issuer):
        raise _fault("its issuer is another")
    _validate_times(claims, now)
    sent = claims.get("nonce")
    if sent is not None and (nonce is None or not isinstance(sent, str) or not compare_values(sent, nonce)):
        raise _fault("its nonce is not the one of this login")
    at_hash = claims.get("at_hash")
    if at_hash is not None and at_hash != compute_at_hash(access_token, algorithm):
        raise _fault("it was made for another access token")
    sub = claims.get("sub")
    if not isinstance(sub, str) or not sub:
        raise _fault("it names no subject")
    return Claims(sub=sub, name=login_name(claims), all=claims)


def login_name(claims: Mapping[str, Any]) -> str:
    """Return the login name: Cells' claim ``name``, else the next best that people recognise."""
    for claim in ("name", "preferred_username", "email", "sub"):
        value = claims.get(claim)
        if isinstance(value, str) and value:
            return value
    return ""


def compute_at_hash(access_token: Secret, algorithm: str) -> str:
    """Return the left half of the token's hash, by the hash of ``algorithm`` (§3.1.3.6)."""
    digest = hashlib.new("sha" + algorithm[-3:], access_token.reveal().encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode("ascii")


def _verify_signature(id_token: Secret, key_set: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the algorithm and the claims of a token whose signature is right."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet
    from joserfc.jws import JWSRegistry

    # Header members that nobody knows are to be ignored, unless marked critical (RFC 7515 §4).
    registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    try:
        keys = KeySet(_usable_keys(key_set))
        token = jwt.decode(id_token.reveal(), keys, registry=registry, decoder_cls=FiniteJSONDecoder)
    except (JoseError, *_UNREADABLE) as error:
        reason = f"its signature cannot be verified ({type(error).__name__})"
        raise _fault(reason, "id_token_signature") from None
    if not isinstance(token.claims, dict):  # joserfc before 1.8 takes any JSON
        raise _fault("it holds no claims", "id_token_invalid")
    return str(token.header["alg"]), token.claims


def _usable_keys(key_set: Mapping[str, Any]) -> list[Any]:
    """Return the keys that sign; one that is not understood is passed over (RFC 7517 §5)."""
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry

    documents = key_set.get("keys")
    keys = []
    for document in documents if isinstance(documents, list) else []:
        if not isinstance(document, dict) or document.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        is_short = document["kty"] == "RSA" and len(str(document.get("n", ""))) < _SHORTEST_MODULUS
        if is_short or document.get("use", "sig") != "sig":
            continue
        try:
            keys.append(JWKRegistry.import_key(document))
        except (JoseError, *_UNREADABLE):
            continue
    return keys


def _validate_audience(claims: Mapping[str, Any], client_id: str) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise _fault("it was made for another client")
    azp = claims.get("azp")
    if azp is not None and azp != client_id:
        raise _fault("its authorized party is another client")
    if len(audiences) > 1 and azp is None:
        raise _fault("it was made for several clients and names no authorized party")


def _validate_times(claims: Mapping[str, Any], now: float) -> None:
    exp, iat, nbf = (_seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if exp is None or exp + _CLOCK_SKEW <= now:
        raise _fault("it has expired")
    if iat is None or iat - _CLOCK_SKEW > now:
        raise _fault("it was issued in the future")
    if nbf is not None and nbf - _CLOCK_SKEW > now:
        raise _fault("it is not valid yet")


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LAST_TIME:
        raise _fault(f"its {name} is not a time")
    return float(value)


def _fault(reason: str, code: str = "id_token_invalid") -> UntrustedServerError:
    return UntrustedServerError(
        f"the ID token cannot be trusted: {reason}",
        hint="log in again; if it stays so, show this to the server's administrator",
        code=code,
    )
