"""A whole login, through the installed command and a real Chromium, while everything is done against it."""

from __future__ import annotations

import contextlib
import http.server
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import loopback_attackers
import pytest
from chromium import ChromiumPerson
from loopback_client import free_port
from own_network import OWN_NETWORK
from playwright.sync_api import sync_playwright
from program import Program, finish
from requires import require_program, thorough

from cells_loopback.loopback.listener import is_listening
from cells_loopback.testing import Behaviour, CellsServer, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import BrowserContext

CLIENT = "hostile-world"
EVENT_LIMIT = 20.0  # seconds for anything that is waited for
HANDS_OVER_THE_URL = """
import os, sys
with open(sys.argv[1] + ".new", "w") as file:
    file.write(sys.argv[2])
os.replace(sys.argv[1] + ".new", sys.argv[1])
"""
HOSTILE_PAGE = """<!doctype html><title>hostile</title><body><script>
const port = PORT, query = "?code=evil&state=" + "z".repeat(43);
const targets = ["localhost", "127.0.0.1", "[::1]"].flatMap(host =>
    ["/servers/callback" + query, "/servers/callback?error=access_denied", "/start/x", "/"].map(
        path => "http://" + host + ":" + port + path));
let turn = 0;
const next = () => targets[turn++ % targets.length];
const forever = async act => {
    for (;;) {
        try { await act(next()) } catch {}
        await new Promise(done => setTimeout(done, 5));
    }
};
const load = (kind, url) => new Promise(done => {
    const element = document.createElement(kind);
    element.onload = element.onerror = () => { element.remove(); done() };
    element.src = url;
    document.body.append(element);
});
forever(url => fetch(url, {mode: "no-cors"}));
forever(url => fetch(url, {method: "POST", mode: "no-cors", body: "x".repeat(50000)}));
forever(url => fetch(url, {headers: {"X-Custom": "preflight"}}));
forever(url => load("img", url));
forever(url => load("script", url));
forever(url => load("iframe", url));
</script>"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def redirect_uri(port: int) -> str:
    return f"http://localhost:{port}/servers/callback"


@pytest.fixture
def server(redirect_uri: str) -> Iterator[CellsServer]:
    with CellsServer(clients=[Client(CLIENT, (redirect_uri,))]) as running:
        yield running


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


class UrlFile:
    """A browser that only hands the address over to the test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        words = [sys.executable, "-c", HANDS_OVER_THE_URL, str(path)]
        self.command = shlex.join(words) + " %s"

    def read(self) -> str:
        wait_until(self._path.exists)
        return self._path.read_text()


@pytest.fixture
def url_file(tmp_path: Path) -> UrlFile:
    return UrlFile(tmp_path / "url")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + EVENT_LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextlib.contextmanager
def hostile_site(port: int) -> Iterator[str]:
    """A web site, another origin than the login's, whose page fires requests at ``port`` in a loop."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(HOSTILE_PAGE.replace("PORT", str(port)).encode())

        def log_message(self, *words: object) -> None:
            """Keep the test's output to itself."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_address[1]}/"
        site.shutdown()
        thread.join()


@contextlib.contextmanager
def attackers(port: int) -> Iterator[None]:
    """The other programs of this machine: idle, dripping, flooding, guessing."""
    command = [sys.executable, loopback_attackers.__file__, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "attacking\n"
        yield
        process.kill()


@contextlib.contextmanager
def chromium(directory: Path) -> Iterator[BrowserContext]:
    executable = require_program("chromium")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(directory), executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        context.set_default_timeout(EVENT_LIMIT * 1000)
        yield context
        context.close()


@thorough
def test_in_the_middle_of_all_of_it_the_login_ends_within_two_seconds_of_the_last_click(
    server: CellsServer, program: Program, port: int, redirect_uri: str, url_file: UrlFile, tmp_path: Path
) -> None:
    login = program.start(
        *("login", server.site, "-v", "--client-id", CLIENT, "--redirect-uri", redirect_uri),
        *("--browser", url_file.command, "--timeout", "60"),
    )
    url = url_file.read()
    with hostile_site(port) as evil, chromium(tmp_path / "chromium") as context, attackers(port):
        context.new_page().goto(evil)
        page = context.new_page()
        page.goto(url)
        page.fill("input[type=password]", server.user.password)
        page.fill("input:not([type=password]):visible", server.user.name)
        clicked = time.monotonic()
        page.click("button:visible")
        page.wait_for_url("**/result/*")
        heading = page.inner_text("h1")
        address = page.url
        done = finish(login)
        ended = time.monotonic()

    assert done.returncode == 0, done.stderr
    assert heading == "You are logged in"
    assert "code=" not in address
    print(f"from the last click to the end of the process: {ended - clicked:.2f} s")
    assert ended - clicked < 2
    assert {"state_mismatch", "wrong_host", "not_a_navigation", "too_large"} <= turned_away(done.stderr)
    assert "internal_error" not in done.stderr
    assert server.count("exchange") == 1
    assert nobody_listens(port)


def turned_away(narration: str) -> set[str]:
    lines = (line.partition("turned away: ") for line in narration.splitlines())
    return {reason for _, told, reason in lines if told}


def nobody_listens(port: int) -> bool:
    return not is_listening("127.0.0.1", port) and not is_listening("::1", port)


class TestPort3000:
    pytestmark = OWN_NETWORK

    def test_a_program_that_listens_on_the_other_family_never_receives_the_code(
        self, server: CellsServer, program: Program, tmp_path: Path
    ) -> None:
        received: list[bytes] = []

        def listen(eavesdropper: socket.socket) -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    connection, _ = eavesdropper.accept()
                    with connection:
                        connection.settimeout(1)
                        with contextlib.suppress(OSError):
                            received.append(connection.recv(65536))

        person = ChromiumPerson(tmp_path, server.user.name, server.user.password)
        with socket.create_server(("::1", 3000), family=socket.AF_INET6) as eavesdropper:
            thread = threading.Thread(target=listen, args=(eavesdropper,))
            thread.start()
            done = program.run("login", server.site, *person.browser())
            report = person.report()
            eavesdropper.shutdown(socket.SHUT_RDWR)
            thread.join()

        assert done.returncode == 0, done.stderr
        assert "port 3000 is in use" in done.stderr
        assert "You are logged in" in report.text
        assert not any(received), "the probe says nothing, and nobody else came"
        assert not [url for url in report.requests if urlsplit(url).port == 3000]


# How a login may end, and what is left then


def sign_in(login: subprocess.Popen[str], url: str, server: CellsServer) -> None:
    server.sign_in(url)


def refuse(login: subprocess.Popen[str], url: str, server: CellsServer) -> None:
    server.behaviour = Behaviour(consent=True)
    server.sign_in(url, consent="deny")


def do_nothing(login: subprocess.Popen[str], url: str, server: CellsServer) -> None:
    pass


def crash_the_browser(login: subprocess.Popen[str], url: str, server: CellsServer) -> None:
    """A browser that has asked for the first page and is gone before it is there."""
    address = urlsplit(url)
    with socket.create_connection(("127.0.0.1", address.port or 80)) as browser:
        browser.sendall(f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())


def interrupted_by(number: signal.Signals) -> Callable[[subprocess.Popen[str], str, CellsServer], None]:
    def interrupt(login: subprocess.Popen[str], url: str, server: CellsServer) -> None:
        login.send_signal(number)

    return interrupt


@pytest.mark.parametrize(
    ("act", "timeout", "code"),
    [
        pytest.param(sign_in, 30, 0, id="success"),
        pytest.param(refuse, 30, 5, id="refusal"),
        pytest.param(do_nothing, 1, 6, id="timeout"),
        pytest.param(crash_the_browser, 1, 6, id="crash of the browser"),
        pytest.param(interrupted_by(signal.SIGINT), 30, 130, id="SIGINT"),
        pytest.param(interrupted_by(signal.SIGTERM), 30, 143, id="SIGTERM"),
        pytest.param(interrupted_by(signal.SIGHUP), 30, 129, id="SIGHUP"),
    ],
)
@thorough
def test_after_each_end_no_listener_and_no_temporary_file_is_left(
    act: Callable[[subprocess.Popen[str], str, CellsServer], None],
    timeout: int,
    code: int,
    server: CellsServer,
    program: Program,
    port: int,
    redirect_uri: str,
    url_file: UrlFile,
    tmp_path: Path,
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    login = program.start(
        *("login", server.site, "--client-id", CLIENT, "--redirect-uri", redirect_uri),
        *("--browser", url_file.command, "--timeout", str(timeout)),
        environment={"TMPDIR": str(temporary)},
    )
    url = url_file.read()
    assert not nobody_listens(port)
    act(login, url, server)
    done = finish(login)

    assert done.returncode == code, done.stderr
    assert nobody_listens(port)
    assert os.listdir(temporary) == []
    name = urlsplit(server.site).netloc
    stored = {entry for _, _, files in os.walk(program.config_dir) for entry in files}
    locks = {f"{name}.lock", f"{name}.login", "config.toml.lock"}
    assert stored - locks == ({f"{name}.json", "config.toml"} if code == 0 else set())


def test_an_address_read_from_the_process_list_is_good_for_nothing_afterwards(
    server: CellsServer, program: Program, redirect_uri: str, url_file: UrlFile
) -> None:
    login = program.start(
        *("login", server.site, "--client-id", CLIENT, "--redirect-uri", redirect_uri),
        *("--browser", url_file.command, "--timeout", "30"),
    )
    url = url_file.read()
    assert "state" not in url
    assert urlsplit(url).path.startswith("/start/")
    assert urlsplit(url).netloc == urlsplit(redirect_uri).netloc
    address = urlsplit(url)
    request = f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    answers = []
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", address.port or 80), timeout=EVENT_LIMIT) as client:
            client.sendall(request)
            answers.append(client.makefile("rb").read())
    assert b" 303 " in answers[0]
    assert b" 410 " in answers[1]
    assert b"state=" not in answers[1]
    login.send_signal(signal.SIGINT)
    assert finish(login).returncode == 130
