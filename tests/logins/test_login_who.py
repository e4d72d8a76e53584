"""Who came back from the browser: whose profile it is, what it replaces, which profile is the default."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from own_network import OWN_NETWORK
from requires import thorough
from sessions import store_session

from cells_loopback.testing import Browser, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from desktop import Desktop
    from program import Program

    from cells_loopback.testing import CellsServer, Page

pytestmark = OWN_NETWORK


@pytest.fixture
def bob(server: CellsServer) -> Callable[[str], Page]:
    """Another person, at a browser of his own."""
    return lambda url: server.sign_in(url, "bob", browser=Browser())


def name_of(server: CellsServer) -> str:
    return urlsplit(server.site).netloc


def default_of(program: Program) -> str:
    return next(line[2:] for line in program.output("list").splitlines() if line.startswith("* "))


def test_the_person_is_told_who_logged_in(
    server: CellsServer, program: Program, desktop: Desktop, bob: Callable[[str], Page]
) -> None:
    login = desktop.log_in(program, server, person=bob)
    assert login.stderr.splitlines()[-1] == f"logged in to {server.site} as bob (profile {name_of(server)})"
    assert "bob" in login.shown
    assert program.output("whoami") == "bob\n"


@pytest.mark.parametrize(
    "needed", [pytest.param(False, marks=thorough), True], ids=["forced-to-ask", "session-ended"]
)
def test_another_user_does_not_take_a_profile_over(
    server: CellsServer, program: Program, desktop: Desktop, bob: Callable[[str], Page], needed: bool
) -> None:
    alices = store_session(server, program.config_dir, "work")
    before = program.profile_path("work").read_bytes()
    if needed:
        server.revoke_sessions("alice")
    another_session = () if needed else ("--scope", "openid offline")

    login = desktop.log_in(program, server, "-p", "work", *another_session, person=bob)

    assert login.exit_code == 5, login.stderr
    assert login.error == "profile 'work' belongs to alice, but bob logged in"
    assert "--profile NAME" in login.hint
    assert "--force" in login.hint
    assert "belongs to alice, but bob logged in" in login.shown
    if not needed:
        assert program.profile_path("work").read_bytes() == before
    assert program.read_profile("work")["user"]["name"] == "alice"
    assert server.count("revoke", status=200) == 1
    live = [] if needed or alices.tokens.refresh_token is None else [alices.tokens.refresh_token.reveal()]
    assert server.refresh_tokens() == live, "bob's new session is revoked, and alice's is not"


def test_another_user_takes_it_over_with_force(
    server: CellsServer, program: Program, desktop: Desktop, bob: Callable[[str], Page]
) -> None:
    store_session(server, program.config_dir, "work")
    login = desktop.log_in(program, server, "-p", "work", "--force", person=bob)
    assert login.exit_code == 0, login.stderr
    profile = program.read_profile("work")
    assert profile["user"]["name"] == "bob"
    assert server.refresh_tokens() == [profile["token"]["refresh_token"]], "alice's old session is revoked"


def test_another_user_has_a_profile_of_his_own(
    server: CellsServer, program: Program, desktop: Desktop, bob: Callable[[str], Page]
) -> None:
    store_session(server, program.config_dir, "work")
    assert desktop.log_in(program, server, "-p", "bobs", person=bob).exit_code == 0
    assert len(server.refresh_tokens()) == 2
    assert default_of(program) == "work"


def test_the_first_profile_is_the_default_and_logging_in_again_changes_nothing_about_that(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    desktop.log_in(program, server, "-p", "first")
    desktop.log_in(program, server, "-p", "second")
    assert default_of(program) == "first"
    program.output("use", "second")
    assert desktop.log_in(program, server, "-p", "first", "--force").exit_code == 0
    program.output("token", "-p", "first", "--refresh")
    assert default_of(program) == "second"


def test_the_session_that_a_login_replaces_is_revoked_once_the_new_one_is_on_disk(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir, "work")
    stored: list[str] = []
    answer = threading.Event()
    server.fault("revoke", Fault(hold=answer))

    def person(url: str) -> Page:
        page = server.sign_in(url)
        server.wait_for("revoke")
        stored.extend(server.refresh_tokens()[1:])
        assert program.read_profile("work")["token"]["refresh_token"] in stored
        answer.set()
        return page

    login = desktop.log_in(program, server, "-p", "work", "--force", person=person)
    assert login.exit_code == 0, login.stderr
    assert server.refresh_tokens() == stored


def test_a_revocation_that_is_not_answered_holds_nobody_up(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir, "work")
    never = threading.Event()
    server.fault("revoke", Fault(hold=never))
    login = desktop.log_in(program, server, "-p", "work", "--force")
    never.set()
    assert login.exit_code == 0, login.stderr
    assert "You are logged in" in login.shown


def test_a_session_that_works_is_kept_and_nothing_is_opened(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir, "work")
    before = program.read_profile("work")["token"]
    login = desktop.log_in(program, server, "-p", "work")
    assert (login.exit_code, login.page) == (0, None)
    assert login.stderr == f"already logged in to {server.site} as alice; --force logs in again\n"
    assert program.read_profile("work")["token"] == before
    assert (server.count("authorize"), server.count("refresh")) == (1, 0)


def test_a_session_that_no_longer_works_is_replaced(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir, "work")
    server.revoke_sessions()
    login = desktop.log_in(program, server, site="")
    assert login.exit_code == 0, login.stderr
    assert login.stderr.splitlines()[-1] == f"logged in to {server.site} as alice (profile work)"
    assert server.is_live_access_token(program.output("token").strip())


def test_a_damaged_profile_is_told_and_left_as_it_is(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir, "work")
    program.profile_path("work").write_text("{")
    login = desktop.log_in(program, server, "-p", "work")
    assert (login.exit_code, login.page) == (8, None), login.stderr
    assert str(program.profile_path("work")) in login.error
    assert program.profile_path("work").read_text() == "{"


def test_what_cannot_be_stored_is_revoked(server: CellsServer, program: Program, desktop: Desktop) -> None:
    def person(url: str) -> Page:
        (program.config_dir / "profiles").rename(program.config_dir / "gone")
        (program.config_dir / "profiles").write_text("in the way")
        return server.sign_in(url)

    login = desktop.log_in(program, server, person=person)
    assert login.exit_code == 8, login.stderr
    assert "The login failed" in login.shown
    assert server.refresh_tokens() == []
