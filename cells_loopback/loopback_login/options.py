"""What a login is told, and how that meets what the profile remembers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cells_loopback.errors import LoginFailedError, NotLoggedInError, UsageError
from cells_loopback.http.trust import Trust
from cells_loopback.protocol.client import CELLS_CLIENT, CELLS_SYNC, parse_redirect_uri
from cells_loopback.protocol.site import parse_site
from cells_loopback.store.preferences import find_default_profile
from cells_loopback.store.profile_document import LOGIN_CHOICES
from cells_loopback.store.profiles import Settings, check_profile_name

if TYPE_CHECKING:
    from cells_loopback.protocol.client import ClientRegistration
    from cells_loopback.protocol.pkce import PKCEPolicy
    from cells_loopback.protocol.site import Site
    from cells_loopback.secret import Secret
    from cells_loopback.store.profiles import Profile, ProfileStore, ReloginPolicy, StoreKind

DEFAULT_TIMEOUT = 300.0
"""Seconds that a person has to finish a login."""

_SHIPPED = {client.client_id: client for client in (CELLS_CLIENT, CELLS_SYNC)}


@dataclass(frozen=True)
class LoginOptions:
    """The options of ``login``. None means: as the profile remembers, else the default."""

    site: str | None = None
    profile: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    redirect_uris: tuple[str, ...] = ()
    scope: str | None = None
    pkce: PKCEPolicy | None = None
    browser: str | None = None
    open_browser: bool = True
    paste: bool = False
    timeout: float = DEFAULT_TIMEOUT
    ca_bundle: str | None = None
    insecure: bool | None = None
    force: bool = False
    store: StoreKind | None = None
    relogin: ReloginPolicy | None = None
    app_name: str | None = None

    @property
    def names_client(self) -> bool:
        """Whether it is said which client to be: the profile's own again, or another."""
        return any((self.client_id, self.client_secret, self.redirect_uris, self.scope))


@dataclass(frozen=True)
class LoginPlan:
    """A login that is fully decided before anything is opened.

    ``scheme_is_open`` means that the site was typed without a scheme on a loopback host, where plain
    http is tried when https does not answer. ``known`` is the profile as stored.
    """

    name: str
    site: Site
    scheme_is_open: bool
    client: ClientRegistration
    settings: Settings
    known: Profile | None
    force: bool = False

    @property
    def trust(self) -> Trust:
        """Whom the login believes."""
        return Trust.of(self.settings)

    def on_site(self, site: Site) -> LoginPlan:
        """Return the same plan for the site in the scheme that answered."""
        return replace(self, site=site)


def plan_login(options: LoginOptions, store: ProfileStore) -> LoginPlan:
    """Decide site, profile, client and settings.

    Raises `UsageError` for a site, a name or an option that cannot be meant, `NotLoggedInError` when no
    site is given and no profile tells it, `LoginFailedError` when the profile belongs to another site,
    and `StoreError` when it cannot be read.
    """
    _check_values(options)
    typed = None if options.site is None else parse_site(options.site)
    name = options.profile
    if name is None:
        name = typed.authority if typed else _default_name(store)
    check_profile_name(name)
    known = store.read_for_login(name) if store.exists(name) else None
    scheme_is_open = typed is not None and typed.is_loopback and "://" not in (options.site or "")
    if typed is None:
        if known is None:
            raise NotLoggedInError(
                f"there is no profile {name!r} to log in again with",
                hint=f"name the site: cells-loopback login SITE --profile {name}",
            )
        typed = known.site
    elif known is not None and known.site != typed:
        if not (scheme_is_open and known.site.authority == typed.authority) and not (
            scheme_is_open and _same_but_scheme(known.site, typed)
        ):
            raise LoginFailedError(
                f"profile {name!r} belongs to {known.site.url}",
                hint=f"choose another name for {typed.url}: --profile NAME",
                code="profile_of_other_site",
            )
        typed = known.site
    return LoginPlan(
        name=name,
        site=typed,
        scheme_is_open=scheme_is_open and known is None,
        client=_choose_client(options, known),
        settings=_choose_settings(options, known),
        known=known,
        force=options.force,
    )


def _check_values(options: LoginOptions) -> None:
    # A program may pass anything, and a policy that nobody knows would be followed by nobody.
    for name, known in LOGIN_CHOICES.items():
        value = getattr(options, name)
        if value is not None and value not in known:
            raise UsageError(
                f"{name} cannot be {str(value)[:40]!r}", hint=f"it is one of: {', '.join(known)}"
            )
    redirect_uris: object = options.redirect_uris
    if isinstance(redirect_uris, str):  # a sequence too, of letters
        raise UsageError("redirect_uris is one address, not several", hint=f"give ({redirect_uris!r},)")
    if options.client_secret is not None and not _is_text(options.client_secret.reveal()):
        raise UsageError("the client secret is not text", hint="give it in UTF-8, as the server has it")
    if not options.timeout >= 0:
        raise UsageError(f"the timeout cannot be {options.timeout}", hint="give seconds, e.g. 300")


def _is_text(value: str) -> bool:
    """Whether it can be sent: bytes of the environment that are no text arrive as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _same_but_scheme(one: Site, other: Site) -> bool:
    return (one.host, one.port) == (other.host, other.port)


def _default_name(store: ProfileStore) -> str:
    try:
        return find_default_profile(store)
    except NotLoggedInError as error:
        raise UsageError(
            "no site is given, and no session tells it", hint="log in: cells-loopback login files.example.com"
        ) from error


def _choose_client(options: LoginOptions, known: Profile | None) -> ClientRegistration:
    if options.client_id is not None:
        check_client_id(options.client_id)
        client = _SHIPPED.get(options.client_id) or replace(CELLS_CLIENT, client_id=options.client_id)
        if known is not None and known.client.client_id == options.client_id:
            client = known.client
    else:
        # A session from a personal access token has no client to go on with.
        client = known.client if known is not None and known.client.client_id else CELLS_CLIENT
    if options.client_secret is not None:
        if options.client_id is None and client.client_id in _SHIPPED:
            raise UsageError(
                f"the client {client.client_id} has no secret", hint="name yours with it: --client-id ID"
            )
        client = replace(client, client_secret=options.client_secret)
    if options.redirect_uris:
        uris = tuple(parse_redirect_uri(uri) for uri in options.redirect_uris)
        client = replace(client, redirect_uris=uris)
    if options.scope is not None:
        client = replace(client, scope=check_scope(options.scope))
    return client


def _choose_insecure(options: LoginOptions, old: Settings) -> bool:
    if options.insecure is not None:
        return options.insecure
    return old.insecure and options.ca_bundle is None  # a bundle is the way out of --insecure


def check_client_id(client_id: str) -> None:
    """Raise `UsageError` for what cannot be a client's name (RFC 6749 Appendix A.1)."""
    if not client_id or not all(" " <= char <= "~" for char in client_id):
        raise UsageError(
            f"{client_id[:80]!r} cannot be the name of a client",
            hint="give it as registered on the server: --client-id ID",
        )


def check_scope(scope: str) -> str:
    """Return a scope with single spaces (RFC 6749 §3.3). Raises `UsageError` for forbidden characters."""
    words = scope.split()
    legal = all(char not in '"\\' and "!" <= char <= "~" for word in words for char in word)
    if not words or not legal:
        raise UsageError(
            f"{scope[:80]!r} is not a scope", hint="separate words by spaces: --scope 'openid offline'"
        )
    return " ".join(words)


def _choose_settings(options: LoginOptions, known: Profile | None) -> Settings:
    old = known.settings if known is not None else Settings()
    return Settings(
        pkce=options.pkce or old.pkce,
        relogin=options.relogin or old.relogin,
        store=options.store or old.store,
        insecure=_choose_insecure(options, old),
        ca_bundle=options.ca_bundle or old.ca_bundle,
        browser=options.browser or old.browser,
        app_name=options.app_name or old.app_name,
    )
