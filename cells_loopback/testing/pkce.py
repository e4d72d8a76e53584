"""PKCE as fosite judges it, and the ways in which Cells releases lose the client's challenge.

The Cells login page issues its code through a second, internal authorization request. What fosite
keeps with that code is here called its PKCE data:

- *bound*: the client's own challenge;
- *unbound*: nothing. A verifier is then refused with "Unable to find initial PKCE data";
- *unbound-old-wording*: data without a challenge, refused in other words;
- *foreign*: a challenge that the release made itself, which no client can match.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .answers import INVALID_GRANT, INVALID_REQUEST, Refused

if TYPE_CHECKING:
    from .behaviour import Behaviour

_UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]*")


@dataclass(frozen=True)
class PkceData:
    """What is kept with a code; `challenge` is empty where the request had none."""

    challenge: str
    method: str = "S256"


def validate_challenge(challenge: str, method: str, behaviour: Behaviour) -> None:
    """Judge the challenge of an authorization request (RFC 7636 §4.3)."""
    if not challenge:
        if behaviour.pkce_required:
            hint = (
                "Clients must include a code_challenge when performing the authorize code flow, but it is"
                " missing."
            )
            raise Refused(INVALID_REQUEST.with_hint(hint))
        return
    if method not in {"", "plain", "S256"}:
        raise Refused(
            INVALID_REQUEST.with_hint("The code_challenge_method is not supported, use S256 instead.")
        )


def keep_pkce_data(challenge: str, method: str, behaviour: Behaviour) -> PkceData | None:
    """Return what this release keeps with a code that a request with this challenge leads to."""
    if behaviour.pkce == "unbound-old-wording":
        return PkceData("")
    if behaviour.pkce == "foreign" and challenge:
        return PkceData(compute_s256(secrets.token_urlsafe(32)))
    if behaviour.pkce == "unbound" or not challenge:
        return None
    return PkceData(challenge, method or "plain")


def validate_verifier(data: PkceData | None, verifier: str, *, required: bool) -> None:
    """Judge the verifier of an exchange in fosite's order and words (RFC 7636 §4.6)."""
    if data is None:
        if verifier:
            raise Refused(INVALID_GRANT.with_hint("Unable to find initial PKCE data tied to this request"))
        if required:
            raise Refused(
                INVALID_REQUEST.with_hint(
                    "Clients must include a code_challenge when performing the authorize code flow,"
                    " but it is missing."
                )
            )
        return
    if not data.challenge and not verifier:
        return
    if reason := _find_fault(data, verifier):
        raise Refused(INVALID_GRANT.with_hint(reason))


def compute_s256(verifier: str) -> str:
    """Return BASE64URL-ENCODE(SHA256(ASCII(verifier))), RFC 7636 §4.2."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _find_fault(data: PkceData, verifier: str) -> str:
    if len(verifier) < 43:
        return "The PKCE code verifier must be at least 43 characters."
    if len(verifier) > 128:
        return "The PKCE code verifier can not be longer than 128 characters."
    if not _UNRESERVED.fullmatch(verifier):
        return "The PKCE code verifier must only contain [a-Z], [0-9], '-', '.', '_', '~'."
    if not data.challenge:
        return (
            "The PKCE code verifier was provided but the code challenge was absent from the"
            " authorization request."
        )
    computed = compute_s256(verifier) if data.method == "S256" else verifier
    if not hmac.compare_digest(computed, data.challenge):
        return "The PKCE code challenge did not match the code verifier."
    return ""
