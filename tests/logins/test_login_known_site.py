"""A login again: what is remembered of the site opens the browser at once, and is checked meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from own_network import OWN_NETWORK
from sessions import store_session, write_session

from cells_loopback.testing import Behaviour, CellsServer, Fault

if TYPE_CHECKING:
    from desktop import Desktop
    from program import Program

pytestmark = OWN_NETWORK

GONE = "/oidc/oauth2/moved"


def last_event(program: Program, *arguments: str) -> dict[str, Any]:
    done = program.run("login", "-p", "work", "--force", "--json", *arguments)
    event: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert event["exit_code"] == done.returncode
    return event


@pytest.mark.parametrize("options", [("--no-browser",), ("--browser", "true")], ids=["no browser", "browser"])
def test_a_site_that_is_down_is_not_waited_for_until_the_time_limit(
    program: Program, options: tuple[str, ...]
) -> None:
    with CellsServer() as server:
        store_session(server, program.config_dir)
    event = last_event(program, *options)
    assert (event["exit_code"], event["code"]) == (7, "refused")


@pytest.mark.parametrize(
    ("discovery", "exit_code", "code"),
    [
        pytest.param(
            {"issuer": "https://elsewhere.example/oidc/"}, 9, "issuer_mismatch", id="another issuer"
        ),
        pytest.param({"token_endpoint": "https://elsewhere.example/x"}, 9, "foreign_endpoint", id="foreign"),
        pytest.param({"authorization_endpoint": None}, 5, "not_a_cells_server", id="not Cells any more"),
    ],
)
def test_a_site_that_has_become_another_is_told_at_once(
    server: CellsServer, program: Program, discovery: dict[str, Any], exit_code: int, code: str
) -> None:
    store_session(server, program.config_dir)
    server.behaviour = Behaviour(discovery=discovery)
    event = last_event(program, "--no-browser")
    assert (event["exit_code"], event["code"]) == (exit_code, code)


def test_the_browser_that_was_opened_shows_why(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir)
    server.behaviour = Behaviour(issuer="https://elsewhere.example/oidc/")
    login = desktop.log_in(program, server, "-p", "work", "--force")
    assert login.exit_code == 9
    assert "https://elsewhere.example" in login.shown


def test_a_server_that_stumbles_once_costs_nobody_a_login(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir)
    server.fault("discovery", Fault(status=503))
    assert desktop.log_in(program, server, "-p", "work", "--force").exit_code == 0


@pytest.mark.parametrize("endpoint", ["authorization_endpoint", "token_endpoint"])
def test_an_endpoint_that_has_moved_is_found_where_it_is(
    server: CellsServer, program: Program, desktop: Desktop, endpoint: str
) -> None:
    profile = store_session(server, program.config_dir)
    moved = replace(profile.metadata, **{endpoint: server.site + GONE})
    write_session(program.config_dir, replace(profile, metadata=moved))
    login = desktop.log_in(program, server, "-p", "work", "--force")
    assert (login.exit_code, login.error) == (0, "")
    assert GONE not in program.profile_path("work").read_text()
