"""How a Cells server behaves, as one value: each field is something that releases or installs differ in.

The defaults are a recent release that binds PKCE and keeps the nonce. A field that names a defect or an
attack says so. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .answers import ErrorAnswer

Pkce = Literal["bound", "unbound", "unbound-old-wording", "foreign"]
Nonce = Literal["kept", "dropped", "wrong"]
Presence = Literal["absent", "right", "wrong"]
RedirectBy = Literal["location", "script"]
PublicClientBasic = Literal["dropped", "rejected"]
Tokens = Literal["two-part", "prefixed", "jwt"]
ExpiresIn = Literal["int", "string", "float", "absent"]
RefreshReuse = Literal["already-used", "token-inactive"]
ErrorFormat = Literal["hint-in-description", "error-hint"]
IdTokenFault = Literal[
    "missing", "iss", "aud", "exp", "iat", "sub", "at_hash", "signature", "alg-none", "alg-hs256", "kid"
]

_CHOICES = {
    "pkce": get_args(Pkce),
    "nonce": get_args(Nonce),
    "iss": get_args(Presence),
    "azp": get_args(Presence),
    "redirect_by": get_args(RedirectBy),
    "public_client_basic": get_args(PublicClientBasic),
    "tokens": get_args(Tokens),
    "expires_in": get_args(ExpiresIn),
    "refresh_reuse": get_args(RefreshReuse),
    "error_format": get_args(ErrorFormat),
    "id_token_fault": (None, *get_args(IdTokenFault)),
}


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What one release does; change a running server with ``dataclasses.replace``."""

    # Discovery
    issuer_slash: bool = True
    """Most releases write the issuer as ``SITE/oidc/``, some as ``SITE/oidc``."""
    issuer: str = ""
    """Another issuer than the server's own, an attack; empty means its own."""
    userinfo_path: str = "/oidc/oauth2/userinfo"
    """``/oidc/userinfo`` on plain Hydra; the other one is then not found."""
    code_challenge_methods_supported: tuple[str, ...] | None = ("plain", "S256")
    """None leaves the member out of the discovery document."""
    discovery: Mapping[str, object] = field(default_factory=dict)
    """Members to put into the discovery document; None takes one out."""
    jwks_decoys: bool = False
    """Whether the key set also holds keys that sign no ID token, one of them of an unknown type."""

    # The authorization request and its answer
    pkce: Pkce = "bound"
    """Whether the code stays tied to the client's challenge, see `cells_loopback.testing.pkce`."""
    pkce_required: bool = False
    """Whether an authorization request without a challenge is refused."""
    nonce: Nonce = "kept"
    """What becomes of the nonce on its way into the ID token; a wrong one is an attack."""
    consent: bool = False
    """Whether a page asks the person to allow the client, so that it can be refused."""
    iss: Presence = "absent"
    """The parameter of RFC 9207 in the redirect; a wrong one is an attack."""
    scope_in_redirect: bool = False
    """Whether the redirect also names the granted scope."""
    redirect_by: RedirectBy = "location"
    """A redirect of HTTP, or a page whose script goes there, as the Cells web page does."""
    authorization_error: ErrorAnswer | None = None
    """Answer every valid authorization request with this error."""

    # Client authentication
    public_client_basic: PublicClientBasic = "dropped"
    """Basic credentials of a public client: newer servers drop the header, older ones answer 401."""

    # Tokens
    tokens: Tokens = "prefixed"
    """Opaque tokens of two parts (older), with the prefix ``ory_at_`` or ``ory_rt_`` (newer), or JWT."""
    token_type: str = "bearer"  # noqa: S105  the word of RFC 6750
    """The value of ``token_type``, whose case differs between servers."""
    expires_in: ExpiresIn = "int"
    """How the lifetime is written; an integer is one less than the lifetime, as the server counts down."""
    granted_scope: str | None = None
    """The scope that is granted whatever was asked; None grants what was asked."""
    extra_members: Mapping[str, object] = field(default_factory=dict)
    """Members of the token answer that no standard names."""
    refresh_omits: tuple[str, ...] = ()
    """Members that the answer to a refresh leaves out; without ``refresh_token`` the old one stays valid."""
    refresh_reuse: RefreshReuse = "already-used"
    """How the use of an old refresh token is answered; it ends the session either way."""
    refresh_revokes_access_tokens: bool = False
    """Whether the session's older access tokens die when it is refreshed, as fosite's own storage has it."""

    # ID tokens
    id_token_fault: IdTokenFault | None = None
    """One single defect of the ID token, an attack."""
    id_token_claims: Mapping[str, object] = field(default_factory=dict)
    """Claims to put into the ID token; None takes one out."""
    azp: Presence = "absent"
    """The authorized party of the ID token (OpenID Connect Core §2); a wrong one is an attack."""

    # Errors
    error_format: ErrorFormat = "hint-in-description"
    """Where the hint stands: at the end of ``error_description`` (newer) or in ``error_hint`` (older)."""
    error_details: bool = False
    """Whether errors also carry ``error_debug`` and ``status_code``."""

    # Time
    access_token_lifetime: float = 600
    refresh_token_lifetime: float = 60 * 86400
    id_token_lifetime: float = 3600
    code_lifetime: float = 600
    login_request_lifetime: float = 1800
    web_session_lifetime: float = 86400
    clock_offset: float = 0
    """How far the server's idea of the time is ahead of this machine's; negative is behind."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {value!r}, which is none of {choices}")
