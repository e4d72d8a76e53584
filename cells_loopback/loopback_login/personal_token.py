"""A personal access token becomes a stored session that is never renewed (``login --with-token``)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cells_loopback.http.discovery import find_server
from cells_loopback.http.transport import SiteClient
from cells_loopback.loopback_login.code_exchange import (
    choose_first_profile,
    make_profile,
    refuse_other_user,
    revoke_replaced,
    save_profile,
)
from cells_loopback.loopback_login.identity import check_personal_token
from cells_loopback.loopback_login.opening import log_notice
from cells_loopback.loopback_login.options import plan_login
from cells_loopback.protocol.client import ClientRegistration
from cells_loopback.protocol.tokens import given_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from cells_loopback.loopback_login.options import LoginOptions
    from cells_loopback.secret import Secret
    from cells_loopback.store.profiles import Profile, ProfileStore


def log_in_with_token(
    options: LoginOptions,
    access_token: Secret,
    store: ProfileStore,
    on_notice: Callable[[str], object] = log_notice,
) -> Profile:
    """Ask the server about the token, then store it as the profile's session, which is returned.

    ``on_notice`` is told what a person should know. Raises `LoginFailedError` when the server does not
    take the token, and the errors of `flow.log_in`.
    """
    plan = plan_login(options, store)
    site, metadata = find_server(plan.site, plan.trust, try_http=plan.scheme_is_open)
    plan = replace(plan, site=site)
    with SiteClient(site, plan.trust) as client:
        user = check_personal_token(client, metadata, access_token)
        refuse_other_user(plan, user)
        registration = ClientRegistration("", ())
        profile = make_profile(plan, registration, metadata, user, given_tokens(access_token))
        replaced = save_profile(store, profile)
        choose_first_profile(store, profile, replaced, on_notice)
        revoke_replaced(client, metadata, replaced)
    return profile
