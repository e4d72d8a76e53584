"""However a login ends, it leaves nothing behind; and a program that follows it is told, last of all, how."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from desktop import ended
from own_network import OWN_NETWORK
from program import finish
from requires import thorough
from sessions import store_session
from terminal_window import TerminalWindow

from cells_loopback.loopback.listener import LOOPBACK, is_listening
from cells_loopback.testing import Behaviour, Browser, Fault

if TYPE_CHECKING:
    from pathlib import Path

    from desktop import Desktop
    from program import Program

    from cells_loopback.testing import CellsServer

pytestmark = OWN_NETWORK

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def nobody_listens() -> bool:
    return not any(is_listening(address, port) for address in LOOPBACK for port in (3000, 3636))


# Nothing is left behind


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_the_person_logs_in(
    server: CellsServer, program: Program, desktop: Desktop, number: signal.Signals
) -> None:
    store_session(server, program.config_dir)
    before = files_in(program.config_dir)
    login = program.start("login", server.site, "-p", "work", "--force", "--browser", desktop.browser)
    browser = Browser()
    browser.open(desktop.opened(login))
    login.send_signal(number)
    done = finish(login)

    assert done.returncode == SIGNALS[number], done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert files_in(program.config_dir) == before
    assert nobody_listens()


@pytest.mark.parametrize("kind", [pytest.param("discovery", marks=thorough), "jwks"])
def test_a_signal_while_the_server_is_slow(
    server: CellsServer, program: Program, desktop: Desktop, kind: str
) -> None:
    answer = threading.Event()
    server.fault(kind, Fault(hold=answer))
    login = program.start("login", server.site, "--browser", desktop.browser)
    server.wait_for(kind)
    login.send_signal(signal.SIGTERM)
    done = finish(login)
    answer.set()

    assert done.returncode == 143, done.stderr
    assert nobody_listens()
    assert files_in(program.config_dir) == {}


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_waiting_tab_is_told_that_the_login_was_cancelled(
    server: CellsServer, program: Program, desktop: Desktop, number: signal.Signals
) -> None:
    answer = threading.Event()
    server.fault("exchange", Fault(hold=answer))
    login = program.start("login", server.site, "--browser", desktop.browser)
    url = desktop.opened(login)
    shown: list[str] = []
    person = threading.Thread(target=lambda: shown.append(server.sign_in(url).text))
    person.start()
    server.wait_for("exchange")
    login.send_signal(number)
    done = finish(login)
    person.join()
    answer.set()

    assert done.returncode == SIGNALS[number], done.stderr
    assert "The login was cancelled." in shown[0]
    assert nobody_listens()
    assert files_in(program.config_dir) == {}


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=thorough)], ids=lambda number: number.name
)
def test_a_signal_after_the_session_is_on_the_disk_comes_too_late(
    server: CellsServer, program: Program, desktop: Desktop, number: signal.Signals
) -> None:
    store_session(server, program.config_dir)
    before = program.read_profile("work")
    answer = threading.Event()
    server.fault("revoke", Fault(hold=answer))
    login = program.start("login", server.site, "-p", "work", "--force", "--browser", desktop.browser)
    page = server.sign_in(desktop.opened(login))
    server.wait_for("revoke")
    login.send_signal(number)
    done = finish(login)
    answer.set()

    assert done.returncode == 0, done.stderr
    assert f"logged in to {server.site} as alice" in done.stderr
    assert "Traceback" not in done.stderr
    assert "You are logged in" in page.text
    assert program.read_profile("work")["token"] != before["token"]
    assert nobody_listens()


def test_the_time_limit_ends_a_login_that_nobody_finishes(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    store_session(server, program.config_dir)
    before = files_in(program.config_dir)
    started = time.monotonic()
    done = program.run(
        "login", server.site, "-p", "work", "--force", "--timeout", "1", "--browser", desktop.browser
    )
    end = ended(done)
    assert end.exit_code == 6
    assert 1 <= time.monotonic() - started < 15
    assert end.error == "nobody finished the login within 1 s"
    assert "--timeout SECONDS" in end.hint
    assert files_in(program.config_dir) == before
    assert nobody_listens()


def test_ctrl_c_at_the_terminal(server: CellsServer, program: Program, desktop: Desktop) -> None:
    command = program.command("login", server.site, "--browser", desktop.browser)
    with TerminalWindow(command, program.environment) as window:
        window.wait_for("(Ctrl-C cancels)")
        window.type("\x03")
        assert window.wait() == 130
        assert "Traceback" not in window.seen
    assert nobody_listens()


def test_a_closed_terminal(server: CellsServer, program: Program, desktop: Desktop) -> None:
    command = program.command("login", server.site, "--browser", desktop.browser)
    with TerminalWindow(command, program.environment) as window:
        window.wait_for("(Ctrl-C cancels)")
        window.close()
        assert window.process.wait(15) == 129
    assert nobody_listens()
    assert files_in(program.config_dir) == {}


# Events


def events_of(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def kinds_of(output: str) -> list[str]:
    return [event["event"] for event in events_of(output)]


def test_events_come_in_order_each_with_what_the_contract_says(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    login = desktop.log_in(program, server, "--json")
    assert login.exit_code == 0
    events = events_of(login.stdout)
    assert [event["event"] for event in events] == [
        "authorization_url",
        "browser_opened",
        "callback_received",
        "token_received",
        "logged_in",
    ]
    members = [sorted(event.keys() - {"event"}) for event in events]
    assert members == [
        ["expires_at", "redirect_uri", "time", "url"],
        ["time"],
        ["time"],
        ["time"],
        ["expires_at", "profile", "renewable", "site", "time", "user"],
    ]
    assert events[0]["redirect_uri"] == "http://localhost:3000/servers/callback"
    assert parse_qs(urlsplit(events[0]["url"]).query)["redirect_uri"] == [events[0]["redirect_uri"]]
    assert (events[-1]["user"], events[-1]["site"], events[-1]["renewable"]) == ("alice", server.site, True)
    assert login.stderr == ""
    assert not any(secret in login.stdout for secret in server.secrets())


def test_what_was_turned_away_is_an_event(server: CellsServer, program: Program, desktop: Desktop) -> None:
    login = program.start("login", server.site, "--json", "--no-browser")
    assert login.stdout is not None
    url = json.loads(login.stdout.readline())["url"]
    Browser().open("http://localhost:3000/servers/callback?code=c&state=" + "x" * 43)
    rejected = json.loads(login.stdout.readline())
    server.sign_in(url)
    done = finish(login)
    assert (rejected["event"], rejected["reason"]) == ("callback_rejected", "state_mismatch")
    assert kinds_of(done.stdout) == ["callback_received", "token_received", "logged_in"]


@pytest.mark.parametrize("browser", ["no-such-browser", "/bin/false"], ids=["missing", "failing"])
def test_a_browser_that_does_not_come_up_is_an_event_and_the_login_goes_on(
    server: CellsServer, program: Program, browser: str
) -> None:
    login = program.start("login", server.site, "--json", "--browser", browser)
    assert login.stdout is not None
    url = json.loads(login.stdout.readline())["url"]
    lines = iter(login.stdout.readline, "")
    failed = next(event for event in map(json.loads, lines) if event["event"] == "browser_failed")
    server.sign_in(url)
    done = finish(login)
    assert failed["reason"]
    assert kinds_of(done.stdout)[-1] == "logged_in"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_the_events_with_an_error(
    server: CellsServer, program: Program, number: signal.Signals
) -> None:
    login = program.start("login", server.site, "--json", "--no-browser")
    assert login.stdout is not None
    login.stdout.readline()
    login.send_signal(number)
    done = finish(login)
    (last,) = events_of(done.stdout)
    assert done.returncode == SIGNALS[number]
    assert (last["event"], last["code"], last["exit_code"]) == ("error", "interrupted", SIGNALS[number])
    assert {"message", "hint"} <= last.keys()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        pytest.param(
            ["{site}", "--timeout", "1", "--no-browser"], 6, "timeout", id="time-limit", marks=thorough
        ),
        pytest.param(["ftp://files.example.com"], 2, "usage", id="usage", marks=thorough),
        pytest.param(["{site}", "--timeout", "soon"], 2, "usage", id="usage-of-an-option"),
        pytest.param(["-p", "nobody"], 3, "not_logged_in", id="no-profile"),
        pytest.param(["{site}", "--paste"], 5, "paste", id="paste"),
    ],
)
def test_every_failure_is_the_last_event(
    server: CellsServer, program: Program, arguments: list[str], exit_code: int, code: str
) -> None:
    done = program.run("login", "--json", *(word.format(site=server.site) for word in arguments))
    last = events_of(done.stdout)[-1]
    assert done.returncode == last["exit_code"] == exit_code
    assert (last["event"], last["code"]) == ("error", code)
    assert done.stderr == f"error: {last['message']}\nhint: {last['hint']}\n"


def test_a_session_that_works_is_told_by_one_event(server: CellsServer, program: Program) -> None:
    store_session(server, program.config_dir)
    done = program.run("login", server.site, "-p", "work", "--json")
    assert done.returncode == 0
    assert kinds_of(done.stdout) == ["logged_in"]


def test_a_program_that_stops_reading_ends_the_login_at_once(server: CellsServer, program: Program) -> None:
    login = program.start("login", server.site, "--json", "--no-browser")
    assert login.stdout is not None
    assert json.loads(login.stdout.readline())["event"] == "authorization_url"
    login.stdout.close()
    assert login.wait(15) == 130
    assert login.stderr is not None
    assert login.stderr.read() == ""
    login.stderr.close()
    assert nobody_listens()
    assert files_in(program.config_dir) == {}


def test_a_program_that_stops_reading_after_the_last_event_does_not_matter(
    server: CellsServer, program: Program
) -> None:
    login = program.start("login", server.site, "--json", "--no-browser")
    assert login.stdout is not None
    server.sign_in(json.loads(login.stdout.readline())["url"])
    for line in login.stdout:
        if json.loads(line)["event"] == "logged_in":
            break
    login.stdout.close()
    assert login.wait(15) == 0
    assert login.stderr is not None
    login.stderr.close()


def test_the_input_of_a_program_that_follows_is_its_own(server: CellsServer, program: Program) -> None:
    login = program.start("login", server.site, "--json", "--no-browser", stdin=subprocess.PIPE)
    assert login.stdin is not None
    assert login.stdout is not None
    url = json.loads(login.stdout.readline())["url"]
    login.stdin.write("http://localhost:3000/servers/callback?error=access_denied&state=x\nhello\n")
    login.stdin.flush()
    server.sign_in(url)
    done = finish(login)
    assert done.returncode == 0
    assert kinds_of(done.stdout) == ["callback_received", "token_received", "logged_in"]


def test_a_notice_is_no_event(server: CellsServer, program: Program, desktop: Desktop) -> None:
    server.behaviour = Behaviour(pkce="foreign", nonce="dropped")
    login = desktop.log_in(program, server, "--json")
    assert len(login.warnings) == 1
    assert kinds_of(login.stdout) == [
        "authorization_url",
        "browser_opened",
        "callback_received",
        "callback_received",
        "token_received",
        "logged_in",
    ]
