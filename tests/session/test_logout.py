"""Logging out: revoked on the server first, then forgotten, whatever the server says."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from examples import PROFILE
from sessions import store_session, write_session

from cells_loopback.errors import NotLoggedInError
from cells_loopback.session.logout import log_out
from cells_loopback.store.preferences import read_default_profile, write_default_profile
from cells_loopback.store.profiles import ProfileStore
from cells_loopback.testing import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.testing import CellsServer


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(str(tmp_path / "config"))


def add_refused(store: ProfileStore, tmp_path: Path, *names: str) -> None:
    """Store sessions that the server has ended already, the first one as the default."""
    for name in names:
        ended = replace(PROFILE, name=name, renewals=replace(PROFILE.renewals, rejected_at=5.0))
        write_session(tmp_path / "config", ended)


def test_the_session_ends_on_the_server_and_leaves_nothing_here(
    server: CellsServer, store: ProfileStore, tmp_path: Path
) -> None:
    store_session(server, tmp_path / "config")
    assert log_out(store, "work") == ""
    assert server.access_tokens() == []
    assert server.count("revoke", 200) == 2
    assert os.listdir(store.directory) == []
    assert read_default_profile(store.config_dir) is None


def test_a_server_that_fails_is_told_of_and_keeps_nobody_logged_in_here(
    server: CellsServer, store: ProfileStore, tmp_path: Path
) -> None:
    store_session(server, tmp_path / "config")
    server.fault("revoke", Fault(status=502, times=None))
    assert "was not revoked on the server" in log_out(store, "work")
    assert store.names() == []


def test_what_the_server_has_ended_is_not_revoked_again(store: ProfileStore, tmp_path: Path) -> None:
    add_refused(store, tmp_path, "work")  # at a server that is not there
    assert log_out(store, "work") == ""


@pytest.mark.parametrize(
    ("names", "chosen", "afterwards"),
    [
        (["work"], "work", None),
        (["work", "home"], "work", "home"),
        (["work", "home"], "home", "home"),
        (["work", "home", "cron"], "work", None),
        (["work", "home"], None, None),
    ],
)
def test_the_default_profile_afterwards(
    store: ProfileStore, tmp_path: Path, names: list[str], chosen: str | None, afterwards: str | None
) -> None:
    add_refused(store, tmp_path, *names)
    write_default_profile(store.config_dir, chosen)
    log_out(store, "work")
    assert read_default_profile(store.config_dir) == afterwards


def test_nobody_is_logged_out_twice(store: ProfileStore, tmp_path: Path) -> None:
    add_refused(store, tmp_path, "work")
    log_out(store, "work")
    with pytest.raises(NotLoggedInError):
        log_out(store, "work")
