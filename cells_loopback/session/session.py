"""`Session`: a valid token now, and the few things that a program does with one.

The stored session of a profile, or the token that ``CELLS_LOOPBACK_TOKEN`` hands in. How it stays
valid is `renewal`'s part, how a host library takes it is in `integrations`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cells_loopback.clock import uptime
from cells_loopback.errors import LoginRequiredError, NotLoggedInError, UsageError
from cells_loopback.protocol.site import parse_site
from cells_loopback.protocol.tokens import given_tokens
from cells_loopback.secret import Secret
from cells_loopback.session.renewal import StoredTokens
from cells_loopback.store.config_dir import find_config_dir
from cells_loopback.store.preferences import find_default_profile
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from cells_loopback.integrations.aiohttp import SessionMiddleware
    from cells_loopback.integrations.httpx import SessionAuth
    from cells_loopback.integrations.loop_tokens import LoopTokens
    from cells_loopback.integrations.requests import RequestsAuth
    from cells_loopback.protocol.tokens import TokenSet
    from cells_loopback.store.lock import FileLock
    from cells_loopback.store.profiles import Profile, User

TOKEN_VARIABLE = "CELLS_LOOPBACK_TOKEN"  # noqa: S105 - the variable's name
SITE_VARIABLE = "CELLS_SITE"


class GivenToken:
    """A token handed in from outside: no store is touched and nothing can renew it."""

    def __init__(self, site: str, access_token: Secret) -> None:
        self._site = site
        self._tokens = given_tokens(access_token)

    @property
    def site(self) -> str:
        """The site's base URL, from ``CELLS_SITE``. Raises `UsageError` when that is not set."""
        if not self._site:
            raise UsageError(
                f"{TOKEN_VARIABLE} is set, but not for which site",
                hint=f"set {SITE_VARIABLE} too, e.g. {SITE_VARIABLE}=https://files.example.com",
            )
        return parse_site(self._site).url

    def token(
        self, *, min_valid: float | None = None, rejected: Secret | None = None, refresh_now: bool = False
    ) -> TokenSet:
        """Return the token. Raises `LoginRequiredError` when the server has refused it."""
        del min_valid  # nobody told us how long it lives
        if refresh_now or rejected == self._tokens.access_token:
            raise LoginRequiredError(
                f"the token in {TOKEN_VARIABLE} cannot be renewed",
                hint=f"put a new one into {TOKEN_VARIABLE}, or unset it and log in",
                code="not_renewable",
            )
        return self._tokens


class Session:
    """A session at one site, safe to share between threads and event loops.

    Get one from `Session.load` or from `login`. `access_token` answers within a microsecond while the
    token is valid: the file is looked at again once a second, which is how soon a renewal or a logout
    by another process is seen.
    """

    def __init__(self, source: StoredTokens | GivenToken) -> None:
        self._source = source
        # One attribute for both, so that no thread ever pairs a token with the limit of another.
        self._fresh = (Secret(""), float("-inf"))
        self._loop_tokens: LoopTokens | None = None

    @classmethod
    def load(cls, profile: str | None = None, *, config_dir: str | None = None) -> Session:
        """Load a stored session: of the named profile, or the default one.

        ``CELLS_LOOPBACK_TOKEN`` comes first when no profile is named. Raises `NotLoggedInError` when
        there is none, `StoreError` when it cannot be read, and `UsageError` for a name that no profile
        can have or a token that is none.
        """
        given = os.environ.get(TOKEN_VARIABLE)
        if given and profile is None:
            return cls(GivenToken(os.environ.get(SITE_VARIABLE, ""), parse_given_token(given)))
        store = ProfileStore(find_config_dir(config_dir))
        name = find_default_profile(store) if profile is None else profile
        return cls(StoredTokens(store, store.read(name)))

    @property
    def site(self) -> str:
        """The site's base URL without a trailing slash, for example ``https://files.example.com``."""
        return self._source.site

    @property
    def profile(self) -> str | None:
        """The profile's name; None for a token that was handed in."""
        return self.stored.name if isinstance(self._source, StoredTokens) else None

    @property
    def stored(self) -> Profile:
        """The stored profile as last seen. Raises `NotLoggedInError` for a token that was handed in."""
        if isinstance(self._source, GivenToken):
            raise NotLoggedInError(
                f"there is no stored session: the token comes from {TOKEN_VARIABLE}",
                hint=f"unset {TOKEN_VARIABLE} to use the stored sessions",
            )
        return self._source.profile

    @property
    def user(self) -> User | None:
        """Who logged in; None for a token that was handed in."""
        return self.stored.user if isinstance(self._source, StoredTokens) else None

    def access_token(self) -> str:
        """Return a valid access token, renewed first when it is about to expire.

        Raises `LoginRequiredError` when a person is needed, `ServerUnavailableError` when the server
        is, and any other `CellsLoopbackError`.
        """
        token, until = self._fresh
        if uptime() >= until:
            token = self.token().access_token
        return token.reveal()

    def fresh_token(self) -> Secret | None:
        """Return the access token if that takes no look at the disk, else None."""
        token, until = self._fresh
        return token if uptime() < until else None

    async def access_token_async(self) -> str:
        """Return the same as `access_token`; a renewal runs in a thread and leaves the loop free."""
        token, until = self._fresh
        if uptime() < until:
            return token.reveal()
        if self._loop_tokens is None:
            # asyncio is behind this import: a program that awaits has it, the others need not.
            from cells_loopback.integrations.loop_tokens import LoopTokens

            self._loop_tokens = LoopTokens(self)
        return (await self._loop_tokens.access_token()).reveal()

    def token(
        self, *, min_valid: float | None = None, rejected: Secret | None = None, refresh_now: bool = False
    ) -> TokenSet:
        """Return the tokens, see `StoredTokens.token`; this is what makes a session a `TokenSource`."""
        tokens = self._source.token(min_valid=min_valid, rejected=rejected, refresh_now=refresh_now)
        if isinstance(self._source, StoredTokens):
            self._fresh = (tokens.access_token, self._source.fresh_until(tokens))
        return tokens

    def renew_holding(self, lock: FileLock, min_valid: float | None = None) -> TokenSet:
        """Return the tokens, for a caller that holds the profile's lock; the lock is given back."""
        if isinstance(self._source, GivenToken):
            return self._source.token()
        return self._source.renew_holding(lock, min_valid)

    @property
    def auth(self) -> SessionAuth:
        """An ``httpx.Auth`` for sync and async clients; sends the token to this site only."""
        from cells_loopback.integrations.httpx import SessionAuth

        return SessionAuth(self)

    def requests_auth(self) -> RequestsAuth:
        """Return an ``auth`` object for requests; requests itself is not needed by this package."""
        from cells_loopback.integrations.requests import RequestsAuth

        return RequestsAuth(self)

    def aiohttp_middleware(self) -> SessionMiddleware:
        """Return a middleware for ``aiohttp.ClientSession(middlewares=(session.aiohttp_middleware(),))``."""
        from cells_loopback.integrations.aiohttp import SessionMiddleware

        return SessionMiddleware(self)

    def s3_credentials(self) -> Any:
        """Return refreshable botocore credentials for the site's S3 gateway (extra ``s3``)."""
        from cells_loopback.integrations.s3 import refreshable_credentials

        return refreshable_credentials(self)


def parse_given_token(text: str) -> Secret:
    """Check a token from outside: printable ASCII without spaces (RFC 6750 §2.1). Raises `UsageError`."""
    token = text.strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise UsageError(
            "that is no access token: it is empty or holds a space or a special character",
            hint="give it as the server or `cells-loopback token` shows it, with nothing around it",
        )
    return Secret(token)
