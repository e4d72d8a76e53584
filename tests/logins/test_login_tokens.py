"""Tokens that a person brings along: ``--with-token`` and ``CELLS_LOOPBACK_TOKEN``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from own_network import OWN_NETWORK
from program import finish
from requires import thorough
from sessions import make_session, store_session
from terminal_window import TerminalWindow

from cells_loopback.testing import Browser

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from desktop import Desktop
    from program import Program

    from cells_loopback.testing import CellsServer

pytestmark = OWN_NETWORK


def name_of(server: CellsServer) -> str:
    return urlsplit(server.site).netloc


def bring(program: Program, server: CellsServer, token: str, *options: str) -> CompletedProcess[str]:
    return program.run("login", server.site, "--with-token", *options, given=token + "\n")


@pytest.mark.parametrize(
    "user", [pytest.param("alice", marks=thorough), "bob"], ids=["administrator", "user"]
)
def test_a_personal_access_token_becomes_a_session_that_is_never_renewed(
    server: CellsServer, program: Program, user: str
) -> None:
    token = server.add_personal_access_token(user)
    login = bring(program, server, token, "-vv")

    assert (login.returncode, login.stdout) == (0, ""), login.stderr
    assert f"logged in to {server.site} as {user}" in login.stderr
    assert "this session cannot be renewed" in login.stderr
    assert token not in login.stderr
    assert program.output("token") == token + "\n"
    assert program.output("whoami") == user + "\n"
    (status,) = json.loads(program.output("status", "--json"))
    assert (status["renewable"], status["expires_at"], status["valid"]) == (False, None, True)

    renewal = program.run("token", "--refresh")
    assert (renewal.returncode, renewal.stdout) == (4, "")
    assert (server.count("refresh"), server.count("authorize"), server.count("exchange")) == (0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [("unknown", 5), ("expired", 5), ("empty", 2), ("two words", 2), ("not ASCII", 2)],
)
def test_a_token_that_is_no_good_is_not_stored(
    server: CellsServer, program: Program, kind: str, exit_code: int
) -> None:
    tokens = {"unknown": "pat-42", "empty": "", "two words": "pat 42", "not ASCII": "p\u00e4t"}
    token = tokens.get(kind) or server.add_personal_access_token(lifetime=0 if kind == "expired" else 60)
    login = bring(program, server, tokens.get(kind, token))
    assert login.returncode == exit_code, login.stderr
    assert login.stderr.startswith("error: ")
    assert not program.profile_path(name_of(server)).exists()
    if exit_code == 5:
        assert f"{server.site} does not accept this token" in login.stderr
        assert token not in login.stderr


@pytest.mark.parametrize("option", ["--with-token", "--client-secret-file=-"])
@pytest.mark.parametrize(
    ("stdin", "reason"),
    [('exec "$@" <&-', "Bad file descriptor"), ('printf "\\377" | "$@"', "it is not text")],
    ids=["closed", "not text"],
)
def test_a_stdin_that_cannot_be_read_is_wrong_usage(
    program: Program, option: str, stdin: str, reason: str
) -> None:
    login = program.start(
        *("login", "files.example.com", "--client-id", "own", option),
        under=("sh", "-c", stdin, "sh"),
        environment={"PYTHONIOENCODING": "utf-8:strict"},
    )
    done = finish(login)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[0].endswith(f": {reason}")


def test_who_ends_the_input_instead_of_pasting_a_token_is_told_that_there_is_none(program: Program) -> None:
    command = program.command("login", "files.example.com", "--with-token")
    with TerminalWindow(command, program.environment) as window:
        window.wait_for("then Enter:")
        while window.process.poll() is None:  # what is typed before its prompt is ready is thrown away
            window.type("\x04")  # Ctrl-D
            time.sleep(0.05)
        assert "error: that is no access token" in window.wait_for("hint:")
        assert window.process.returncode == 2


def test_events_tell_of_it_like_of_any_login(server: CellsServer, program: Program) -> None:
    done = bring(program, server, server.add_personal_access_token(), "--json")
    (event,) = map(json.loads, done.stdout.splitlines())
    assert (event["event"], event["user"], event["renewable"]) == ("logged_in", "alice", False)

    failed = bring(program, server, "pat-42", "--json", "-p", "another")
    (event,) = map(json.loads, failed.stdout.splitlines())
    assert (event["event"], event["code"], event["exit_code"]) == ("error", "token_refused", 5)


def test_an_access_token_of_a_login_elsewhere_is_taken_too(server: CellsServer, program: Program) -> None:
    token = make_session(server).tokens.access_token.reveal()
    assert bring(program, server, token).returncode == 0
    assert program.read_profile(name_of(server))["user"]["sub"] == server.user.uuid


def test_a_token_that_has_died_is_told_by_the_server(server: CellsServer, program: Program) -> None:
    bring(program, server, server.add_personal_access_token())
    server.revoke_personal_access_tokens()
    done = program.run("api", "/a/frontend/state")
    assert done.returncode == 4
    assert server.count("refresh") == 0


# A profile that has another session


def test_the_same_user_replaces_a_session_of_the_browser_by_a_token(
    server: CellsServer, program: Program
) -> None:
    store_session(server, program.config_dir)
    done = bring(program, server, server.add_personal_access_token("alice"), "-p", "work")
    assert done.returncode == 0, done.stderr
    assert server.refresh_tokens() == [], "the session that it replaces is revoked"


def test_the_same_user_replaces_a_token_by_a_session_of_the_browser(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    bring(program, server, server.add_personal_access_token("alice"), "-p", "work")
    login = desktop.log_in(program, server, "-p", "work", "--force")
    assert login.exit_code == 0, login.stderr
    assert program.read_profile("work")["user"]["sub"] == server.user.uuid


def test_the_token_of_another_user_does_not_take_a_profile_over(
    server: CellsServer, program: Program
) -> None:
    store_session(server, program.config_dir)
    before = program.profile_path("work").read_bytes()
    token = server.add_personal_access_token("bob")
    done = bring(program, server, token, "-p", "work")
    assert done.returncode == 5
    assert "profile 'work' belongs to alice, but bob logged in" in done.stderr
    assert program.profile_path("work").read_bytes() == before
    assert bring(program, server, token, "-p", "work", "--force").returncode == 0


def test_another_user_of_the_browser_does_not_take_the_profile_of_a_token_over(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    bring(program, server, server.add_personal_access_token("alice"), "-p", "work")
    server.revoke_personal_access_tokens()
    login = desktop.log_in(
        program, server, "-p", "work", person=lambda url: server.sign_in(url, "bob", browser=Browser())
    )
    assert login.exit_code == 5, login.stderr
    assert "profile 'work' belongs to alice, but bob logged in" in login.error


# CELLS_LOOPBACK_TOKEN


def given(server: CellsServer, token: str) -> dict[str, str]:
    return {"CELLS_LOOPBACK_TOKEN": token, "CELLS_SITE": server.site}


def test_a_token_in_the_environment_is_used_and_no_store_is_touched(
    server: CellsServer, program: Program
) -> None:
    token = server.add_personal_access_token()
    environment = given(server, token)

    assert program.run("token", environment=environment).stdout == token + "\n"
    header = program.run("token", "--format", "header", environment=environment).stdout
    assert header == f"Authorization: Bearer {token}\n"
    document = json.loads(program.run("token", "--format", "json", environment=environment).stdout)
    assert document == {
        "access_token": token,
        "token_type": "Bearer",
        "expires_at": None,
        "site": server.site,
        "profile": None,
        "user": None,
    }
    assert program.run("api", "/a/config/ctl", environment=environment).returncode == 0
    assert program.run("whoami", environment=environment).stdout == "alice\n"
    assert not program.config_dir.exists()


def test_a_token_in_the_environment_cannot_be_renewed(server: CellsServer, program: Program) -> None:
    environment = given(server, server.add_personal_access_token())
    done = program.run("token", "--refresh", environment=environment)
    assert (done.returncode, done.stdout) == (4, "")
    assert "CELLS_LOOPBACK_TOKEN" in done.stderr

    refused = program.run("whoami", environment=given(server, "nobodys-token"))
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "does not accept the token in CELLS_LOOPBACK_TOKEN" in refused.stderr


def test_a_token_in_the_environment_comes_before_the_default_profile_and_not_before_a_named_one(
    server: CellsServer, program: Program
) -> None:
    stored = store_session(server, program.config_dir).tokens.access_token.reveal()
    environment = given(server, "given-token")
    assert program.run("token", environment=environment).stdout == "given-token\n"
    assert program.run("token", "-p", "work", environment=environment).stdout == stored + "\n"


def test_a_login_stores_its_session_and_says_that_the_environment_hides_it(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    login = desktop.log_in(program, server, environment=given(server, "given-token"))
    assert login.exit_code == 0, login.stderr
    assert program.read_profile(name_of(server))["token"]["access_token"] in server.access_tokens()
    assert login.warnings == [
        "CELLS_LOOPBACK_TOKEN is set: commands go on using that until it is unset, or -p names a profile"
    ]
