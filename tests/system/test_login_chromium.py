"""The login as a person has it: the installed command, a real headless Chromium, the embedded server."""

from __future__ import annotations

import os
import signal
import socket
import stat
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from chromium import ChromiumPerson
from own_network import OWN_NETWORK
from program import Program, finish
from requires import thorough

from cells_loopback.testing import Behaviour, CellsServer

if TYPE_CHECKING:
    from pathlib import Path

    from chromium import ChromiumReport

pytestmark = OWN_NETWORK


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def person(tmp_path: Path, server: CellsServer) -> ChromiumPerson:
    return ChromiumPerson(tmp_path, server.user.name, server.user.password)


def ports_of(report: ChromiumReport, server: CellsServer) -> set[int]:
    """The ports other than the server's that the browser came to: those of the callback server."""
    ports = {urlsplit(url).port or 80 for url in report.requests}
    return ports - {urlsplit(server.site).port}


def is_free(port: int) -> bool:
    """Whether nobody listens there, on neither loopback family."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as probe:
            if probe.connect_ex((address, port)) == 0:
                return False
    return True


def test_a_person_logs_in_with_chromium(
    server: CellsServer, program: Program, person: ChromiumPerson
) -> None:
    login = program.run("login", server.site, *person.browser())
    report = person.report()
    name = urlsplit(server.site).netloc

    assert (login.returncode, login.stdout) == (0, ""), login.stderr
    assert f"logged in to {server.site} as alice (profile {name})" in login.stderr

    assert report.finished
    assert report.clicks == ["log in"]
    assert "You are logged in" in report.text
    assert f"alice at {server.site}" in report.text
    assert report.console_errors == []

    profile = program.read_profile(name)
    path = program.profile_path(name)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
    assert (profile["version"], profile["site"], profile["user"]["name"]) == (1, server.site, "alice")
    assert profile["token"]["access_token"] in server.access_tokens()

    assert server.count("exchange") == 1
    (port,) = ports_of(report, server)
    assert is_free(port)


@thorough
def test_neither_address_bar_nor_history_nor_page_holds_the_code(
    server: CellsServer, program: Program, person: ChromiumPerson
) -> None:
    program.run("login", server.site, *person.browser())
    report = person.report()
    secrets = server.secrets()

    assert urlsplit(report.url).path.startswith("/result/")
    for place in (report.url, report.title, report.text, *report.history):
        assert "code=" not in place
        assert not [secret for secret in secrets if secret in place]
    assert any("code=" in url for url in report.requests), "it was there for one request"


@thorough
def test_the_page_loads_nothing_from_elsewhere(
    server: CellsServer, program: Program, person: ChromiumPerson
) -> None:
    program.run("login", server.site, *person.browser())
    report = person.report()

    hosts = {urlsplit(url).hostname for url in report.requests if not url.startswith("data:")}
    assert hosts == {"localhost"}
    callback = [url for url in report.requests if urlsplit(url).port in ports_of(report, server)]
    assert [urlsplit(url).path.split("/")[1] for url in callback] == ["start", "servers", "result"]


@thorough
def test_a_browser_that_is_still_logged_in_needs_no_click(
    server: CellsServer, program: Program, person: ChromiumPerson
) -> None:
    program.run("login", server.site, *person.browser())
    person.report()
    before = program.output("token")

    again = program.run("login", server.site, "--force", *person.browser())
    report = person.report()

    assert again.returncode == 0, again.stderr
    assert (report.finished, report.clicks) == (True, [])
    assert program.output("token") != before


@thorough
def test_a_wrong_password_stays_with_the_server_and_an_interrupt_leaves_nothing(
    server: CellsServer, program: Program, person: ChromiumPerson
) -> None:
    login = program.start("login", server.site, *person.browser(password="wrong"))
    report = person.report()
    login.send_signal(signal.SIGINT)
    done = finish(login)

    assert not report.finished
    assert "Wrong user name or password" in report.text
    assert (done.returncode, done.stdout) == (130, "")
    assert not program.profile_path(urlsplit(server.site).netloc).exists()
    assert all(is_free(port) for port in ports_of(report, server))


@thorough
def test_refused_consent_is_said_in_the_browser_and_in_the_terminal(
    server: CellsServer, program: Program, person: ChromiumPerson
) -> None:
    server.behaviour = Behaviour(consent=True)
    login = program.run("login", server.site, *person.browser("--decline"))
    report = person.report()

    assert login.returncode == 5
    assert login.stderr.splitlines()[-2].startswith("error: the login was refused")
    assert report.clicks == ["log in", "refuse"]
    assert "The login failed" in report.text
    assert "The login was refused" in report.text
    assert not program.profile_path(urlsplit(server.site).netloc).exists()


@pytest.mark.parametrize(
    ("behaviour", "exchanges", "authorizations"),
    [
        pytest.param(Behaviour(pkce="unbound", nonce="dropped"), 2, 1, id="unbound"),
        pytest.param(Behaviour(pkce="foreign", nonce="dropped"), 2, 2, id="foreign"),
    ],
)
@thorough
def test_where_pkce_is_lost_the_same_window_gets_through_with_a_warning(
    behaviour: Behaviour,
    exchanges: int,
    authorizations: int,
    server: CellsServer,
    program: Program,
    person: ChromiumPerson,
) -> None:
    server.behaviour = behaviour
    login = program.run("login", server.site, *person.browser())
    report = person.report()

    assert login.returncode == 0, login.stderr
    assert "warning: this server" in login.stderr
    assert report.clicks == ["log in"]
    assert "You are logged in" in report.text
    assert server.count("exchange") == exchanges
    assert sum("/oidc/oauth2/auth?" in url for url in report.requests) == authorizations
    assert program.read_profile(urlsplit(server.site).netloc)["pkce_binding"] == behaviour.pkce


@thorough
def test_a_page_of_an_https_site_may_send_chromium_to_the_callback(tmp_path: Path, program: Program) -> None:
    with CellsServer(tls=True, behaviour=Behaviour(redirect_by="script")) as server:
        assert server.ca_file is not None
        person = ChromiumPerson(tmp_path, server.user.name, server.user.password)
        trust = ("--ca-bundle", server.ca_file)
        login = program.run("login", server.site, *trust, *person.browser("--insecure"))
        report = person.report()

    assert login.returncode == 0, login.stderr
    assert "You are logged in" in report.text
    assert urlsplit(report.url).scheme == "http"
    assert report.console_errors == []
