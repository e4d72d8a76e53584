"""Where one is logged in already, only the server knows whether that still holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sessions import age_session, make_session, store_session

from cells_loopback.errors import ServerUnavailableError
from cells_loopback.loopback_login.options import LoginOptions, plan_login
from cells_loopback.loopback_login.standing_session import still_works
from cells_loopback.protocol.tokens import given_tokens
from cells_loopback.secret import Secret
from cells_loopback.store.profiles import ProfileStore
from cells_loopback.testing import Fault

if TYPE_CHECKING:
    from cells_loopback.testing import CellsServer


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(str(tmp_path / "config"))


def works(server: CellsServer, store: ProfileStore, **options: Any) -> bool:
    return still_works(plan_login(LoginOptions(profile="work", site=server.site, **options), store), store)


def test_nobody_is_logged_in_where_there_is_no_profile(server: CellsServer, store: ProfileStore) -> None:
    assert works(server, store) is False
    assert server.requests == []


def test_a_session_that_the_server_takes_is_left_alone(server: CellsServer, store: ProfileStore) -> None:
    store_session(server, Path(store.config_dir))
    before = store.read("work")
    assert works(server, store) is True
    assert (server.count("userinfo"), server.count("refresh")) == (1, 0)
    assert store.read("work") == before


def test_an_old_token_is_renewed(server: CellsServer, store: ProfileStore) -> None:
    store_session(server, Path(store.config_dir))
    age_session(Path(store.config_dir), 10_000)
    server.expire_access_tokens()
    assert works(server, store) is True
    assert server.count("refresh") == 1
    assert server.is_live_access_token(store.read("work").tokens.access_token.reveal())


def test_a_token_that_the_server_has_ended_early_is_renewed(server: CellsServer, store: ProfileStore) -> None:
    store_session(server, Path(store.config_dir))
    server.expire_access_tokens()
    assert works(server, store) is True
    assert server.count("refresh") == 1


def test_a_session_that_was_revoked_works_no_more(server: CellsServer, store: ProfileStore) -> None:
    store_session(server, Path(store.config_dir))
    server.revoke_sessions()
    assert works(server, store) is False


def test_a_session_without_a_refresh_token_ends_with_its_token(
    server: CellsServer, store: ProfileStore
) -> None:
    tokens = replace(make_session(server).tokens, refresh_token=None)
    store_session(server, Path(store.config_dir), tokens=tokens)
    assert works(server, store) is True
    server.expire_access_tokens()
    assert works(server, store) is False


def test_a_personal_access_token_works_until_the_server_says_otherwise(
    server: CellsServer, store: ProfileStore
) -> None:
    tokens = given_tokens(Secret(server.add_personal_access_token()))
    store_session(server, Path(store.config_dir), tokens=tokens)
    assert works(server, store) is True
    server.revoke_personal_access_tokens()
    assert works(server, store) is False


def test_a_server_that_is_down_is_no_dead_session(server: CellsServer, store: ProfileStore) -> None:
    store_session(server, Path(store.config_dir))
    server.fault("userinfo", Fault(status=503, times=None))
    with pytest.raises(ServerUnavailableError):
        works(server, store)


@pytest.mark.parametrize(
    ("name", "value"),
    [("relogin", "never"), ("browser", "firefox"), ("app_name", "Sync"), ("pkce", "required")],
)
def test_other_settings_are_stored_without_a_login(
    server: CellsServer, store: ProfileStore, name: str, value: Any
) -> None:
    store_session(server, Path(store.config_dir))
    before = store.read("work")
    assert works(server, store, **{name: value}) is True
    assert store.read("work") == replace(before, settings=replace(before.settings, **{name: value}))


def test_settings_of_a_dead_session_wait_for_its_login(server: CellsServer, store: ProfileStore) -> None:
    store_session(server, Path(store.config_dir))
    server.revoke_sessions()
    assert works(server, store, relogin="never") is False
    assert store.read("work").settings.relogin == "notify"
