"""``logout``: one session ends or all of them do, and one that cannot be ended keeps no other alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sessions import store_session

from cells_loopback.cli import main
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.testing import CellsServer


def test_all_sessions_end(server: CellsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("home", "work"):
        store_session(server, tmp_path, name)
    assert main(["--config-dir", str(tmp_path), "logout", "--all"]) == 0
    assert ProfileStore(str(tmp_path)).names() == []
    assert capsys.readouterr().err.splitlines() == ["logged out of home", "logged out of work"]
    assert server.count("revoke") == 4  # an access token and a refresh token each


def test_a_session_that_cannot_be_read_keeps_no_other_alive(
    server: CellsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("home", "work"):
        store_session(server, tmp_path, name)
    damaged = tmp_path / "profiles" / "home.json"
    damaged.write_text("{")
    assert main(["--config-dir", str(tmp_path), "logout", "--all"]) == 8
    assert ProfileStore(str(tmp_path)).names() == ["home"]
    assert damaged.read_text() == "{"
    assert "logged out of work" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "token", "exit_code", "left"),
    [
        pytest.param(["--all", "-p", "work"], "", 2, ["home", "work"], id="all and one"),
        pytest.param([], "handed-in", 2, ["home", "work"], id="whose token is handed in"),
        pytest.param(["-p", "work"], "handed-in", 0, ["home"], id="named all the same"),
    ],
)
def test_no_session_ends_that_was_not_meant(
    server: CellsServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    token: str,
    exit_code: int,
    left: list[str],
) -> None:
    for name in ("home", "work"):
        store_session(server, tmp_path, name)
    monkeypatch.setenv("CELLS_LOOPBACK_TOKEN", token)
    assert main(["--config-dir", str(tmp_path), "logout", *arguments]) == exit_code
    assert ProfileStore(str(tmp_path)).names() == left
