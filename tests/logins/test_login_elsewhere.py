"""The browser is on another machine: the server's own page, a pasted address, SSH."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from desktop import address_elsewhere, ended
from own_network import OWN_NETWORK, PORTS
from program import finish
from requires import thorough
from sessions import store_session, write_session
from terminal_window import TerminalWindow

from cells_loopback.loopback.listener import LOOPBACK, is_listening
from cells_loopback.protocol.client import CELLS_SYNC
from cells_loopback.testing import Behaviour

if TYPE_CHECKING:
    from desktop import Attempt, Desktop
    from program import Program

    from cells_loopback.testing import CellsServer

pytestmark = OWN_NETWORK

SSH = {"SSH_CONNECTION": "198.51.100.7 50000 203.0.113.9 2222"}
CODE = re.compile(r'<code id="code">([^<]+)</code>')


def name_of(server: CellsServer) -> str:
    return urlsplit(server.site).netloc


def shown_address(process: subprocess.Popen[str]) -> str:
    """Read stderr up to the line that is an address and nothing else."""
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        if line.startswith("http"):
            return line.removesuffix("\n")
        told.append(line)
    raise AssertionError("no address was shown: " + "".join(told))


def shown_code(server: CellsServer, address: str) -> str:
    """Log in at an address and return what the server's own page shows at the end."""
    found = CODE.search(server.sign_in(address).text)
    assert found is not None
    return found[1]


def start_pasting(program: Program, server: CellsServer, *options: str) -> subprocess.Popen[str]:
    return program.start("login", server.site, "--paste", *options, stdin=subprocess.PIPE)


def paste(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


# The server's own copy-paste page


@pytest.mark.parametrize(
    ("behaviour", "pages", "recorded"),
    [
        pytest.param(Behaviour(), 1, "bound", id="bound"),
        pytest.param(Behaviour(pkce="unbound", nonce="dropped"), 1, "unbound", id="unbound", marks=thorough),
        pytest.param(Behaviour(pkce="foreign", nonce="dropped"), 2, "foreign", id="foreign"),
    ],
)
def test_the_code_of_the_servers_own_page_is_pasted(
    server: CellsServer, program: Program, behaviour: Behaviour, pages: int, recorded: str
) -> None:
    server.behaviour = behaviour
    login = start_pasting(program, server)
    for _ in range(pages):
        address = shown_address(login)
        assert parse_qs(urlsplit(address).query)["redirect_uri"] == [f"{server.site}/oauth2/oob"]
        assert not any(is_listening(loopback, port) for loopback in LOOPBACK for port in PORTS)
        paste(login, shown_code(server, address))
    end = ended(finish(login))

    assert end.exit_code == 0, end.stderr
    assert end.stdout == ""
    assert f"logged in to {server.site} as alice" in end.stderr
    assert program.read_profile(name_of(server))["pkce_binding"] == recorded


def test_the_person_is_told_where_to_paste(server: CellsServer, program: Program) -> None:
    login = start_pasting(program, server)
    assert login.stderr is not None
    assert login.stderr.readline() == "open this address in a browser, on any machine:\n"
    address = shown_address(login)
    assert login.stderr.readline() == "\n"
    assert login.stderr.readline() == "and paste here the code that it shows at the end:\n"
    paste(login, f"   {shown_code(server, address)}  ")
    assert finish(login).returncode == 0


def test_the_address_of_that_page_is_taken_too(server: CellsServer, program: Program) -> None:
    login = start_pasting(program, server)
    paste(login, server.sign_in(shown_address(login)).url)
    assert finish(login).returncode == 0


def test_without_a_stdin_there_is_nobody_to_paste_a_code(server: CellsServer, program: Program) -> None:
    login = program.start("login", server.site, "--paste", under=("sh", "-c", 'exec "$@" <&-', "sh"))
    end = ended(finish(login))
    assert (end.exit_code, end.error) == (5, "there is nobody to paste the code")
    assert "Traceback" not in end.stderr


def test_without_a_stderr_a_login_goes_on(server: CellsServer, program: Program) -> None:
    silent = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    login = program.start("login", server.site, "--no-browser", "--json", under=silent)
    assert login.stdout is not None
    server.sign_in(json.loads(login.stdout.readline())["url"])
    assert finish(login).returncode == 0

    quiet = program.start("login", server.site, "--no-browser", "--force", "--timeout", "1", under=silent)
    assert finish(quiet).returncode == 6


def test_the_address_of_another_login_is_not(server: CellsServer, program: Program) -> None:
    others = start_pasting(program, server, "-p", "other")
    address = server.sign_in(shown_address(others)).url
    login = start_pasting(program, server)
    shown_address(login)
    paste(login, address)
    end = ended(finish(login))
    finish(others, "\n")
    assert end.exit_code == 9
    assert "its state is another" in end.error
    assert server.count("exchange") == 0
    assert not program.profile_path(name_of(server)).exists()


@pytest.mark.parametrize(
    ("line", "exit_code", "words"),
    [
        pytest.param("no-such-code\n", 5, "the server refused the code: invalid_grant", id="wrong-code"),
        pytest.param("", 5, "no code was pasted", id="end-of-input", marks=thorough),
        pytest.param("\n  \n", 5, "no code was pasted", id="empty-lines"),
    ],
)
def test_what_is_no_code_ends_the_login(
    server: CellsServer, program: Program, line: str, exit_code: int, words: str
) -> None:
    end = ended(program.run("login", server.site, "--paste", given=line))
    assert (end.exit_code, end.stdout) == (exit_code, "")
    assert words in end.error
    assert "no-such-code" not in end.stderr
    assert not program.profile_path(name_of(server)).exists()


def test_a_session_of_the_sync_client_is_followed_by_one_of_a_client_with_that_page(
    server: CellsServer, program: Program
) -> None:
    store_session(server, program.config_dir, client=replace(CELLS_SYNC, scope="openid offline"))
    login = start_pasting(program, server, "-p", "work", "--force")
    paste(login, shown_code(server, shown_address(login)))
    assert finish(login).returncode == 0
    client = program.read_profile("work")["client"]
    assert (client["client_id"], client["scope"], client["redirect_uri"]) == (
        "cells-client", "openid offline", None,
    )  # fmt: skip


def test_what_the_last_login_remembered_is_not_relied_on(server: CellsServer, program: Program) -> None:
    profile = store_session(server, program.config_dir)
    moved = replace(profile.metadata, token_endpoint=f"{server.site}/oidc/oauth2/moved")
    write_session(program.config_dir, replace(profile, metadata=moved))
    login = start_pasting(program, server, "-p", "work", "--force")
    paste(login, shown_code(server, shown_address(login)))
    assert finish(login).returncode == 0


def test_a_program_that_follows_may_paste_as_well(server: CellsServer, program: Program) -> None:
    login = start_pasting(program, server, "--json")
    assert login.stdout is not None
    announced = json.loads(login.stdout.readline())
    assert announced["redirect_uri"] == f"{server.site}/oauth2/oob"
    paste(login, shown_code(server, announced["url"]))
    done = finish(login)
    kinds = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert kinds == ["callback_received", "token_received", "logged_in"]
    assert done.stderr == ""


# An address pasted at the terminal that waits for the browser


def in_terminal(program: Program, *arguments: str, **environment: str) -> TerminalWindow:
    return TerminalWindow(program.command(*arguments), {**program.environment, **environment})


def test_the_address_that_a_browser_elsewhere_ended_at_is_pasted(
    server: CellsServer, program: Program
) -> None:
    with in_terminal(program, "login", server.site, "--no-browser") as window:
        address = window.wait_for_line("http://")
        window.wait_for("or open it anywhere, and paste here the address that the browser ends at")
        window.type(address_elsewhere(server, address) + "\r")
        assert window.wait() == 0, window.seen
        assert f"logged in to {server.site} as alice" in window.seen


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda address: re.sub("state=.", "state=", address), id="another-state"),
        pytest.param(lambda address: address.partition("&state")[0], id="no-state", marks=thorough),
        pytest.param(lambda address: address.replace("3000", "3001"), id="another-port", marks=thorough),
        pytest.param(lambda address: address + "&state=x", id="two-states", marks=thorough),
        pytest.param(lambda _address: "hello", id="something-else"),
    ],
)
def test_any_other_line_is_turned_away_and_the_login_goes_on(
    server: CellsServer, program: Program, change: object
) -> None:
    assert callable(change)
    with in_terminal(program, "login", server.site, "--no-browser") as window:
        address = address_elsewhere(server, window.wait_for_line("http://"))
        window.type(change(address) + "\r")
        window.wait_for("that is not the address this login waits for; it goes on waiting")
        assert server.count("exchange") == 0
        window.type(address + "\r")
        assert window.wait() == 0, window.seen


def test_after_a_pasted_answer_a_second_authorization_is_shown_too(
    server: CellsServer, program: Program
) -> None:
    server.behaviour = Behaviour(pkce="foreign", nonce="dropped")
    with in_terminal(program, "login", server.site, "--no-browser") as window:
        address = window.wait_for_line(server.site)
        window.seen = ""
        window.type(address_elsewhere(server, address) + "\r")
        second = window.wait_for_line(server.site)
        assert "code_challenge" not in second
        window.type(address_elsewhere(server, second) + "\r")
        assert window.wait() == 0, window.seen
    assert program.read_profile(name_of(server))["pkce_binding"] == "foreign"


def test_a_pasted_refusal_ends_the_login(server: CellsServer, program: Program) -> None:
    server.behaviour = Behaviour(consent=True)
    with in_terminal(program, "login", server.site, "--no-browser") as window:
        address = window.wait_for_line("http://")
        window.type(address_elsewhere(server, address, consent="deny") + "\r")
        assert window.wait() == 5
        assert "error: the login was refused: access_denied" in window.seen


def test_the_browser_may_come_while_the_terminal_waits(server: CellsServer, program: Program) -> None:
    with in_terminal(program, "login", server.site, "--no-browser") as window:
        server.sign_in(window.wait_for_line("http://"))
        assert window.wait() == 0, window.seen


def test_a_job_in_the_background_does_not_stop_at_its_terminal(server: CellsServer, program: Program) -> None:
    command = program.command("login", server.site, "--no-browser")
    shell = ["/bin/sh", "-c", 'set -m; "$@" & wait $!', "sh", *command]
    with TerminalWindow(shell, program.environment) as window:
        server.sign_in(window.wait_for_line("http://"))
        assert window.wait() == 0, window.seen


# SSH


def test_over_ssh_the_person_is_told_what_to_run_where(server: CellsServer, program: Program) -> None:
    login = program.start("login", server.site, environment=SSH)
    assert login.stderr is not None
    told = [login.stderr.readline() for _ in range(4)]
    server.sign_in(shown_address(login))
    assert finish(login).returncode == 0

    assert told[0] == "warning: no browser: this is an SSH session without a display\n"
    assert told[1] == "on the machine where your browser is, run this first:\n"
    assert re.fullmatch(r"  ssh -p 2222 -L 3000:localhost:3000 \S+@203\.0\.113\.9\n", told[2])
    assert told[3] == "then open this address there:\n"


def test_the_port_in_that_line_is_the_one_that_was_bound(server: CellsServer, program: Program) -> None:
    options = ("--client-id", "any-port", "--redirect-uri", "http://127.0.0.1:0/servers/callback")
    login = program.start("login", server.site, *options, environment=SSH)
    assert login.stderr is not None
    told = "".join(login.stderr.readline() for _ in range(4))
    address = shown_address(login)
    login.terminate()
    finish(login)
    port = urlsplit(parse_qs(urlsplit(address).query)["redirect_uri"][0]).port
    assert f"-L {port}:localhost:{port} " in told


def test_without_a_terminal_nobody_is_asked_to_paste(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    login = program.start("login", server.site, "--no-browser")
    server.sign_in(shown_address(login))
    end: Attempt = ended(finish(login))
    assert end.exit_code == 0
    assert "paste" not in end.stderr
    assert desktop.opened_pages() == []
