"""The errors of fosite and Hydra in their own words, and the two formats in which releases write them."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .behaviour import Behaviour


@dataclass(frozen=True)
class ErrorAnswer:
    """An error of RFC 6749 §5.2 or §4.1.2.1, with the hint that fosite adds."""

    error: str
    description: str = ""
    hint: str = ""
    status: int = 400

    def with_hint(self, hint: str) -> ErrorAnswer:
        """Return the same error for a particular reason."""
        return replace(self, hint=hint)


class Refused(Exception):  # noqa: N818  as in Hydra, the error is the answer that this carries
    """A request that is answered with an error."""

    def __init__(self, answer: ErrorAnswer) -> None:
        super().__init__(answer.error)
        self.answer = answer


INVALID_REQUEST = ErrorAnswer(
    "invalid_request",
    "The request is missing a required parameter, includes an invalid parameter value, includes a"
    " parameter more than once, or is otherwise malformed.",
)
INVALID_CLIENT = ErrorAnswer(
    "invalid_client",
    "Client authentication failed (e.g., unknown client, no client authentication included, or"
    " unsupported authentication method).",
    status=401,
)
INVALID_GRANT = ErrorAnswer(
    "invalid_grant",
    "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh"
    " token is invalid, expired, revoked, does not match the redirection URI used in the authorization"
    " request, or was issued to another client.",
)
INVALID_SCOPE = ErrorAnswer("invalid_scope", "The requested scope is invalid, unknown, or malformed.")
INVALID_STATE = ErrorAnswer(
    "invalid_state",
    "The state is missing or does not have enough characters and is therefore considered too weak.",
    'Request parameter "state" must be at least be 8 characters long to ensure sufficient entropy.',
)
INSUFFICIENT_ENTROPY = ErrorAnswer(
    "insufficient_entropy",
    "The request used a security parameter (e.g., anti-replay, anti-csrf) with insufficient entropy.",
    'Parameter "nonce" is set but does not satisfy the minimum entropy of 8 characters.',
)
ACCESS_DENIED = ErrorAnswer(
    "access_denied",
    "The resource owner or authorization server denied the request.",
    "The resource owner denied the request.",
    403,
)
SCOPE_NOT_GRANTED = ErrorAnswer(
    "scope_not_granted",
    "The token was not granted the requested scope.",
    "The OAuth 2.0 Client was not granted scope offline and may thus not perform the"
    ' "refresh_token" authorization grant.',
    403,
)
TOKEN_INACTIVE = ErrorAnswer(
    "token_inactive",
    "Token is inactive because it is malformed, expired or otherwise invalid.",
    "Token validation failed.",
    401,
)
REQUEST_UNAUTHORIZED = ErrorAnswer(
    "request_unauthorized",
    "The request could not be authorized.",
    "Check that you provided valid credentials in the right format.",
    401,
)
UNAUTHORIZED_CLIENT = ErrorAnswer(
    "unauthorized_client",
    "The client is not authorized to request a token using this method.",
    "Make sure that client id and secret are correctly specified and that the client exists.",
)
UNSUPPORTED_GRANT_TYPE = ErrorAnswer(
    "unsupported_grant_type", "The authorization grant type is not supported by the authorization server."
)
UNSUPPORTED_RESPONSE_TYPE = ErrorAnswer(
    "unsupported_response_type",
    "The authorization server does not support obtaining a token using this method.",
)


def build_error_body(answer: ErrorAnswer, behaviour: Behaviour) -> dict[str, object]:
    """Return the JSON object in which this release writes an error."""
    body: dict[str, object] = {"error": answer.error}
    if behaviour.error_format == "error-hint":
        body["error_description"] = answer.description
        if answer.hint:
            body["error_hint"] = answer.hint
    else:
        body["error_description"] = " ".join(filter(None, (answer.description, answer.hint)))
    if behaviour.error_details:
        body |= {"error_debug": answer.error.replace("_", " "), "status_code": answer.status}
    return body


def build_error_redirect(redirect_uri: str, answer: ErrorAnswer, state: str) -> str:
    """Return where Hydra sends the browser with an error: properly encoded, unlike a code."""
    parameters = {"error": answer.error, "error_description": answer.description}
    if answer.hint:
        parameters["error_hint"] = answer.hint
    if state:
        parameters["state"] = state
    return redirect_uri + ("&" if "?" in redirect_uri else "?") + urllib.parse.urlencode(parameters)
