"""A personal access token becomes a session like any other, but for its renewal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sessions import make_session, write_session

from cells_loopback.errors import LoginFailedError, NotLoggedInError
from cells_loopback.loopback_login.options import LoginOptions
from cells_loopback.loopback_login.personal_token import log_in_with_token
from cells_loopback.protocol.client import ClientRegistration
from cells_loopback.secret import Secret
from cells_loopback.store.preferences import read_default_profile
from cells_loopback.store.profiles import ProfileStore, User

if TYPE_CHECKING:
    from cells_loopback.store.profiles import Profile
    from cells_loopback.testing import CellsServer


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(str(tmp_path / "config"))


def bring(server: CellsServer, store: ProfileStore, token: str = "", **options: Any) -> Profile:
    token = token or server.add_personal_access_token()
    return log_in_with_token(LoginOptions(**{"site": server.site, **options}), Secret(token), store)


def test_it_is_stored_without_client_life_or_renewal(server: CellsServer, store: ProfileStore) -> None:
    token = server.add_personal_access_token()
    profile = bring(server, store, token, profile="work")
    assert store.read("work") == profile
    assert profile.tokens.access_token == Secret(token)
    assert (profile.client, profile.user) == (
        ClientRegistration("", ()),
        User(name="alice", claims={"name": "alice"}),
    )
    assert (profile.tokens.lifetime, profile.tokens.renewable) == (None, False)
    assert read_default_profile(store.config_dir) == "work"


def test_a_default_that_cannot_be_written_is_a_notice(server: CellsServer, store: ProfileStore) -> None:
    store.prepare()
    (Path(store.config_dir) / "config.toml").mkdir()
    notices: list[str] = []
    token = Secret(server.add_personal_access_token())
    profile = log_in_with_token(LoginOptions(site=server.site), token, store, notices.append)
    assert store.read(profile.name) == profile
    (notice,) = notices
    assert notice.startswith(f"{profile.name} was not made the default profile: ")


def test_a_local_site_is_found_without_its_scheme(server: CellsServer, store: ProfileStore) -> None:
    profile = bring(server, store, site=server.site.removeprefix("http://"))
    assert profile.site.url == server.site


def test_a_refused_one_changes_nothing(server: CellsServer, store: ProfileStore) -> None:
    write_session(Path(store.config_dir), make_session(server))
    before = store.read("work")
    with pytest.raises(LoginFailedError):
        bring(server, store, "no-such-token", profile="work")
    assert store.read("work") == before


def test_without_a_site_it_is_the_profiles(server: CellsServer, store: ProfileStore) -> None:
    write_session(Path(store.config_dir), make_session(server))
    assert bring(server, store, site=None, profile="work").site.url == server.site
    with pytest.raises(NotLoggedInError):
        bring(server, store, site=None, profile="nobody")


def test_what_the_site_has_bound_before_is_not_forgotten_over_it(
    server: CellsServer, store: ProfileStore
) -> None:
    write_session(Path(store.config_dir), make_session(server))
    assert bring(server, store, profile="work").pkce_binding == "bound"


@pytest.mark.parametrize("force", [False, True])
def test_somebody_elses_takes_a_profile_over_by_force_only(
    server: CellsServer, store: ProfileStore, force: bool
) -> None:
    write_session(Path(store.config_dir), replace(make_session(server), user=User("1", "bob")))
    if force:
        assert bring(server, store, profile="work", force=True).user.name == "alice"
        assert server.refresh_tokens() == []
        return
    with pytest.raises(LoginFailedError) as caught:
        bring(server, store, profile="work")
    assert caught.value.code == "other_user"
    assert len(server.refresh_tokens()) == 1
