"""What one profile's file holds: the records of a session, and the JSON document they become.

Values only; the disk is `profiles`' part. The format is documented in the README for other programs.
Members that this version does not know are kept as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from cells_loopback.protocol.client import ClientRegistration, parse_redirect_uri
from cells_loopback.protocol.pkce import PKCEBinding, PKCEPolicy
from cells_loopback.protocol.site import parse_metadata, parse_site
from cells_loopback.protocol.tokens import TokenSet
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from cells_loopback.protocol.site import ServerMetadata, Site

FORMAT_VERSION = 1

StoreKind = Literal["file", "keyring"]
ReloginPolicy = Literal["notify", "browser", "headless", "never"]

LOGIN_CHOICES: dict[str, tuple[str, ...]] = {
    "pkce": get_args(PKCEPolicy),
    "relogin": get_args(ReloginPolicy),
    "store": get_args(StoreKind),
}
"""The options of ``login`` that have a few values only."""


@dataclass(frozen=True)
class User:
    """Who logged in: ``sub`` is the user's UUID, ``name`` the login name, ``claims`` all the server said."""

    sub: str = ""
    name: str = ""
    claims: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What the login was told, so that the next login and every renewal do the same."""

    pkce: PKCEPolicy = "auto"
    relogin: ReloginPolicy = "notify"
    store: StoreKind = "file"
    insecure: bool = False
    ca_bundle: str | None = None
    browser: str | None = None
    app_name: str | None = None


@dataclass(frozen=True)
class Renewals:
    """What is known about the session's renewals; instants in Unix seconds by our wall clock.

    ``refresh_token_at`` is when the present refresh token was received and ``rejected_at`` when the
    server refused it, None while it has not. ``longest_rest`` is the longest time, in seconds, that a
    refresh token of this session lay unused and was still accepted; ``refused_rest`` the shortest that
    one lay unused and was refused: between the two lies the server's refresh token lifetime.
    """

    logged_in_at: float = 0.0
    refresh_token_at: float = 0.0
    rejected_at: float | None = None
    longest_rest: float = 0.0
    refused_rest: float | None = None


@dataclass(frozen=True)
class Profile:
    """One stored session: the site, our client there, who logged in, and the tokens.

    ``redirect_uri`` is the loopback one that the last login used, tried first by the next; None after
    one that used none. ``pkce_binding`` says whether this site ever tied a code of this person to our
    verifier.
    """

    name: str
    site: Site
    client: ClientRegistration
    metadata: ServerMetadata
    user: User
    tokens: TokenSet
    redirect_uri: str | None = None
    pkce_binding: PKCEBinding | None = None
    settings: Settings = field(default_factory=Settings)
    renewals: Renewals = field(default_factory=Renewals)
    unknown: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def needs_login(self) -> bool:
        """Whether the server has refused to renew this session."""
        return self.renewals.rejected_at is not None


def encode_profile(profile: Profile) -> dict[str, Any]:
    """Return the JSON document of a profile, secrets included, unknown members kept."""
    tokens, client = profile.tokens, profile.client
    known: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "site": profile.site.url,
        "user": {"sub": profile.user.sub, "name": profile.user.name, "claims": profile.user.claims},
        "client": {
            "client_id": client.client_id,
            "client_secret": _reveal(client.client_secret),
            "scope": client.scope,
            "redirect_uris": [str(redirect_uri) for redirect_uri in client.redirect_uris],
            "redirect_uri": profile.redirect_uri,
        },
        "metadata": dict(vars(profile.metadata)),
        "token": {
            "access_token": tokens.access_token.reveal(),
            "token_type": tokens.token_type,
            "expires_at": tokens.expires_at,
            "refresh_token": _reveal(tokens.refresh_token),
            "scope": tokens.scope,
            "lifetime": tokens.lifetime,
            "obtained_at": tokens.obtained_at,
            "obtained_uptime": tokens.obtained_uptime,
            "clock_offset": tokens.clock_offset,
            "renew_early": tokens.renew_early,
        },
        "pkce_binding": profile.pkce_binding,
        "settings": dict(vars(profile.settings)),
        "renewals": dict(vars(profile.renewals)),
    }
    return _with_unknown(known, profile.unknown)


def _with_unknown(known: dict[str, Any], unknown: dict[str, Any]) -> dict[str, Any]:
    document = dict(known)
    for key, value in unknown.items():
        inner = document.get(key)
        document[key] = {**value, **inner} if isinstance(inner, dict) and isinstance(value, dict) else value
    return document


def _reveal(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def decode_profile(name: str, document: dict[str, Any]) -> Profile:
    """Read a profile from its document, of which nothing is believed: a person may have edited it.

    Raises ``KeyError``, ``TypeError``, ``ValueError`` or `CellsLoopbackError` when it is damaged.
    """
    client, token, site = document["client"], document["token"], parse_site(document["site"])
    profile = Profile(
        name=name,
        site=site,
        client=ClientRegistration(
            client_id=_string(client["client_id"], may_be_empty=True),
            redirect_uris=tuple(parse_redirect_uri(text) for text in client["redirect_uris"]),
            client_secret=_secret(client.get("client_secret")),
            scope=_string(client["scope"]),
        ),
        metadata=parse_metadata(document["metadata"], site),
        user=_decode_user(document["user"]),
        tokens=TokenSet(
            access_token=_token(token["access_token"]),
            token_type=_string(token["token_type"]),
            scope=_string(token["scope"], may_be_empty=True),
            lifetime=_optional_number(token["lifetime"]),
            obtained_at=_number(token["obtained_at"]),
            obtained_uptime=_number(token["obtained_uptime"]),
            clock_offset=_number(token["clock_offset"]),
            refresh_token=None if token.get("refresh_token") is None else _token(token["refresh_token"]),
            renew_early=_number(token["renew_early"]),
        ),
        redirect_uri=_optional_string(client.get("redirect_uri")),
        pkce_binding=_optional_choice(document.get("pkce_binding"), get_args(PKCEBinding)),
        settings=_decode_settings(document["settings"]),
        renewals=_decode_renewals(document["renewals"]),
    )
    return replace(profile, unknown=_unknown_members(document, encode_profile(profile)))


def _unknown_members(document: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    unknown: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            unknown[key] = value
        elif isinstance(value, dict) and isinstance(known[key], dict):
            inner = {name: member for name, member in value.items() if name not in known[key]}
            if inner:
                unknown[key] = inner
    return unknown


def _decode_user(members: dict[str, Any]) -> User:
    claims = members.get("claims", {})
    if not isinstance(claims, dict):
        raise TypeError("the claims are not an object")
    sub, name = (_string(members.get(key, ""), may_be_empty=True) for key in ("sub", "name"))
    return User(sub=sub, name=name, claims=claims)


def _decode_settings(members: dict[str, Any]) -> Settings:
    values = _members_of(Settings(), members)
    if not isinstance(values["insecure"], bool):
        raise TypeError("insecure is neither true nor false")
    for name, choices in LOGIN_CHOICES.items():
        _choice(values[name], choices)
    for name in ("ca_bundle", "browser", "app_name"):
        _optional_string(values[name])
    return Settings(**values)


def _decode_renewals(members: dict[str, Any]) -> Renewals:
    # A renewal computes with these between the server's answer and the disk: they must be numbers.
    defaults = Renewals()
    values: dict[str, Any] = {
        name: (_optional_number if getattr(defaults, name) is None else _number)(value)
        for name, value in _members_of(defaults, members).items()
    }
    return Renewals(**values)


def _members_of(defaults: Settings | Renewals, members: dict[str, Any]) -> dict[str, Any]:
    return {item.name: members.get(item.name, getattr(defaults, item.name)) for item in fields(defaults)}


def _string(value: object, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or may_be_empty):
        raise TypeError("not a string")
    return value


def _optional_string(value: object) -> str | None:
    return None if value is None else _string(value)


def _choice(value: object, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise ValueError("a value that this version does not know")
    return value


def _optional_choice(value: object, choices: tuple[str, ...]) -> Any:
    return None if value is None else _choice(value, choices)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError("not a number")
    return float(value)


def _optional_number(value: object) -> float | None:
    return None if value is None else _number(value)


def _token(value: object) -> Secret:
    # As `tokens` takes them from the server: anything else could break the header or the line it goes into.
    text = _string(value)
    if min(text) < "!" or max(text) > "~":
        raise ValueError("not a token")
    return Secret(text)


def _secret(value: object) -> Secret | None:
    return None if value is None else Secret(_string(value))
