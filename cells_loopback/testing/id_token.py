"""ID tokens as Cells makes them, and every single way in which one can be wrong."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

from .keys import encode_base64url, encode_unsigned

if TYPE_CHECKING:
    from .behaviour import Behaviour
    from .grants import AccessToken
    from .keys import SigningKeys


def build_id_token(
    access_token: AccessToken, issuer: str, now: float, keys: SigningKeys, behaviour: Behaviour
) -> str | None:
    """Return the ID token that comes with an access token, or None where the release gives none."""
    fault = behaviour.id_token_fault
    if fault == "missing":
        return None
    claims = _build_claims(access_token, issuer, now, behaviour)
    claims |= _build_wrong_claim(fault, now)
    if behaviour.azp != "absent":
        claims["azp"] = access_token.session.client_id if behaviour.azp == "right" else "another-client"
    claims |= behaviour.id_token_claims
    claims = {name: value for name, value in claims.items() if value is not None}
    if fault == "alg-none":
        return encode_unsigned({"alg": "none", "typ": "JWT"}, claims) + "."
    if fault == "alg-hs256":
        return keys.sign_with_public_key(claims)
    if fault == "kid":
        return keys.sign(claims, kid="public:hydra.openid.id-token:nobody-published-this")
    token = keys.sign(claims)
    return _spoil_signature(token) if fault == "signature" else token


def _build_claims(
    access_token: AccessToken, issuer: str, now: float, behaviour: Behaviour
) -> dict[str, object]:
    session = access_token.session
    claims: dict[str, object] = {
        "iss": issuer,
        "sub": session.user.uuid,
        "aud": [session.client_id],
        "iat": int(now),
        "exp": int(now + behaviour.id_token_lifetime),
        "auth_time": int(session.auth_time),
        "rat": int(session.auth_time),
        "jti": str(uuid.uuid4()),
        "sid": session.id,
        "at_hash": encode_base64url(hashlib.sha256(access_token.value.encode("ascii")).digest()[:16]),
        "name": session.user.name,
        "email": session.user.email,
        "authSource": "pydio",
    }
    if session.nonce:
        claims["nonce"] = session.nonce
    return claims


def _build_wrong_claim(fault: str | None, now: float) -> dict[str, object]:
    wrong: dict[str, dict[str, object]] = {
        "iss": {"iss": "https://elsewhere.example/oidc/"},
        "aud": {"aud": ["another-client"]},
        "exp": {"iat": int(now) - 7200, "exp": int(now) - 3600},
        "iat": {"iat": int(now) + 7200, "exp": int(now) + 10800},
        "sub": {"sub": None},
        "at_hash": {"at_hash": encode_base64url(bytes(16))},
    }
    return wrong.get(fault or "", {})


def _spoil_signature(token: str) -> str:
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'B' if signature.startswith('A') else 'A'}{signature[1:]}"
