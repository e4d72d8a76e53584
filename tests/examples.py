"""One of each value of a session at one site, for tests to change with ``dataclasses.replace``."""

from __future__ import annotations

from cells_loopback.protocol.authorization import AuthorizationRequest, AuthorizationResponse
from cells_loopback.protocol.client import CELLS_CLIENT
from cells_loopback.protocol.site import ServerMetadata, parse_site
from cells_loopback.protocol.tokens import TokenSet
from cells_loopback.secret import Secret
from cells_loopback.store.profiles import Profile, Renewals, Settings, User

NOW = 1_800_000_000.0
UPTIME = 50_000.0

SITE = parse_site("https://files.example.com")

METADATA = ServerMetadata(
    issuer="https://files.example.com/oidc/",
    authorization_endpoint="https://files.example.com/oidc/oauth2/auth",
    token_endpoint="https://files.example.com/oidc/oauth2/token",
    jwks_uri="https://files.example.com/oidc/.well-known/jwks.json",
    revocation_endpoint="https://files.example.com/oidc/oauth2/revoke",
    userinfo_endpoint="https://files.example.com/oidc/oauth2/userinfo",
    token_endpoint_auth_methods_supported=("client_secret_post", "client_secret_basic", "none"),
    code_challenge_methods_supported=("plain", "S256"),
)

REQUEST = AuthorizationRequest(
    metadata=METADATA,
    client=CELLS_CLIENT,
    redirect_uri="http://localhost:3000/servers/callback",
    state=Secret("the-state-of-this-login-and-of-no-other-one"),
    nonce=Secret("the-nonce-of-this-login-and-of-no-other-one"),
    code_verifier=Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
)

RESPONSE = AuthorizationResponse(REQUEST, Secret("ory_ac_the-code"))

TOKENS = TokenSet(
    access_token=Secret("ory_at_the-access-token"),
    token_type="Bearer",
    scope="openid email profile pydio offline",
    lifetime=599.0,
    obtained_at=NOW,
    obtained_uptime=UPTIME,
    refresh_token=Secret("ory_rt_the-refresh-token"),
)

USER = User("4f6b0d4e-8a4c-4d8e-9a53-0b1f5d3c7a10", "alice", {"name": "alice", "email": "alice@example.com"})

PROFILE = Profile(
    name="files.example.com",
    site=SITE,
    client=CELLS_CLIENT,
    metadata=METADATA,
    user=USER,
    tokens=TOKENS,
    redirect_uri="http://localhost:3000/servers/callback",
    pkce_binding="bound",
    settings=Settings(),
    renewals=Renewals(logged_in_at=NOW, refresh_token_at=NOW),
)
