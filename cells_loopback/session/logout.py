"""Log out: revoke on the server, then forget; all but that the site binds PKCE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cells_loopback.errors import CellsLoopbackError, StoreError
from cells_loopback.http.endpoints import revoke
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.store.pkce_memory import remember_bound
from cells_loopback.store.preferences import read_default_profile, write_default_profile

if TYPE_CHECKING:
    from cells_loopback.store.profiles import Profile, ProfileStore


def log_out(store: ProfileStore, name: str) -> str:
    """End one session; return what the person should know, '' when all went well.

    If it was the default one and a single other is left, that becomes the default.

    Holds the profile's lock throughout, so that no renewal brings the session back. Raises
    `NotLoggedInError` when there is none and `StoreError` when it cannot be removed.
    """
    store.read_for_login(name)  # or there is nothing to lock
    with store.lock(name) as lock:
        profile, warning = _read_and_revoke(store, name)
        if profile.settings.store == "keyring":
            from cells_loopback.store.keyring_store import delete_secrets

            delete_secrets(store.config_dir, name)
        if profile.settings.relogin == "headless":
            from cells_loopback.desktop.own_chromium import forget

            forget(store.config_dir, name)  # or its web session would log in again without a word
        not_remembered = _remember_binding(store, profile)
        store.remove(name, lock)
    if read_default_profile(store.config_dir) == name:
        left = store.names()
        # The only one left is the default anyway; written down, it is found without a look at the others.
        write_default_profile(store.config_dir, left[0] if len(left) == 1 else None)
    return warning or not_remembered


def _remember_binding(store: ProfileStore, profile: Profile) -> str:
    if profile.pkce_binding != "bound":
        return ""
    try:
        remember_bound(store.config_dir, profile.site)
    except StoreError as error:  # a full disk, perhaps: the secrets go all the same
        return f"that {profile.site.url} binds PKCE is not remembered: {error.message}"
    return ""


def _read_and_revoke(store: ProfileStore, name: str) -> tuple[Profile, str]:
    try:
        profile = store.read(name)
    except StoreError as error:
        return store.read_for_login(name), f"the session was not revoked on the server: {error.message}"
    return profile, _revoke(profile)


def _revoke(profile: Profile) -> str:
    if profile.needs_login or not profile.client.redirect_uris:
        return ""
    try:
        with SiteClient(profile.site, Trust.of(profile.settings)) as client:
            # RFC 7009 §2.1: with the refresh token a server only SHOULD end the access tokens of its grant.
            tokens = [profile.tokens.refresh_token, profile.tokens.access_token]
            for token in filter(None, tokens):
                if not revoke(client, profile.metadata, profile.client, token):
                    return f"{profile.site.url} has no revocation endpoint: the session there ends by itself"
    except CellsLoopbackError as error:
        return f"the session was not revoked on the server: {error.message}"
    return ""
