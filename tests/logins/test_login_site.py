"""A site in every form that people type it, and everything that is not a Cells server.

How slow answers are cut off is tested where the limits can be shortened: see `test_site_discovery` and
`test_transport`.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from own_network import OWN_NETWORK, add_address, require_own_network
from program import finish

from cells_loopback.testing import Behaviour, CellsServer, Fault

if TYPE_CHECKING:
    from program import Program

pytestmark = OWN_NETWORK

DISCOVERY = "/oidc/.well-known/openid-configuration"


def first_event(program: Program, *arguments: str) -> dict[str, Any]:
    """Start a login that opens nothing, and give it up after its first event."""
    login = program.start("login", *arguments, "--json", "--no-browser")
    assert login.stdout is not None
    line = login.stdout.readline()
    login.terminate()
    finish(login)
    event: dict[str, Any] = json.loads(line)
    return event


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param("http://{place}", id="url"),
        pytest.param("http://{place}/", id="slash"),
        pytest.param("http://{place}/oidc", id="issuer"),
        pytest.param("http://{place}/oidc/", id="issuer-with-slash"),
        pytest.param("http://{place}" + DISCOVERY, id="discovery-url"),
        pytest.param("HTTP://{PLACE}/", id="upper-case"),
        pytest.param("{place}", id="host-and-port"),
        pytest.param("  {place}/oidc/\n", id="white-space"),
    ],
)
def test_every_form_means_the_same_server(server: CellsServer, program: Program, typed: str) -> None:
    place = urlsplit(server.site).netloc
    event = first_event(program, typed.format(place=place, PLACE=place.upper()))
    assert event["event"] == "authorization_url", event
    assert event["url"].startswith(server.site + "/oidc/oauth2/auth?")


@pytest.mark.parametrize("typed", ["{place}", "https://{place}/oidc/"], ids=["no-scheme", "issuer"])
def test_https_is_found_first(program: Program, typed: str) -> None:
    with CellsServer(tls=True) as server:
        place = urlsplit(server.site).netloc
        event = first_event(program, typed.format(place=place), "--ca-bundle", server.ca_file or "")
        assert event["event"] == "authorization_url", event
        assert event["url"].startswith(server.site)


@pytest.mark.parametrize("typed", ["[::1]:{port}", "::1", "http://[0:0:0:0:0:0:0:1]:{port}"])
def test_ipv6_literals(program: Program, typed: str) -> None:
    require_own_network()
    with CellsServer(host="[::1]", port=0 if "port" in typed else 80) as server:
        event = first_event(program, typed.format(port=urlsplit(server.site).port))
        assert event["event"] == "authorization_url", event
        assert urlsplit(event["url"]).hostname == "::1"


# Other machines


@pytest.mark.parametrize(
    ("typed", "options", "code"),
    [
        pytest.param("{host}:{port}", (), "no_tls", id="no-scheme-is-https"),
        pytest.param("http://{host}:{port}", (), "plain_http", id="http"),
        pytest.param("http://{host}:{port}", ("--insecure",), "", id="http-insecure"),
    ],
)
def test_clear_text_to_another_machine_is_a_choice(
    program: Program, typed: str, options: tuple[str, ...], code: str
) -> None:
    require_own_network()
    add_address("192.0.2.1")
    with CellsServer(host="192.0.2.1") as server:
        site = typed.format(host="192.0.2.1", port=urlsplit(server.site).port)
        event = first_event(program, site, *options)
        assert event.get("code", "") == code, event
        assert server.count("discovery") == (not code), "nothing is sent before that is known"


# Whatever is no Cells server

FAULTS = {
    "html": Fault(status=200, headers={"Content-Type": "text/html"}, body="<!doctype html><p>Hello"),
    "not-found": Fault(status=404, body="not here"),
    "another-json": Fault(status=200, body='{"hello": "world"}'),
    "a-json-list": Fault(status=200, body="[]"),
    "forbidden": Fault(status=403),
    "redirected": Fault(status=302, headers={"Location": "https://cells.example.com/"}),
    "starting": Fault(status=503, headers={"Retry-After": "120"}),
    "behind-a-proxy": Fault(status=502, headers={"Content-Type": "text/html"}, body="<h1>Bad Gateway"),
    "oversized": Fault(padding=3 << 20),
    "cut": Fault(drop="after"),
}

NO_SERVER = """
what                exit  code               message                          hint
html                5     not_a_cells_server is not a Cells server            opens Cells in a browser
not-found           5     not_a_cells_server it answers 404                   opens Cells in a browser
another-json        5     not_a_cells_server names no issuer                  opens Cells in a browser
a-json-list         5     not_a_cells_server not with a discovery document    opens Cells in a browser
forbidden           5     not_a_cells_server it answers 403                   opens Cells in a browser
redirected          5     redirected         to https://cells.example.com     cells-loopback login https://cells
starting            7     status_503         asks to wait 120 s               try again later
behind-a-proxy      7     status_502         it answers 502                   try again later
oversized           9     answer_too_large   more than 1 MiB                  check the address
cut                 7     connection_lost    broke before the answer          try again
"""
ROWS = [
    (line[:20].strip(), int(line[20:26]), line[26:45].strip(), line[45:78].strip(), line[78:].strip())
    for line in NO_SERVER.strip().splitlines()[1:]
]


def failure(program: Program, site: str, *options: str) -> dict[str, Any]:
    """Return the only event of a login that opens no browser, and hold it to its time and its files."""
    started = time.monotonic()
    done = program.run("login", site, "--json", *options)
    assert time.monotonic() - started < 15
    (line,) = done.stdout.splitlines()
    event: dict[str, Any] = json.loads(line)
    assert event["exit_code"] == done.returncode
    assert done.stderr == f"error: {event['message']}\nhint: {event['hint']}\n"
    profiles = program.config_dir / "profiles"
    assert not profiles.exists() or list(profiles.iterdir()) == []
    return event


@pytest.mark.parametrize(("what", "exit_code", "code", "message", "hint"), ROWS, ids=[row[0] for row in ROWS])
def test_each_failure_has_its_own_words(
    server: CellsServer, program: Program, what: str, exit_code: int, code: str, message: str, hint: str
) -> None:
    server.fault("discovery", FAULTS[what])
    server.fault("discovery", FAULTS[what])  # what the quick way cannot explain is asked for once more
    event = failure(program, server.site)
    assert (event["exit_code"], event["code"]) == (exit_code, code)
    assert message in event["message"]
    assert hint in event["hint"]


def test_a_host_that_does_not_exist(program: Program) -> None:
    event = failure(program, "no-such-host.invalid")
    assert (event["exit_code"], event["code"]) == (7, "host_not_found")
    assert "no-such-host.invalid" in event["message"]
    assert "spelling" in event["hint"]


def test_a_port_on_which_nobody_listens(program: Program) -> None:
    event = failure(program, "https://localhost:9")
    assert (event["exit_code"], event["code"]) == (7, "refused")
    assert "nothing listens on port 9" in event["message"]


def test_something_that_is_not_http(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ssh:
        ssh.settimeout(10)

        def greet() -> None:
            for _ in range(2):
                connection, _ = ssh.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    connection.recv(1000)

        thread = threading.Thread(target=greet)
        thread.start()
        event = failure(program, f"http://127.0.0.1:{ssh.getsockname()[1]}")
        thread.join()
    assert (event["exit_code"], event["code"]) == (7, "connection_lost")


def test_an_issuer_of_another_host_is_not_trusted(server: CellsServer, program: Program) -> None:
    server.behaviour = Behaviour(issuer="https://elsewhere.example/oidc/")
    event = failure(program, server.site)
    assert (event["exit_code"], event["code"]) == (9, "issuer_mismatch")
    assert "cells-loopback login https://elsewhere.example" in event["hint"]


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_an_endpoint_of_another_origin_is_not_trusted(
    server: CellsServer, program: Program, name: str
) -> None:
    server.behaviour = Behaviour(discovery={name: "https://elsewhere.example/oidc/x"})
    event = failure(program, server.site)
    assert (event["exit_code"], event["code"]) == (9, "foreign_endpoint")
    assert name in event["message"]


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ftp://files.example.com",
        "files.example.com/login",
        "user:open-sesame@files.example.com",
        "files.example.com?x=1",
        "files.example.com:99999",
        "files example.com",
        "[::1",
    ],
)
def test_anything_else_is_wrong_usage_and_shows_a_right_form(program: Program, typed: str) -> None:
    done = program.run("login", typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert "hint: give a site like files.example.com or https://files.example.com:8443" in done.stderr
    assert "open-sesame" not in done.stderr
