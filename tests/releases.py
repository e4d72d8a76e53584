"""Every known way in which Cells servers differ, one record each, for flows to run over.

A record is a behaviour that occurs in the field and that a client must cope with, never an attack. A new
oddity is a new row here first, then code. `EVERY_RELEASE` parametrizes a test over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cells_loopback.testing import Behaviour


@dataclass(frozen=True)
class Release:
    """A server behaviour by its name."""

    name: str
    behaviour: Behaviour

    @property
    def binds_pkce(self) -> bool:
        return self.behaviour.pkce == "bound"


RELEASES = (
    Release("as-documented", Behaviour()),
    Release("issuer-without-slash", Behaviour(issuer_slash=False)),
    Release("userinfo-of-plain-hydra", Behaviour(userinfo_path="/oidc/userinfo")),
    Release("pkce-not-advertised", Behaviour(code_challenge_methods_supported=None)),
    Release("pkce-required", Behaviour(pkce_required=True)),
    Release("pkce-and-nonce-dropped", Behaviour(pkce="unbound", nonce="dropped")),
    Release(
        "pkce-dropped-hint-apart",
        Behaviour(pkce="unbound", nonce="dropped", error_format="error-hint", error_details=True),
    ),
    Release("pkce-dropped-old-wording", Behaviour(pkce="unbound-old-wording", nonce="dropped")),
    Release(
        "pkce-dropped-old-wording-hint-apart",
        Behaviour(pkce="unbound-old-wording", nonce="dropped", error_format="error-hint"),
    ),
    Release("pkce-replaced", Behaviour(pkce="foreign", nonce="dropped")),
    Release(
        "pkce-replaced-hint-apart", Behaviour(pkce="foreign", nonce="dropped", error_format="error-hint")
    ),
    Release("nonce-dropped", Behaviour(nonce="dropped")),
    Release("iss-in-the-redirect", Behaviour(iss="right")),
    Release("iss-in-the-redirect-without-slash", Behaviour(iss="right", issuer_slash=False)),
    Release("scope-in-the-redirect", Behaviour(scope_in_redirect=True)),
    Release("redirect-by-script", Behaviour(redirect_by="script")),
    Release("consent-page", Behaviour(consent=True)),
    Release("basic-of-a-public-client-rejected", Behaviour(public_client_basic="rejected")),
    Release("tokens-of-two-parts", Behaviour(tokens="two-part")),
    Release("access-token-is-a-jwt", Behaviour(tokens="jwt")),
    Release("tokens-live-an-hour", Behaviour(access_token_lifetime=3600)),
    Release("expires-in-is-a-string", Behaviour(expires_in="string")),
    Release("expires-in-is-a-float", Behaviour(expires_in="float")),
    Release("no-expires-in", Behaviour(expires_in="absent")),
    Release("token-type-in-upper-case", Behaviour(token_type="BEARER")),
    Release("more-members", Behaviour(extra_members={"user": {"id": 7}, "audience": ["io"], "x": None})),
    Release("less-scope-granted", Behaviour(granted_scope="openid profile offline")),
    Release("refresh-keeps-the-refresh-token", Behaviour(refresh_omits=("refresh_token",))),
    Release("refresh-without-id-token", Behaviour(refresh_omits=("id_token", "scope"))),
    Release("refresh-ends-older-access-tokens", Behaviour(refresh_revokes_access_tokens=True)),
    Release(
        "reuse-in-old-words",
        Behaviour(refresh_reuse="token-inactive", error_format="error-hint", error_details=True),
    ),
    Release("refresh-token-lives-30-days", Behaviour(refresh_token_lifetime=30 * 86400)),
    Release("azp-in-the-id-token", Behaviour(azp="right")),
    Release("more-keys-than-needed", Behaviour(jwks_decoys=True)),
    Release("clock-two-hours-ahead", Behaviour(clock_offset=7200)),
    Release("clock-two-hours-behind", Behaviour(clock_offset=-7200)),
)

EVERY_RELEASE = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
