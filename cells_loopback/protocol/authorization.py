"""The authorization request becomes a URL; the query that comes back becomes an `AuthorizationResponse`.

What was asked judges the answer: only `AuthorizationRequest.validate_response` makes an
`AuthorizationResponse`, and only that can be exchanged. No network, no disk.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from cells_loopback.errors import LoginFailedError, UntrustedServerError
from cells_loopback.protocol.site import same_issuer
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cells_loopback.protocol.client import ClientRegistration
    from cells_loopback.protocol.site import ServerMetadata

_MAX_SERVER_WORDS = 500


def generate_random_value() -> Secret:
    """Return 256 random bits as 43 characters of ``A-Z a-z 0-9 - _``.

    RFC 7636 §4.1 asks for 32 octets, base64url-encoded, as ``code_verifier``. The alphabet matters
    for ``state`` too: Cells puts it into the redirect without percent-encoding.
    """
    return Secret(_base64url(os.urandom(32)))


def compute_code_challenge(code_verifier: Secret) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 §4.2)."""
    return _base64url(hashlib.sha256(code_verifier.reveal().encode("ascii")).digest())


def compare_values(received: str, ours: Secret) -> bool:
    """Whether a value from outside is our random one, in time that depends on its length alone."""
    return hmac.compare_digest(received.encode("utf-8", "surrogatepass"), ours.reveal().encode())


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


@dataclass(frozen=True)
class AuthorizationRequest:
    """One authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3, OpenID Connect Core §3.1.2.1).

    ``code_verifier`` is None when PKCE is off for this request. The three random values belong to
    this request alone: a second authorization is a new `AuthorizationRequest`.
    """

    metadata: ServerMetadata
    client: ClientRegistration
    redirect_uri: str
    state: Secret
    nonce: Secret
    code_verifier: Secret | None

    @property
    def url(self) -> str:
        """The URL to open in the browser. It holds no secret but ``state`` and ``nonce``, as it must."""
        parameters = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": self.client.scope,
            "state": self.state.reveal(),
            "nonce": self.nonce.reveal(),
        }
        if self.code_verifier is not None:
            parameters["code_challenge"] = compute_code_challenge(self.code_verifier)
            parameters["code_challenge_method"] = "S256"
        endpoint = self.metadata.authorization_endpoint
        return endpoint + ("&" if urlsplit(endpoint).query else "?") + urlencode(parameters)

    def matches_state(self, state: str) -> bool:
        """Whether ``state`` is this request's own, compared in constant time."""
        return compare_values(state, self.state)

    def validate_response(self, parameters: Mapping[str, str]) -> AuthorizationResponse:
        """Judge the parameters of an authorization response (RFC 6749 §4.1.2, RFC 9207 §2.4).

        ``parameters`` holds each parameter once; the callback server has refused repeated ones.
        Raises `UntrustedServerError` for a wrong ``state`` or ``iss``, and `LoginFailedError` for an
        error answer or a response without a code.
        """
        if not self.matches_state(parameters.get("state", "")):
            raise UntrustedServerError(
                "the answer does not belong to this login: its state is another",
                hint="log in again",
                code="state_mismatch",
            )
        self._validate_iss(parameters)
        if "error" in parameters:
            raise authorization_error(parameters)
        code = parameters.get("code")
        if not code:
            raise LoginFailedError(
                "the server came back without a code and without an error",
                hint="log in again; if it stays so, ask the server's administrator",
                code="no_code",
            )
        return AuthorizationResponse(self, Secret(code))

    def _validate_iss(self, parameters: Mapping[str, str]) -> None:
        # RFC 9207 §2.4: checked whenever present, required where the metadata promises it. Some providers
        # forget it on errors, and the words of an error with our state harm nobody.
        iss = parameters.get("iss")
        promised = self.metadata.authorization_response_iss_parameter_supported
        if iss is None and (not promised or "error" in parameters):
            return
        if iss is None or not same_issuer(iss, self.metadata.issuer):
            raise UntrustedServerError(
                f"the answer comes from another issuer: {iss or 'it names none'}",
                hint="do not log in through this network until the server's administrator has looked at it",
                code="iss_mismatch",
            )


@dataclass(frozen=True)
class AuthorizationResponse:
    """A validated authorization response: the code, and the request that it answers."""

    request: AuthorizationRequest
    code: Secret


def start_authorization(
    metadata: ServerMetadata, client: ClientRegistration, redirect_uri: str, *, with_pkce: bool
) -> AuthorizationRequest:
    """Make a new authorization request with fresh random values."""
    return AuthorizationRequest(
        metadata=metadata,
        client=client,
        redirect_uri=redirect_uri,
        state=generate_random_value(),
        nonce=generate_random_value(),
        code_verifier=generate_random_value() if with_pkce else None,
    )


def authorization_error(parameters: Mapping[str, str]) -> LoginFailedError:
    """Turn an error answer into the error for the person (RFC 6749 §4.1.2.1).

    The server's words are kept as they are; whoever shows them makes them safe for the place.
    """
    error = parameters.get("error", "")
    words = server_words(parameters)
    if error == "access_denied":
        return LoginFailedError(
            f"the login was refused: {words}", hint="log in again and agree", code="access_denied"
        )
    return LoginFailedError(
        f"the server answered with an error: {words}",
        hint="log in again; if it stays so, show the message to the server's administrator",
        code="authorization_error",
    )


def server_words(answer: Mapping[str, object]) -> str:
    """Join ``error``, ``error_description`` and ``error_hint`` into one line of bounded length.

    Hydra sends the hint in a member of its own on older releases and at the end of the description
    on newer ones.
    """
    words: list[str] = []
    for name in ("error", "error_description", "error_hint"):
        value = answer.get(name)
        word = value.strip() if isinstance(value, str) else ""
        if word and not any(word in known for known in words):
            words.append(word)
    text = ": ".join([*words[:1], " ".join(words[1:])]) if len(words) > 1 else "".join(words)
    return text if len(text) <= _MAX_SERVER_WORDS else text[:_MAX_SERVER_WORDS] + "…"
