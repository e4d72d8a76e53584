"""The token and revocation endpoints, with fosite's order of checks and its words."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import urllib.parse
import uuid
from typing import TYPE_CHECKING

from aiohttp import web

from .answers import (
    INVALID_CLIENT,
    INVALID_GRANT,
    INVALID_REQUEST,
    SCOPE_NOT_GRANTED,
    TOKEN_INACTIVE,
    UNAUTHORIZED_CLIENT,
    UNSUPPORTED_GRANT_TYPE,
    Refused,
)
from .id_token import build_id_token
from .oidc import error_response
from .pkce import validate_verifier
from .traffic import parse_form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .accounts import Client
    from .grants import Session
    from .provider import Provider

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class TokenEndpoints:
    """Exchange (RFC 6749 §4.1.3), refresh (§6) and revocation (RFC 7009)."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._grants = provider.grants

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these endpoints."""
        return [
            web.post("/oidc/oauth2/token", self.token),
            web.post("/oidc/oauth2/revoke", self.revoke),
        ]

    async def token(self, request: web.Request) -> web.Response:
        """Answer a token request."""
        form = parse_form(await request.text())
        if verifier := form.get("code_verifier"):
            self._grants.remember_secret(verifier)
        try:
            return web.json_response(self._answer_token_request(request, form), headers=_NO_STORE)
        except Refused as refused:
            return error_response(refused.answer, self._provider.behaviour)

    async def revoke(self, request: web.Request) -> web.Response:
        """Revoke the whole session of a token; an unknown token is no error (RFC 7009 §2.2)."""
        form = parse_form(await request.text())
        try:
            self._revoke(self._authenticate(request, form), form.get("token", ""))
        except Refused as refused:
            return error_response(refused.answer, self._provider.behaviour)
        return web.Response(headers=_NO_STORE)

    def _authenticate(self, request: web.Request, form: Mapping[str, str]) -> Client:
        return authenticate_client(self._provider, form, request.headers.get("Authorization", ""))

    def _revoke(self, client: Client, token: str) -> None:
        session = self._grants.find_session_of(token)
        if session is None:
            return
        if session.client_id != client.client_id:
            raise Refused(UNAUTHORIZED_CLIENT)
        session.revoked = True

    def _answer_token_request(self, request: web.Request, form: Mapping[str, str]) -> dict[str, object]:
        client = self._authenticate(request, form)
        grant_type = form.get("grant_type", "")
        if grant_type == "authorization_code":
            return self._exchange(client, form)
        if grant_type == "refresh_token":
            return self._refresh(client, form)
        raise Refused(UNSUPPORTED_GRANT_TYPE)

    def _exchange(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        code = self._grants.find_code(form.get("code", ""))
        if code is None:
            raise Refused(INVALID_GRANT)
        if code.used:
            # RFC 6749 §4.1.2: "SHOULD revoke (when possible) all tokens previously issued based on
            # that authorization code".
            code.session.revoked = True
            raise Refused(INVALID_GRANT.with_hint("The authorization code has already been used."))
        if code.session.client_id != client.client_id:
            hint = (
                "The OAuth 2.0 Client ID from this request does not match the one from the authorize request."
            )
            raise Refused(INVALID_GRANT.with_hint(hint))
        if code.redirect_uri != form.get("redirect_uri", ""):
            hint = 'The "redirect_uri" from this request does not match the one from the authorize request.'
            raise Refused(INVALID_GRANT.with_hint(hint))
        if code.expires_at <= self._provider.clock.now():
            raise Refused(INVALID_GRANT.with_hint("The authorization code expired."))
        # fosite judges PKCE before it marks the code as used, and forgets the PKCE data before it judges
        # them: after a refusal the code is still good for one exchange without a verifier.
        pkce, code.pkce = code.pkce, None
        required = self._provider.behaviour.pkce_required
        validate_verifier(pkce, form.get("code_verifier", ""), required=required)
        code.used = True
        return self._build_answer(code.session, with_refresh_token=True)

    def _refresh(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        behaviour = self._provider.behaviour
        token = self._grants.find_refresh_token(form.get("refresh_token", ""))
        if token is None:
            raise Refused(INVALID_GRANT.with_hint("The refresh token is malformed or not valid."))
        session = token.session
        if token.used or session.revoked:
            session.revoked = True
            already_used = INVALID_GRANT.with_hint("The refresh token was already used.")
            raise Refused(already_used if behaviour.refresh_reuse == "already-used" else TOKEN_INACTIVE)
        if token.expires_at <= self._provider.clock.now():
            raise Refused(INVALID_GRANT.with_hint("The refresh token expired."))
        if not session.has_scope("offline", "offline_access"):
            raise Refused(SCOPE_NOT_GRANTED)
        if session.client_id != client.client_id:
            hint = (
                "The OAuth 2.0 Client ID from this request does not match the ID during the initial token"
                " issuance."
            )
            raise Refused(INVALID_GRANT.with_hint(hint))
        if behaviour.granted_scope is not None:
            session.scope = behaviour.granted_scope
        if behaviour.refresh_revokes_access_tokens:
            self._grants.revoke_access_tokens_of(session)
        rotate = "refresh_token" not in behaviour.refresh_omits
        token.used = rotate
        answer = self._build_answer(session, with_refresh_token=rotate)
        return {name: value for name, value in answer.items() if name not in behaviour.refresh_omits}

    def _build_answer(self, session: Session, *, with_refresh_token: bool) -> dict[str, object]:
        provider, behaviour = self._provider, self._provider.behaviour
        jwt = self._build_jwt(session) if behaviour.tokens == "jwt" else ""
        access_token = self._grants.issue_access_token(session, jwt)
        answer: dict[str, object] = {"access_token": access_token.value}
        lifetime = behaviour.access_token_lifetime
        if behaviour.expires_in != "absent":
            answer["expires_in"] = write_lifetime(lifetime, behaviour.expires_in)
        if session.has_scope("openid"):
            id_token = build_id_token(
                access_token, provider.issuer, provider.clock.now(), provider.keys, behaviour
            )
            if id_token:
                answer["id_token"] = self._grants.remember_secret(id_token)
        if with_refresh_token and session.has_scope("offline", "offline_access"):
            answer["refresh_token"] = self._grants.issue_refresh_token(session).value
        return answer | {
            "scope": session.scope,
            "token_type": behaviour.token_type,
            **behaviour.extra_members,
        }

    def _build_jwt(self, session: Session) -> str:
        provider, now = self._provider, int(self._provider.clock.now())
        claims = {
            "iss": provider.issuer,
            "sub": session.user.uuid,
            "aud": [],
            "client_id": session.client_id,
            "scp": session.scope.split(),
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": int(now + provider.behaviour.access_token_lifetime),
            "ext": {"name": session.user.name},
        }
        return provider.keys.sign(claims)


def write_lifetime(lifetime: float, form: str) -> int | float | str:
    """Return ``expires_in``: the server counts down, so 600 s are written as 599."""
    seconds = max(math.ceil(lifetime) - 1, 0)
    if form == "string":
        return str(seconds)
    return seconds + 0.5 if form == "float" else seconds


def authenticate_client(provider: Provider, form: Mapping[str, str], authorization: str) -> Client:
    """Return the client that sent a request, or refuse it (RFC 6749 §2.3.1)."""
    basic = _parse_basic(authorization)
    if basic is None:
        client = provider.find_client(form.get("client_id", ""))
        secret, method = (
            form.get("client_secret", ""),
            "client_secret_post" if "client_secret" in form else "none",
        )
    else:
        client = provider.find_client(basic[0])
        secret, method = basic[1], "client_secret_basic"
    if client.public:
        if method == "none":
            return client
        if method == "client_secret_basic" and provider.behaviour.public_client_basic == "dropped":
            return provider.find_client(form.get("client_id", ""))
    if method != client.token_endpoint_auth_method:
        registered = client.token_endpoint_auth_method
        raise Refused(
            INVALID_CLIENT.with_hint(
                f"The OAuth 2.0 Client supports client authentication method '{registered}', but method"
                f" '{method}' was requested. You must configure the OAuth 2.0 client's"
                f" 'token_endpoint_auth_method' value to accept '{method}'."
            )
        )
    if not hmac.compare_digest(secret.encode(), (client.client_secret or "").encode()):
        raise Refused(
            INVALID_CLIENT.with_hint("The provided client secret did not match the registered client secret.")
        )
    return client


def _parse_basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        hint = "The client credentials in the HTTP authorization header could not be parsed."
        raise Refused(INVALID_REQUEST.with_hint(hint)) from None
    # "The client identifier is encoded using the application/x-www-form-urlencoded encoding algorithm"
    return urllib.parse.unquote_plus(client_id), urllib.parse.unquote_plus(secret)
