"""The endpoints that only tell: discovery, keys and userinfo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from .answers import REQUEST_UNAUTHORIZED, build_error_body

if TYPE_CHECKING:
    from .answers import ErrorAnswer
    from .behaviour import Behaviour
    from .provider import Provider

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class OidcEndpoints:
    """Discovery (OpenID Connect Discovery §4), JWK Set and userinfo (OpenID Connect Core §5.3)."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these endpoints."""
        return [
            web.get("/oidc/.well-known/openid-configuration", self.discovery),
            web.get("/oidc/.well-known/jwks.json", self.jwks),
            web.get("/oidc/oauth2/userinfo", self.userinfo),
            web.get("/oidc/userinfo", self.userinfo),
        ]

    async def discovery(self, _request: web.Request) -> web.Response:
        """Answer with the discovery document."""
        provider = self._provider
        return web.json_response(build_discovery_document(provider.site, provider.issuer, provider.behaviour))

    async def jwks(self, _request: web.Request) -> web.Response:
        """Answer with the public keys."""
        return web.json_response(self._provider.keys.build_jwks(decoys=self._provider.behaviour.jwks_decoys))

    async def userinfo(self, request: web.Request) -> web.Response:
        """Answer with the claims of the access token's user; personal access tokens are not Hydra's."""
        provider = self._provider
        if request.path != provider.behaviour.userinfo_path:
            raise web.HTTPNotFound
        token = provider.grants.find_live_access_token(read_bearer(request))
        if token is None:
            answer = error_response(REQUEST_UNAUTHORIZED, provider.behaviour)
            answer.headers["WWW-Authenticate"] = f'Bearer error="{REQUEST_UNAUTHORIZED.error}"'
            return answer
        user = token.session.user
        return web.json_response(
            {
                "sub": user.uuid,
                "name": user.name,
                "email": user.email,
                "authSource": "pydio",
                "sid": token.session.id,
                "aud": [token.session.client_id],
                "iss": provider.issuer,
            },
            headers=_NO_STORE,
        )


def build_discovery_document(site: str, issuer: str, behaviour: Behaviour) -> dict[str, object]:
    """Return the discovery document of a release (OpenID Connect Discovery §3)."""
    document: dict[str, object] = {
        "issuer": issuer,
        "authorization_endpoint": f"{site}/oidc/oauth2/auth",
        "token_endpoint": f"{site}/oidc/oauth2/token",
        "jwks_uri": f"{site}/oidc/.well-known/jwks.json",
        "revocation_endpoint": f"{site}/oidc/oauth2/revoke",
        "userinfo_endpoint": site + behaviour.userinfo_path,
        "subject_types_supported": ["public"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "scopes_supported": ["openid", "offline", "offline_access", "email", "profile", "pydio"],
        "claims_supported": ["sub", "name", "email", "authSource"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "none"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
    if behaviour.code_challenge_methods_supported is not None:
        document["code_challenge_methods_supported"] = list(behaviour.code_challenge_methods_supported)
    if behaviour.iss != "absent":
        document["authorization_response_iss_parameter_supported"] = True
    document |= behaviour.discovery
    return {name: value for name, value in document.items() if value is not None}


def read_bearer(request: web.Request) -> str:
    """Return the bearer token of a request (RFC 6750 §2.1), or nothing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def error_response(answer: ErrorAnswer, behaviour: Behaviour) -> web.Response:
    """Return an error in this release's format."""
    return web.json_response(build_error_body(answer, behaviour), status=answer.status, headers=_NO_STORE)
