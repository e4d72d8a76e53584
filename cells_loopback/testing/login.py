"""Everything a browser sees: the authorization endpoint, the login and consent pages, the redirect."""

from __future__ import annotations

import hmac
import secrets
import urllib.parse
from typing import TYPE_CHECKING

from aiohttp import web

from . import pages
from .answers import (
    ACCESS_DENIED,
    INSUFFICIENT_ENTROPY,
    INVALID_REQUEST,
    INVALID_SCOPE,
    INVALID_STATE,
    UNSUPPORTED_RESPONSE_TYPE,
    Refused,
    build_error_redirect,
)
from .grants import AuthorizationRequest
from .pkce import keep_pkce_data, validate_challenge
from .traffic import parse_form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .accounts import Client, User
    from .grants import Code
    from .provider import Provider

_MIN_ENTROPY = 8
_CONTROL_CHARACTERS = dict.fromkeys((*range(32), 127))


class LoginEndpoints:
    """Authorization (RFC 6749 §4.1.1), as a browser goes through it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these endpoints."""
        return [
            web.get("/oidc/oauth2/auth", self.authorize),
            web.get("/login", self.show_login),
            web.post("/login", self.log_in),
            web.post("/consent", self.decide),
            web.get("/oauth2/oob", self.out_of_band),
            web.get("/", self.home),
        ]

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        """Judge an authorization request, and go on to the login page or straight back."""
        query = dict(request.query)
        try:
            client = self._find_client(query)
        except Refused as refused:
            # RFC 6749 §4.1.2.1: without a valid redirect URI the server "MUST NOT automatically redirect".
            return _show(pages.render_error(refused.answer), status=refused.answer.status)
        try:
            self._validate(query, client)
        except Refused as refused:
            location = build_error_redirect(query["redirect_uri"], refused.answer, query.get("state", ""))
            return self._redirect(location)
        return self._begin(request, query)

    async def show_login(self, request: web.Request) -> web.Response:
        """Show the login form for a request that has not expired."""
        pending = self._find_pending(request.query.get("login_challenge", ""))
        return _show(pages.render_login(pending.challenge, self._client_name(pending)))

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """Judge a submitted login form; a failed login stays on the page."""
        form = parse_form(await request.text())
        pending = self._find_pending(form.get("login_challenge", ""))
        user = self._find_user(form.get("username", ""), form.get("password", ""))
        if user is None:
            page = pages.render_login(
                pending.challenge, self._client_name(pending), form.get("username", ""), failed=True
            )
            return _show(page, status=403)
        answer = self._go_on(pending, user)
        answer.set_cookie(
            self._cookie_name(),
            self._provider.grants.start_web_session(user),
            httponly=True,
            samesite="Lax",
            secure=self._provider.site.startswith("https:"),
        )
        return answer

    async def decide(self, request: web.Request) -> web.StreamResponse:
        """Act on the consent page: a code, or ``access_denied``."""
        form = parse_form(await request.text())
        pending = self._find_pending(form.get("login_challenge", ""))
        user = self._find_person(request)
        if user is None:
            return _show(pages.render_login(pending.challenge, self._client_name(pending)))
        if form.get("consent") == "allow":
            return self._redirect_with_code(pending, user)
        return self._redirect(build_error_redirect(pending.redirect_uri, ACCESS_DENIED, pending.state))

    async def out_of_band(self, request: web.Request) -> web.Response:
        """Show the code, to be copied by the person."""
        return _show(pages.render_oob(request.query.get("code", ""), request.query.get("error", "")))

    async def home(self, _request: web.Request) -> web.Response:
        """Say what this server is."""
        return _show(pages.render_home(self._provider.site))

    def _find_client(self, query: Mapping[str, str]) -> Client:
        client = self._provider.find_client(query.get("client_id", ""))
        if client.allows_redirect_uri(query.get("redirect_uri", ""), self._provider.site):
            return client
        hint = (
            "The 'redirect_uri' parameter does not match any of the OAuth 2.0 Client's pre-registered"
            " redirect urls."
        )
        raise Refused(INVALID_REQUEST.with_hint(hint))

    def _validate(self, query: Mapping[str, str], client: Client) -> None:
        behaviour = self._provider.behaviour
        if not client.allows_scope(query.get("scope", "")):
            raise Refused(INVALID_SCOPE)
        if query.get("response_type") != "code":
            raise Refused(UNSUPPORTED_RESPONSE_TYPE)
        if len(query.get("state", "")) < _MIN_ENTROPY:
            raise Refused(INVALID_STATE)
        if 0 < len(query.get("nonce", "")) < _MIN_ENTROPY:
            raise Refused(INSUFFICIENT_ENTROPY)
        validate_challenge(query.get("code_challenge", ""), query.get("code_challenge_method", ""), behaviour)
        if behaviour.authorization_error:
            raise Refused(behaviour.authorization_error)

    def _begin(self, request: web.Request, query: Mapping[str, str]) -> web.StreamResponse:
        provider = self._provider
        pending = AuthorizationRequest(
            challenge=secrets.token_urlsafe(24),
            client_id=query["client_id"],
            redirect_uri=query["redirect_uri"],
            scope=query.get("scope", ""),
            state=query["state"],
            nonce=query.get("nonce", ""),
            code_challenge=query.get("code_challenge", ""),
            code_challenge_method=query.get("code_challenge_method", ""),
            expires_at=provider.clock.now() + provider.behaviour.login_request_lifetime,
        )
        provider.grants.add_request(pending)
        if user := self._find_person(request):
            return self._go_on(pending, user)
        challenge = urllib.parse.urlencode({"login_challenge": pending.challenge})
        return _redirect_by_location(f"{provider.site}/login?{challenge}")

    def _go_on(self, pending: AuthorizationRequest, user: User) -> web.StreamResponse:
        if self._provider.behaviour.consent:
            return _show(pages.render_consent(pending, self._client_name(pending), user))
        return self._redirect_with_code(pending, user)

    def _redirect_with_code(self, pending: AuthorizationRequest, user: User) -> web.StreamResponse:
        behaviour = self._provider.behaviour
        pkce = keep_pkce_data(pending.code_challenge, pending.code_challenge_method, behaviour)
        code = self._provider.grants.issue_code(pending, user, pkce)
        return self._redirect(self._build_redirect(pending, code))

    def _build_redirect(self, pending: AuthorizationRequest, code: Code) -> str:
        behaviour = self._provider.behaviour
        # Cells builds this as text: the state is not encoded, and a query of the redirect URI not heeded.
        location = f"{pending.redirect_uri}?code={code.value}&state={pending.state}"
        if behaviour.scope_in_redirect:
            location += "&scope=" + urllib.parse.quote_plus(code.session.scope)
        if behaviour.iss != "absent":
            issuer = "https://elsewhere.example/oidc/" if behaviour.iss == "wrong" else self._provider.issuer
            location += "&iss=" + urllib.parse.quote(issuer, safe="")
        return location

    def _redirect(self, location: str) -> web.StreamResponse:
        if self._provider.behaviour.redirect_by == "script":
            return _show(pages.render_redirect(location))
        return _redirect_by_location(location)

    def _find_pending(self, challenge: str) -> AuthorizationRequest:
        if pending := self._provider.grants.find_request(challenge):
            return pending
        raise web.HTTPBadRequest(text=pages.render_expired(), content_type="text/html")

    def _find_user(self, name: str, password: str) -> User | None:
        user = self._provider.users.get(name)
        if user and hmac.compare_digest(user.password.encode(), password.encode()):
            return user
        return None

    def _find_person(self, request: web.Request) -> User | None:
        return self._provider.grants.find_web_session(request.cookies.get(self._cookie_name(), ""))

    def _cookie_name(self) -> str:
        # Cookies do not know ports (RFC 6265 §8.5): two servers on localhost would log each other out.
        port = urllib.parse.urlsplit(self._provider.site).port
        return f"cells-web-session-{port}"

    def _client_name(self, pending: AuthorizationRequest) -> str:
        client = self._provider.clients[pending.client_id]
        return client.name or client.client_id


def _show(page: str, *, status: int = 200) -> web.Response:
    return web.Response(text=page, status=status, content_type="text/html", headers=pages.HEADERS)


def _redirect_by_location(location: str) -> web.Response:
    # The text goes out as it is, but for what would break the header.
    headers = {"Location": location.translate(_CONTROL_CHARACTERS), "Cache-Control": "no-store"}
    return web.Response(status=302, headers=headers)
