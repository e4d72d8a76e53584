"""From a validated authorization response to a saved profile: exchange, ID Token, owner, disk.

Blocking code; the login runs it in threads. The order is fixed: nothing is stored before the ID Token
and the user are known to be right, and what is not stored is revoked.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cells_loopback.clock import wall
from cells_loopback.errors import (
    CellsLoopbackError,
    LoginFailedError,
    ServerUnavailableError,
    StoreError,
    UntrustedServerError,
)
from cells_loopback.http.endpoints import ExchangeFailedError, exchange, fetch_key_set, fetch_metadata, revoke
from cells_loopback.http.transport import SiteClient, retry_unavailable
from cells_loopback.loopback_login.identity import identify_user
from cells_loopback.process.uninterrupted import run_uninterrupted
from cells_loopback.protocol.authorization import start_authorization
from cells_loopback.protocol.client import out_of_band_redirect_uri
from cells_loopback.session.forecast import start_renewals
from cells_loopback.store.keyring_store import delete_secrets, withhold_secrets
from cells_loopback.store.pkce_memory import has_bound
from cells_loopback.store.preferences import read_default_profile, write_default_profile
from cells_loopback.store.profiles import Profile, ProfileStore, User

if TYPE_CHECKING:
    from collections.abc import Callable

    from cells_loopback.loopback_login.options import LoginPlan
    from cells_loopback.protocol.authorization import AuthorizationRequest, AuthorizationResponse
    from cells_loopback.protocol.client import ClientRegistration
    from cells_loopback.protocol.pkce import PKCEBinding
    from cells_loopback.protocol.site import ServerMetadata
    from cells_loopback.protocol.tokens import TokenSet

logger = logging.getLogger("cells_loopback")

DISCOVERY_PATIENCE = 5.0
"""Seconds within which a known site that fails is asked again where it is."""

REVOCATION_TIMEOUT = 3.0
"""Seconds that the revocation of a replaced session may hold up the end of a login."""


class CodeExchange:
    """The server's side of one login."""

    def __init__(
        self,
        plan: LoginPlan,
        store: ProfileStore,
        metadata: ServerMetadata,
        on_notice: Callable[[str], object],
        *,
        remembered: bool = False,
    ) -> None:
        """Begin to fetch, while the person types, what the exchange will need.

        ``remembered`` metadata is the last login's: the server is asked for the present one.
        """
        self._plan = plan
        self._store = store
        self._client = SiteClient(plan.site, plan.trust)
        self._metadata = metadata
        self._remembered = remembered
        self._users_of_client = 2  # this login and its prefetch
        self._leaving = threading.Lock()
        self._discovered = threading.Event()
        self._discovery_error: CellsLoopbackError | None = None
        self._on_notice = on_notice
        self._key_set: dict[str, Any] | None = None
        self._prefetch = threading.Thread(target=self._fetch_beforehand, daemon=True)
        self._response: AuthorizationResponse | None = None
        self._tokens: TokenSet | None = None
        self._binding: PKCEBinding = "off"
        self._was_foreign = False
        self._replaced: Profile | None = None
        self.user = User()
        self._prefetch.start()

    def __enter__(self) -> CodeExchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave_client()

    def _leave_client(self) -> None:
        # Closed by the last of its two users: a connection opened after a close would stay open.
        with self._leaving:
            self._users_of_client -= 1
            if self._users_of_client == 0:
                self._client.close()

    def _fetch_beforehand(self) -> None:
        try:
            self._fetch_metadata_and_keys()
        finally:
            self._leave_client()

    def _fetch_metadata_and_keys(self) -> None:
        try:
            if self._remembered:
                self._metadata = retry_unavailable(
                    lambda: fetch_metadata(self._client), total=DISCOVERY_PATIENCE
                )
        except CellsLoopbackError as error:
            self._discovery_error = error
            return
        finally:
            self._discovered.set()
        try:
            self._key_set = fetch_key_set(self._client, self._metadata)
            # Also imported now rather than between the callback and the page.
            import joserfc.jwt  # noqa: F401

            if self._plan.known is None:  # it may become the default profile
                import tomlkit  # noqa: F401
        except CellsLoopbackError as error:
            logger.info("keys are fetched later: %s", error)

    def _prefetched_keys(self) -> dict[str, Any] | None:
        self._prefetch.join()
        return self._key_set

    def discover(self) -> ServerMetadata:
        """Wait for the server's present metadata. Raises why there is none: what `fetch_metadata` raises."""
        self._discovered.wait()
        if self._discovery_error is not None:
            raise self._discovery_error
        return self._metadata

    def exchange(self, response: AuthorizationResponse) -> bool:
        """Exchange the code; False when one new authorization without PKCE has to follow (*foreign*).

        Raises `UntrustedServerError` where PKCE had to be bound and was not, and what
        `endpoints.exchange` raises.
        """
        self._prefetch.join()
        response = self._response = replace(
            response, request=replace(response.request, metadata=self.discover())
        )
        verified = response.request.code_verifier is not None
        try:
            self._tokens = self._request_tokens(response)
        except ExchangeFailedError as error:
            if error.pkce_failure is None or not verified:
                raise
            self._refuse_downgrade(error)
            if error.pkce_failure == "foreign":
                # The answer to an injected code reads the same: this one is never tried again.
                self._was_foreign = True
                return False
            self._tokens = self._request_tokens(response, with_verifier=False)
            self._binding = "unbound"
            self._on_notice("this server does not bind the login to this program (PKCE is lost on its way)")
        else:
            self._binding = "bound" if verified else "foreign" if self._was_foreign else "off"
        return True

    def _request_tokens(self, response: AuthorizationResponse, *, with_verifier: bool = True) -> TokenSet:
        """Exchange the code, again and again while the server fails.

        A code works once: where it is refused after an answer was lost, the loss is the reason to tell.
        """
        lost: list[ServerUnavailableError] = []

        def note_failure(error: ServerUnavailableError, _pause: float) -> None:
            if error.answer_lost:
                lost.append(error)

        try:
            return retry_unavailable(
                lambda: exchange(self._client, response, with_verifier=with_verifier), on_retry=note_failure
            )
        except ExchangeFailedError as error:
            if not lost or not error.may_be_spent or error.pkce_failure is not None:
                raise
            raise ServerUnavailableError(
                f"{lost[-1].message}; the code was used up by the request that got this answer",
                hint="log in again",
                code=lost[-1].code,
            ) from None

    def _refuse_downgrade(self, error: ExchangeFailedError) -> None:
        if self._plan.settings.pkce == "required":
            raise UntrustedServerError(
                f"this server does not bind PKCE ({error.pkce_failure}), and --pkce required was given",
                hint="update the server, or log in with --pkce auto if you accept it",
                code="pkce_not_bound",
            ) from None
        if self._ever_bound():
            raise UntrustedServerError(
                "this server has bound PKCE before and does not now: somebody may have put in a foreign code",
                hint="log in again; if it stays so, ask the server's administrator what was changed, and"
                " if that is right, log in with --pkce off",
                code="pkce_downgrade",
            ) from None

    def _ever_bound(self) -> bool:
        known = self._plan.known
        if known is not None and known.pkce_binding == "bound":
            return True
        store = ProfileStore(self._store.config_dir, withhold_secrets)  # a locked keyring hides nothing of it
        for name in store.names():
            try:
                profile = store.read(name)
            except CellsLoopbackError:
                continue
            if profile.site == self._plan.site and profile.pkce_binding == "bound":
                return True
        return has_bound(self._store.config_dir, self._plan.site)

    def restart_without_pkce(self, request: AuthorizationRequest) -> AuthorizationRequest:
        """Return the one new authorization request that follows a *foreign* challenge; all values are new."""
        self._on_notice(
            "this server puts a PKCE challenge of its own in place of ours: going on without PKCE"
        )
        return start_authorization(self._metadata, request.client, request.redirect_uri, with_pkce=False)

    def missing_scope(self) -> str:
        """Return the words of the scope that were asked for and not granted."""
        request, tokens = self._done()
        granted = set(tokens.scope.split())
        missing = [word for word in request.client.scope.split() if word not in granted]
        if request.client.asks_for_refresh_token and not tokens.renewable:
            missing = missing or ["a refresh token"]
        return " ".join(missing)

    def identify(self) -> None:
        """Learn who logged in, and refuse another user than the profile's.

        Raises `UntrustedServerError` for an ID Token with any fault, `LoginFailedError` for another user.
        What is refused is revoked.
        """
        request, tokens = self._done()
        try:
            self.user = retry_unavailable(
                lambda: identify_user(self._client, request, tokens, self._prefetched_keys)
            )
            refuse_other_user(self._plan, self.user)
        except CellsLoopbackError:
            self._revoke(tokens, request.client)
            raise

    def save(self) -> None:
        """Put the session on the disk. Raises `StoreError`; what is not stored is revoked."""
        request, tokens = self._done()
        profile = make_profile(self._plan, request.client, self._metadata, self.user, tokens)
        try:
            run_uninterrupted(lambda: self._save(profile, request.redirect_uri))
        except CellsLoopbackError:
            self._revoke(tokens, request.client)
            raise
        choose_first_profile(self._store, profile, self._replaced, self._on_notice)

    def _save(self, profile: Profile, redirect_uri: str) -> None:
        is_loopback = redirect_uri != out_of_band_redirect_uri(self._plan.site)
        completed = replace(
            profile,
            redirect_uri=redirect_uri if is_loopback else None,
            pkce_binding=profile.pkce_binding or self._binding,
        )
        self._replaced = save_profile(self._store, completed)

    def revoke_old(self) -> None:
        """Revoke the refresh token that the login has replaced: best effort, bounded."""
        revoke_replaced(self._client, self._metadata, self._replaced)

    def _revoke(self, tokens: TokenSet, registration: ClientRegistration) -> None:
        _try_to_revoke(self._client, self._metadata, registration, tokens)

    def _done(self) -> tuple[AuthorizationRequest, TokenSet]:
        if self._response is None or self._tokens is None:
            raise RuntimeError("exchange comes first")
        return self._response.request, self._tokens


def revoke_replaced(client: SiteClient, metadata: ServerMetadata, old: Profile | None) -> None:
    """Revoke the session that a login has replaced on the disk: best effort, bounded."""
    if old is None or old.tokens.refresh_token is None or old.site != client.site or old.needs_login:
        return
    arguments = (client, metadata, old.client, old.tokens)
    thread = threading.Thread(target=_try_to_revoke, args=arguments, daemon=True)
    thread.start()
    thread.join(REVOCATION_TIMEOUT)


def _try_to_revoke(
    client: SiteClient, metadata: ServerMetadata, registration: ClientRegistration, tokens: TokenSet
) -> None:
    try:
        revoke(client, metadata, registration, tokens.refresh_token or tokens.access_token)
    except CellsLoopbackError as error:
        logger.info("not revoked: %s", error.message)


def refuse_other_user(plan: LoginPlan, user: User) -> None:
    """Raise `LoginFailedError` when the profile belongs to another user of the site, unless ``--force``."""
    known = plan.known
    if plan.force or known is None or _may_be_same(known.user, user):
        return
    raise LoginFailedError(
        f"profile {known.name!r} belongs to {known.user.name}, but"
        f" {user.name or user.sub or 'somebody else'} logged in",
        hint="give the other account a profile of its own: --profile NAME; or replace this one: --force",
        code="other_user",
    )


def _may_be_same(known: User, user: User) -> bool:
    """Compare two users by ``sub``, by name where the server told only that (a personal access token)."""
    if known.sub and user.sub:
        return known.sub == user.sub
    return known.name == user.name or not known.name


def make_profile(
    plan: LoginPlan, registration: ClientRegistration, metadata: ServerMetadata, user: User, tokens: TokenSet
) -> Profile:
    """Return the profile of a completed login."""
    known = plan.known
    return Profile(
        name=plan.name,
        site=plan.site,
        client=registration,
        metadata=metadata,
        user=user,
        tokens=tokens,
        # Once bound, never forgotten, whatever session comes in between.
        pkce_binding="bound" if known is not None and known.pkce_binding == "bound" else None,
        settings=plan.settings,
        renewals=start_renewals(None if known is None else known.renewals, wall()),
        unknown={} if known is None else known.unknown,
    )


def save_profile(store: ProfileStore, profile: Profile) -> Profile | None:
    """Write a profile in the place of the stored one, which is returned. Raises `StoreError`."""
    store.prepare()
    with store.lock(profile.name):
        try:
            replaced = store.read_for_login(profile.name) if store.exists(profile.name) else None
        except CellsLoopbackError:  # damaged since: the login mends it
            replaced = None
        with store.replacement(profile.name) as replacement:
            store.write(profile, replacement)
        if replaced is not None and replaced.settings.store == "keyring" != profile.settings.store:
            try:
                delete_secrets(store.config_dir, profile.name)
            except StoreError as error:  # a keyring that does not answer may be why it was left
                logger.info("the old secrets stay in the keyring: %s", error.message)
    return replaced


def choose_first_profile(
    store: ProfileStore, profile: Profile, replaced: Profile | None, on_notice: Callable[[str], object]
) -> None:
    """Make a new profile the default one if there is none.

    Where that cannot be written (a ``config.toml`` that somebody else manages), the session is on the
    disk all the same: ``on_notice`` is told.
    """
    if replaced is not None:
        return
    try:
        if read_default_profile(store.config_dir) is None:
            write_default_profile(store.config_dir, profile.name)
    except StoreError as error:
        on_notice(f"{profile.name} was not made the default profile: {error.message}")
