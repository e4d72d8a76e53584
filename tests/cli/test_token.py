"""What ``token`` does where the stored token does not serve."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from examples import PROFILE
from sessions import store_session, write_session

from cells_loopback import cli
from cells_loopback.cli import login
from cells_loopback.protocol.tokens import given_tokens
from cells_loopback.session.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.loopback_login.options import LoginOptions
    from cells_loopback.testing import CellsServer


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


def test_with_login_too_nobody_is_logged_in_to_a_site_that_nothing_tells(
    config_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--config-dir", str(config_dir), "token", "--login"]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "error: nobody has logged in yet",
        "hint: log in: cells-loopback login SITE",
    ]


def test_a_session_that_needs_a_person_is_logged_in_to_as_the_preferences_say(
    config_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = replace(PROFILE.renewals, rejected_at=5.0)
    write_session(config_dir, replace(PROFILE, name="work", renewals=refused))
    with (config_dir / "config.toml").open("a") as file:
        file.write('\n[login]\nbrowser = "firefox"\ntimeout = 7\n')
    chosen: list[LoginOptions] = []

    def log_in(args: Any, options: LoginOptions, *_: object) -> Session:
        chosen.append(options)
        again = replace(PROFILE, name="work", tokens=given_tokens(PROFILE.tokens.access_token))
        write_session(config_dir, again)
        return Session.load("work", config_dir=str(config_dir))

    monkeypatch.setattr(login, "_log_in", log_in)
    assert cli.main(["--config-dir", str(config_dir), "token", "--login"]) == 0
    assert capsys.readouterr().out == PROFILE.tokens.access_token.reveal() + "\n"
    assert [(options.browser, options.timeout) for options in chosen] == [("firefox", 7)]


def test_a_token_that_was_handed_in_is_no_logins_to_replace(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLS_LOOPBACK_TOKEN", "handed-in")
    assert cli.main(["--config-dir", str(config_dir), "token", "--login", "--refresh"]) == 4


def test_short_options_may_be_written_as_one(config_dir: Path, server: CellsServer) -> None:
    store_session(server, config_dir)
    assert cli.main(["--config-dir", str(config_dir), "-vp", "work", "token"]) == 0
