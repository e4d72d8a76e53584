"""``status``: what it shows of each session, and the exit code that tells when a person is needed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from examples import PROFILE
from sessions import write_session

from cells_loopback.cli import main
from cells_loopback.clock import uptime, wall
from cells_loopback.events import format_optional_time
from cells_loopback.store.profiles import Renewals, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cells_loopback.store.profiles import Profile

    Status = Callable[..., tuple[int, str, str]]

DAY = 86400.0


def session(name: str = "work", age: float = 0.0, rest: float = 0.0, **tokens: Any) -> Profile:
    """Return a session with an access token of ``age`` seconds and a refresh token of ``rest`` seconds."""
    now = wall()
    fresh = replace(PROFILE.tokens, obtained_at=now - age, obtained_uptime=uptime() - age)
    return replace(
        PROFILE,
        name=name,
        tokens=replace(fresh, **tokens),
        renewals=Renewals(logged_in_at=now - rest, refresh_token_at=now - rest),
    )


@pytest.fixture
def status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Status:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["--config-dir", str(tmp_path), "status", *arguments])
        return code, *capsys.readouterr()

    return run


def test_json_has_the_members_that_programs_rely_on(tmp_path: Path, status: Status) -> None:
    stored = session()
    write_session(tmp_path, stored)
    code, out, err = status("--json")
    [row] = json.loads(out)
    assert (code, err) == (0, "")
    assert {
        "profile": "work",
        "site": "https://files.example.com",
        "user": "alice",
        "expires_at": format_optional_time(stored.tokens.expires_at),
        "valid": True,
        "renewable": True,
        "default": True,
        "store": "file",
    }.items() <= row.items()


def test_a_token_that_ended_is_renewed_at_its_next_use_so_nobody_is_needed(
    tmp_path: Path, status: Status
) -> None:
    write_session(tmp_path, session(age=DAY, rest=DAY))
    code, out, _ = status()
    assert code == 0
    assert "token        ended 2" in out
    assert "renewable    yes" in out
    assert "log in by    2" in out


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(session(age=DAY, refresh_token=None), id="it ended and has no refresh token"),
        pytest.param(session(age=29 * DAY, rest=29 * DAY), id="its refresh token ends before long"),
        pytest.param(
            replace(session(), renewals=replace(session().renewals, rejected_at=wall())),
            id="its refresh token was rejected",
        ),
    ],
)
def test_a_person_who_is_needed_is_told_the_command(stored: Profile, tmp_path: Path, status: Status) -> None:
    write_session(tmp_path, stored)
    code, out, err = status()
    assert (code, err) == (4, "")
    assert "log in       cells-loopback login --profile work" in out
    assert [row["needs_person"] for row in json.loads(status("--json")[1])] == [True]


def test_a_personal_access_token_never_ends_as_far_as_anybody_told(tmp_path: Path, status: Status) -> None:
    write_session(tmp_path, session(lifetime=None, refresh_token=None))
    code, out, _ = status()
    assert code == 0
    assert "token        valid; the server did not say until when" in out
    [row] = json.loads(status("--json")[1])
    assert (row["expires_at"], row["valid"], row["renewable"]) == (None, True, False)


def test_all_sessions_are_shown_and_the_default_one_is_marked(tmp_path: Path, status: Status) -> None:
    for name in ("work", "home"):
        write_session(tmp_path, session(name))
    assert [line for line in status()[1].splitlines() if not line.startswith("    ")] == ["  home", "* work"]


def test_the_profile_option_shows_one(tmp_path: Path, status: Status) -> None:
    for name in ("work", "home"):
        write_session(tmp_path, session(name))
    assert [row["profile"] for row in json.loads(status("--json", "-p", "home")[1])] == ["home"]


def test_a_damaged_profile_hides_no_other(tmp_path: Path, status: Status) -> None:
    write_session(tmp_path, session())
    damaged = tmp_path / "profiles" / "damaged.json"
    damaged.touch(mode=0o600)
    code, out, err = status("--json")
    assert [row["profile"] for row in json.loads(out)] == ["work"]
    assert code == 8
    assert str(damaged) in err
    assert damaged.read_bytes() == b""


def test_what_weakens_a_session_is_said(tmp_path: Path, status: Status) -> None:
    weak = replace(session(), pkce_binding="foreign", settings=Settings(insecure=True))
    write_session(tmp_path, weak)
    _, out, _ = status()
    assert "certificates are not checked: --insecure" in out
    assert "pkce         foreign: the server did not bind the login to this program" in out


@pytest.mark.parametrize(("arguments", "out"), [((), ""), (("--json",), "[]\n"), (("-q",), "")])
def test_without_any_session_it_ends_with_3_and_says_how_to_get_one(
    arguments: tuple[str, ...], out: str, status: Status
) -> None:
    told = "error: nobody has logged in yet\nhint: log in: cells-loopback login SITE\n"
    assert status(*arguments) == (3, out, told)
