"""Who logged in: from the validated ID Token, else from the userinfo endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cells_loopback.clock import wall
from cells_loopback.errors import LoginFailedError, UntrustedServerError
from cells_loopback.http.endpoints import ask_rest_api, fetch_key_set, fetch_userinfo
from cells_loopback.protocol.id_token import login_name, validate_id_token
from cells_loopback.store.profiles import User

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cells_loopback.http.transport import SiteClient
    from cells_loopback.protocol.authorization import AuthorizationRequest
    from cells_loopback.protocol.site import ServerMetadata
    from cells_loopback.protocol.tokens import TokenSet
    from cells_loopback.secret import Secret


_NAMING_CLAIMS = frozenset({"name", "preferred_username", "email"})


def identify_user(
    client: SiteClient,
    request: AuthorizationRequest,
    tokens: TokenSet,
    prefetched_keys: Callable[[], Mapping[str, Any] | None],
) -> User:
    """Return who the tokens belong to; the ID Token is validated whenever there is one.

    ``prefetched_keys`` gives the key set fetched while the person typed, None if there is none; when it
    does not verify the token, the keys may have been rotated since and are fetched once more. Raises
    `UntrustedServerError` for an ID Token with any fault, `ServerUnavailableError` when the server fails.
    """
    if tokens.id_token is None:
        claims = fetch_userinfo(client, request.metadata, tokens.access_token) or {}
        return user_from_claims(claims)
    user = _validate(client, request, tokens, tokens.id_token, prefetched_keys())
    if not _NAMING_CLAIMS.isdisjoint(user.claims):
        return user
    # OpenID Connect Core §5.4: some providers keep the profile claims for userinfo; §5.3.2: same sub.
    claims = fetch_userinfo(client, request.metadata, tokens.access_token) or {}
    return user_from_claims({**user.claims, **claims}) if claims.get("sub") == user.sub else user


def _validate(
    client: SiteClient,
    request: AuthorizationRequest,
    tokens: TokenSet,
    id_token: Secret,
    key_set: Mapping[str, Any] | None,
) -> User:
    if key_set is not None:
        try:
            return _validated(id_token, key_set, request, tokens)
        except UntrustedServerError as error:
            if error.code != "id_token_signature":
                raise
    return _validated(id_token, fetch_key_set(client, request.metadata), request, tokens)


def _validated(
    id_token: Secret, key_set: Mapping[str, Any], request: AuthorizationRequest, tokens: TokenSet
) -> User:
    claims = validate_id_token(
        id_token,
        key_set,
        issuer=request.metadata.issuer,
        client_id=request.client.client_id,
        nonce=request.nonce,
        access_token=tokens.access_token,
        now=wall() + tokens.clock_offset,
    )
    return User(sub=claims.sub, name=claims.name, claims=dict(claims.all))


def user_from_claims(claims: Mapping[str, Any]) -> User:
    """Return the user that userinfo claims tell of; empty where they do not."""
    sub = claims.get("sub")
    return User(sub=sub if isinstance(sub, str) else "", name=login_name(claims), claims=dict(claims))


def check_personal_token(client: SiteClient, metadata: ServerMetadata, access_token: Secret) -> User:
    """Ask the server whose personal access token this is. Raises `LoginFailedError` if it takes it not."""
    user = ask_whose(client, metadata, access_token)
    if user is None:
        raise LoginFailedError(
            f"{client.site.url} does not accept this token",
            hint="make a new personal access token on the server, and pipe it in again",
            code="token_refused",
        )
    return user


def ask_whose(client: SiteClient, metadata: ServerMetadata, access_token: Secret) -> User | None:
    """Ask the server whose token this is; None when it takes it not."""
    claims = fetch_userinfo(client, metadata, access_token)
    if claims is not None:
        return user_from_claims(claims)
    name = ask_rest_api(client, access_token)
    return None if name is None else User(name=name, claims={"name": name})
