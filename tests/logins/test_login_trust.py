"""Certificates, and proxies: whom a login believes, and through whom it speaks."""

from __future__ import annotations

import json
import select
import shutil
import socket
import ssl
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler

import pytest
from own_network import OWN_NETWORK, add_address, require_own_network
from requires import thorough

from cells_loopback.testing import Browser, CellsServer, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from desktop import Desktop
    from program import Program

    from cells_loopback.testing import Page
    from cells_loopback.testing.certificates import Certificate

pytestmark = OWN_NETWORK


def name_of(server: CellsServer) -> str:
    return urlsplit(server.site).netloc


def own_certificate(server: CellsServer, directory: Path) -> str:
    """Write down the certificate that the server itself shows, as an administrator would."""
    parts = urlsplit(server.site)
    path = directory / "server.pem"
    path.write_text(ssl.get_server_certificate((parts.hostname or "", parts.port or 443)))
    return str(path)


@pytest.fixture
def self_signed() -> Iterator[CellsServer]:
    """A default install."""
    with CellsServer(tls="self-signed") as server:
        yield server


def test_a_default_install_is_refused_with_the_three_ways_out(
    self_signed: CellsServer, program: Program, desktop: Desktop
) -> None:
    login = desktop.log_in(program, self_signed)
    assert (login.exit_code, login.page, login.stdout) == (9, None, "")
    assert login.error.startswith(f"the certificate of {self_signed.site} is not trusted: self")
    assert "the system's store" in login.hint
    assert "--ca-bundle FILE" in login.hint
    assert "--insecure" in login.hint
    assert self_signed.requests == []


@pytest.mark.parametrize("way", ["the-store", "--ca-bundle", "--insecure"])
def test_each_of_the_three_ways_leads_out(
    self_signed: CellsServer, program: Program, desktop: Desktop, tmp_path: Path, way: str
) -> None:
    certificate = own_certificate(self_signed, tmp_path)
    environment = {"SSL_CERT_FILE": certificate} if way == "the-store" else {}
    options = {"--ca-bundle": ("--ca-bundle", certificate), "--insecure": ("--insecure",)}.get(way, ())

    def person(url: str) -> Page:
        return self_signed.sign_in(url, browser=Browser(certificate))

    login = desktop.log_in(program, self_signed, *options, person=person, environment=environment)

    assert login.exit_code == 0, login.stderr
    assert "You are logged in" in login.shown
    renewal = program.run("token", "--refresh", environment=environment)
    assert renewal.returncode == 0, renewal.stderr
    if way == "--insecure":
        assert login.warnings == ["certificates are not checked: anybody in between can read the token"]
        assert "(certificates are not checked: --insecure)" in program.output("status")
        assert json.loads(program.output("status", "--json"))[0]["insecure"] is True
    else:
        assert login.warnings == []
        assert json.loads(program.output("status", "--json"))[0]["insecure"] is False


def test_the_bundle_is_remembered_wherever_the_next_command_runs(
    program: Program, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CellsServer(tls=True) as server:
        assert server.ca_file is not None
        shutil.copy(server.ca_file, tmp_path / "ca.pem")
        monkeypatch.chdir(tmp_path)
        assert desktop.log_in(program, server, "--ca-bundle", "ca.pem").exit_code == 0
        monkeypatch.chdir("/")
        program.output("token", "--refresh")
        assert desktop.log_in(program, server, "--force").exit_code == 0


@pytest.mark.parametrize(("kind", "words"), [("expired", "expired"), ("other-host", "'localhost'")])
def test_a_bad_certificate_of_a_trusted_authority_is_refused(
    program: Program, desktop: Desktop, kind: Certificate, words: str
) -> None:
    with CellsServer(tls=kind) as server:
        login = desktop.log_in(program, server, "--ca-bundle", server.ca_file or "")
    assert login.exit_code == 9
    assert words in login.error


@pytest.mark.parametrize("content", [None, "no certificate", ""], ids=["missing", "text", "empty"])
def test_a_bundle_that_is_none_is_told(
    self_signed: CellsServer, program: Program, desktop: Desktop, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    login = desktop.log_in(program, self_signed, "--ca-bundle", str(path))
    assert login.exit_code == 9
    assert login.error.startswith(f"cannot read the certificates in {path}: ")
    assert "--ca-bundle FILE" in login.hint


# Proxies


class Proxy(BaseHTTPRequestHandler):
    """A proxy that forwards plain requests, makes tunnels, and notes whom it was asked for."""

    asked_for: list[str]

    def do_GET(self) -> None:
        self._forward(None)

    def do_POST(self) -> None:
        self._forward(self.rfile.read(int(self.headers["Content-Length"])))

    def do_CONNECT(self) -> None:
        self.asked_for.append(self.path)
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as there:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: there, there: self.connection}
            while True:
                for ready in select.select(list(ends), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    ends[ready].sendall(data)

    def _forward(self, body: bytes | None) -> None:
        self.asked_for.append(self.path)
        parts = urlsplit(self.path)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(self.command, target, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a proxy and the list of what it was asked for."""
    asked_for: list[str] = []
    handler = type("ThisProxy", (Proxy,), {"asked_for": asked_for})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked_for
        server.shutdown()
        thread.join()


VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def test_no_proxy_ever_stands_before_this_machine(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    with proxy() as (address, asked_for):
        login = desktop.log_in(program, server, environment=dict.fromkeys(VARIABLES, address))
        refreshed = program.run("token", "--refresh", environment=dict.fromkeys(VARIABLES, address))
    assert (login.exit_code, refreshed.returncode) == (0, 0), login.stderr
    assert asked_for == []


@pytest.mark.parametrize(
    "bypassed", [False, pytest.param(True, marks=thorough)], ids=["through-it", "NO_PROXY"]
)
def test_another_machine_is_reached_through_the_proxy(
    program: Program, desktop: Desktop, bypassed: bool
) -> None:
    require_own_network()
    add_address("192.0.2.1")
    with CellsServer(host="192.0.2.1") as server, proxy() as (address, asked_for):
        environment = {"HTTP_PROXY": address, "NO_PROXY": "192.0.2.1" if bypassed else ""}
        login = desktop.log_in(program, server, "--insecure", environment=environment)
        assert login.exit_code == 0, login.stderr
        paths = {urlsplit(url).path for url in asked_for}
    expected = {"/oidc/.well-known/openid-configuration", "/oidc/.well-known/jwks.json", "/oidc/oauth2/token"}
    assert paths == (set() if bypassed else expected)


class CarelessHandler(HTTPSHandler):
    handler_order = 1  # before the one of the browser


class CarelessBrowser(Browser):
    """A browser whose person clicks every warning about certificates away."""

    def __init__(self) -> None:
        super().__init__()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._opener.add_handler(CarelessHandler(context=context))


def test_an_https_site_is_reached_through_a_tunnel(program: Program, desktop: Desktop) -> None:
    require_own_network()
    add_address("192.0.2.1")
    with CellsServer(host="192.0.2.1", tls=True) as server, proxy() as (address, asked_for):

        def person(url: str) -> Page:
            return server.sign_in(url, browser=CarelessBrowser())

        environment = {"HTTPS_PROXY": address}
        login = desktop.log_in(program, server, "--insecure", person=person, environment=environment)
        assert login.exit_code == 0, login.stderr
    assert set(asked_for) == {urlsplit(server.site).netloc}


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        pytest.param("http://127.0.0.1:1", "127.0.0.1:1 cannot be reached", id="refused"),
        pytest.param("socks5://127.0.0.1:1", "SOCKS", id="socks", marks=thorough),
        pytest.param("not a proxy", "", id="no-address"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    program: Program, desktop: Desktop, variable: str, words: str
) -> None:
    require_own_network()
    add_address("192.0.2.1")
    variable = variable.replace("//", "//user:open-sesame@")
    with CellsServer(host="192.0.2.1") as server:
        login = desktop.log_in(program, server, "--insecure", environment={"HTTP_PROXY": variable})
        assert server.requests == []
    assert login.exit_code == 7
    assert login.error.startswith(f"the proxy on the way to {server.site} cannot be used")
    assert words in login.error
    assert "HTTPS_PROXY" in login.hint
    assert "open-sesame" not in login.stderr


def test_a_server_that_fails_for_a_moment_is_asked_again(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.fault("exchange", Fault(status=503, times=1))
    login = desktop.log_in(program, server)
    assert login.exit_code == 0, login.stderr
    assert server.count("exchange") == 2
