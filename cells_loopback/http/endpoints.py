"""The server's endpoints: build the request, send it, judge the answer.

Each function is one request of the protocol (or of Cells' REST API where the protocol has none). What
can be wrong with an answer is decided here and becomes one of our errors; retrying is the caller's
choice, since only it knows whether a second try is safe.
"""

from __future__ import annotations

import html
import random
import re
from typing import TYPE_CHECKING, Any

from cells_loopback.errors import (
    LoginFailedError,
    LoginRequiredError,
    ServerUnavailableError,
    UntrustedServerError,
    without_frames,
)
from cells_loopback.http.answers import WAIT, judge_metadata, raise_if_failing
from cells_loopback.protocol.authorization import server_words
from cells_loopback.protocol.client import authenticate_client
from cells_loopback.protocol.pkce import classify_pkce_failure
from cells_loopback.protocol.tokens import (
    assume_lifetime,
    carry_over,
    parse_token_response,
    read_refresh_token,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cells_loopback.errors import CellsLoopbackError
    from cells_loopback.http.answers import Answer
    from cells_loopback.http.transport import SiteClient
    from cells_loopback.protocol.authorization import AuthorizationResponse
    from cells_loopback.protocol.client import ClientRegistration
    from cells_loopback.protocol.pkce import PKCEFailure
    from cells_loopback.protocol.site import ServerMetadata, Site
    from cells_loopback.protocol.tokens import TokenSet
    from cells_loopback.secret import Secret


_LOG_IN_AGAIN = "log in again; if it stays so, show the message to the server's administrator"
_CHECK_CLIENT = "check --client-id, and give the secret if this client has one: --client-secret-file FILE"

# A tag holds no "<": without that, a page of "<user" over and over would take hours to search.
_STATE_USER = re.compile(r"""<user\b[^<>]*\bid=["']([^"'<>]{1,200})["']""")


class ExchangeFailedError(LoginFailedError):
    """The token endpoint refused the exchange.

    ``pkce_failure`` tells whether and how PKCE was the reason, ``may_be_spent`` that the code itself was,
    as one is that has been used before.
    """

    def __init__(
        self, message: str, *, hint: str, pkce_failure: PKCEFailure | None, may_be_spent: bool = False
    ) -> None:
        super().__init__(message, hint=hint, code="exchange_failed")
        self.pkce_failure = pkce_failure
        self.may_be_spent = may_be_spent


class RefreshRejectedError(LoginRequiredError):
    """The server refused the refresh token: this one will never work again."""

    default_code = "refresh_rejected"


class UnusableAnswerError(UntrustedServerError):
    """A token response without a usable access token; ``refresh_token`` is the new one if there is one."""

    default_code = "token_response_invalid"

    def __init__(self, site: Site, refresh_token: Secret | None = None) -> None:
        super().__init__(
            f"{site.url} gave an answer without a usable access token",
            hint="show this to the server's administrator",
        )
        self.refresh_token = refresh_token


def fetch_metadata(client: SiteClient) -> ServerMetadata:
    """Fetch and judge the discovery document (OpenID Connect Discovery 1.0 §4).

    Raises `LoginFailedError` when there is no Cells server at the site, `UntrustedServerError` and
    `ServerUnavailableError` as their names say.
    """
    site = client.site
    return judge_metadata(site, client.get(site.discovery_url))


def fetch_key_set(client: SiteClient, metadata: ServerMetadata) -> dict[str, Any]:
    """Fetch the server's public keys (RFC 7517 §5). Raises `UntrustedServerError` if there are none."""
    if metadata.jwks_uri is None:
        raise UntrustedServerError(
            f"{client.site.url} publishes no keys to check its ID token with",
            hint="ask the server's administrator",
            code="no_keys",
        )
    answer = client.get(metadata.jwks_uri)
    raise_if_failing(client.site, answer)
    document = answer.json_object() if answer.status == 200 else None
    if document is None:
        raise UntrustedServerError(
            f"{client.site.url} answers {answer.status} and no key set where its keys should be",
            hint="ask the server's administrator",
            code="no_keys",
        )
    return document


def exchange(client: SiteClient, response: AuthorizationResponse, *, with_verifier: bool = True) -> TokenSet:
    """Exchange the code for tokens (RFC 6749 §4.1.3, RFC 7636 §4.5).

    ``with_verifier=False`` is for the one case in which `pkce` allows it. Raises `ExchangeFailedError`
    when the server refuses the code, `LoginFailedError` for any other refusal.
    """
    request = response.request
    form: dict[str, str | Secret] = {
        "grant_type": "authorization_code",
        "code": response.code,
        "redirect_uri": request.redirect_uri,
    }
    if request.code_verifier is not None and with_verifier:
        form["code_verifier"] = request.code_verifier
    answer = _post(client, request.metadata.token_endpoint, form, request.client, request.metadata)
    return without_frames(lambda: _judge_exchange(client.site, answer, request.client.scope, form))


def _judge_exchange(site: Site, answer: Answer, scope: str, form: Mapping[str, str | Secret]) -> TokenSet:
    document = _token_answer(site, answer, form)
    # Some servers send their errors with the status of a success; RFC 6749 §5.2 has 400.
    if not _is_success(answer) or ("error" in document and "access_token" not in document):
        raise ExchangeFailedError(
            f"the server refused the code: {_words(document, form)}",
            hint=_CHECK_CLIENT if document.get("error") == "invalid_client" else _LOG_IN_AGAIN,
            pkce_failure=classify_pkce_failure(document),
            may_be_spent=document.get("error") == "invalid_grant",
        )
    tokens = parse_token_response(document, scope, answer.time, random.random())
    if tokens is None:
        raise UnusableAnswerError(site)
    return assume_lifetime(tokens)


def refresh(
    client: SiteClient, metadata: ServerMetadata, registration: ClientRegistration, tokens: TokenSet
) -> TokenSet:
    """Renew ``tokens`` with their refresh token (RFC 6749 §6), one request, no retry.

    Raises `RefreshRejectedError` when the refresh token is no longer good, `LoginFailedError` for an
    error that no retry mends, `UntrustedServerError` for an answer that cannot be trusted and
    `ServerUnavailableError` when the server fails, its ``answer_lost`` set if the token may be spent.
    """
    if tokens.refresh_token is None:
        raise LoginRequiredError("the session has no refresh token", hint="log in again")
    form: dict[str, str | Secret] = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
    answer = _post(client, metadata.token_endpoint, form, registration, metadata)
    return without_frames(lambda: _judge_refresh(client.site, answer, tokens, form))


def _judge_refresh(
    site: Site, answer: Answer, tokens: TokenSet, form: Mapping[str, str | Secret]
) -> TokenSet:
    document = _token_answer(site, answer, form)
    if not _is_success(answer):
        raise _refresh_error(document, form)
    new = parse_token_response(document, tokens.scope, answer.time, random.random())
    if new is None:
        raise UnusableAnswerError(site, read_refresh_token(document))
    return assume_lifetime(carry_over(tokens, new))


def _refresh_error(document: Mapping[str, Any], form: Mapping[str, str | Secret]) -> CellsLoopbackError:
    words = _words(document, form)
    # Older Hydra answers a spent refresh token with 401 token_inactive instead of 400 invalid_grant.
    if document.get("error") in ("invalid_grant", "token_inactive"):
        return RefreshRejectedError(f"the server no longer renews this session: {words}", hint="log in again")
    return LoginFailedError(
        f"the server refused the renewal: {words}",
        hint="the session is kept; show the message to the server's administrator",
        code="refresh_refused",
    )


def revoke(
    client: SiteClient, metadata: ServerMetadata, registration: ClientRegistration, token: Secret
) -> bool:
    """Revoke a token (RFC 7009 §2.1); False when the server has no such endpoint.

    Raises `ServerUnavailableError` or `LoginFailedError` when the server does not do it.
    """
    if metadata.revocation_endpoint is None:
        return False
    form: dict[str, str | Secret] = {"token": token}
    answer = _post(client, metadata.revocation_endpoint, form, registration, metadata)
    if answer.status not in {200, 204}:
        words = _words(answer.json_object() or {}, form) or f"status {answer.status}"
        raise LoginFailedError(
            f"the server did not revoke the session: {words}",
            hint="end it on the server's own pages, or let it end by itself",
            code="revoke_failed",
        )
    return True


def fetch_userinfo(
    client: SiteClient, metadata: ServerMetadata, access_token: Secret
) -> dict[str, Any] | None:
    """Fetch the user's claims (OpenID Connect Core §5.3); None when the server refuses the token.

    Raises `ServerUnavailableError`.
    """
    if metadata.userinfo_endpoint is None:
        return None
    answer = client.get(metadata.userinfo_endpoint, bearer=access_token)
    raise_if_failing(client.site, answer)
    return answer.json_object() if answer.status == 200 else None


def ask_rest_api(client: SiteClient, access_token: Secret) -> str | None:
    """Ask the REST API whose token this is: the login name, '' if it does not tell, None if it is refused.

    The frontend's state may be read by anybody on some releases, and then names the user only of a good
    token; the second call is for administrators, so that others are refused by 403 and not by 401.
    Raises `ServerUnavailableError`.
    """
    state = client.get(f"{client.site.url}/a/frontend/state", bearer=access_token)
    raise_if_failing(client.site, state)
    if state.status != 200:
        return None
    user = _STATE_USER.search(state.body.decode("utf-8", "replace"))
    if user is not None:
        return html.unescape(user[1])
    config = client.get(f"{client.site.url}/a/config/ctl", bearer=access_token)
    raise_if_failing(client.site, config)
    return None if config.status == 401 else ""


def _post(
    client: SiteClient,
    url: str,
    form: dict[str, str | Secret],
    registration: ClientRegistration,
    metadata: ServerMetadata,
) -> Answer:
    authentication = authenticate_client(registration, metadata)
    answer = client.post_form(url, {**form, **authentication.form}, authentication.header)
    if 300 <= answer.status < 400:
        # RFC 9700 §4.12: a redirected token request would carry code, verifier or refresh token along.
        raise UntrustedServerError(
            f"{client.site.url} answers a token request with a redirect, which is never followed",
            hint="ask the server's administrator; the external URL of the server may be set wrong",
            code="redirected",
        )
    raise_if_failing(client.site, answer)
    return answer


def _token_answer(site: Site, answer: Answer, form: Mapping[str, str | Secret]) -> dict[str, Any]:
    document = answer.json_object()
    if document is None or (not _is_success(answer) and not isinstance(document.get("error"), str)):
        # Not the token endpoint speaking: a proxy, a portal, or a server that is still starting (404).
        raise ServerUnavailableError(
            f"{site.url} is not ready: it answers {answer.status} in another form than a token endpoint",
            hint=WAIT,
            code=f"status_{answer.status}",
            answer_lost=_is_success(answer),
        )
    if document.get("error") in ("server_error", "temporarily_unavailable"):
        raise ServerUnavailableError(
            f"{site.url} is failing: {_words(document, form)}", hint=WAIT, code="server_error"
        )
    return document


def _is_success(answer: Answer) -> bool:
    """Whether the request was carried out: by 200 (RFC 6749 §5.1), or by what else is a success in HTTP."""
    return 200 <= answer.status < 300


def _words(document: Mapping[str, Any], form: Mapping[str, str | Secret]) -> str:
    """Return the server's words without any secret of ours that it may have repeated in them."""
    words = server_words(document)
    for value in form.values():
        if not isinstance(value, str):
            words = words.replace(value.reveal(), "***")
    return words
