"""A login where one is logged in already: whether the stored session still works."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cells_loopback.errors import LoginFailedError, LoginRequiredError
from cells_loopback.http.endpoints import ask_rest_api, fetch_userinfo
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
from cells_loopback.session.renewal import StoredTokens

if TYPE_CHECKING:
    from cells_loopback.loopback_login.options import LoginPlan
    from cells_loopback.protocol.tokens import TokenSet
    from cells_loopback.store.profiles import Profile, ProfileStore


def still_works(plan: LoginPlan, store: ProfileStore) -> bool:
    """Whether no login is needed: the server still takes the stored session, or renews it.

    Changed settings (``--store``, ``--relogin`` and the like) are stored then. Raises
    `ServerUnavailableError`, `StoreError` and `UntrustedServerError`.
    """
    known = plan.known
    if known is None:
        return False
    source = StoredTokens(store, known)
    try:
        tokens = source.token()
        if not _is_accepted(known, tokens):
            source.token(rejected=tokens.access_token)
    except (LoginRequiredError, LoginFailedError):
        return False
    if known.settings != plan.settings:
        _store_settings(store, plan, known)
    return True


def _is_accepted(profile: Profile, tokens: TokenSet) -> bool:
    with SiteClient(profile.site, Trust.of(profile.settings)) as client:
        if fetch_userinfo(client, profile.metadata, tokens.access_token) is not None:
            return True
        return ask_rest_api(client, tokens.access_token) is not None


def _store_settings(store: ProfileStore, plan: LoginPlan, known: Profile) -> None:
    with store.lock(known.name), store.replacement(known.name) as replacement:
        stored = store.read(known.name)
        store.write(replace(stored, settings=plan.settings), replacement)
    if known.settings.store == "keyring" and plan.settings.store == "file":
        from cells_loopback.store.keyring_store import delete_secrets

        delete_secrets(store.config_dir, known.name)
