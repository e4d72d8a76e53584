"""Who listens on port 3000 already, and where the login goes instead."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from desktop import Desktop, ended
from own_network import OWN_NETWORK, PORTS, require_own_network
from program import finish
from requires import require_program, thorough

from cells_loopback.loopback.listener import LOOPBACK, is_listening
from cells_loopback.testing import Behaviour, CellsServer, Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program import Program

pytestmark = OWN_NETWORK

CLIENT, SYNC = "cells-client", "cells-sync"
CALLBACK = "http://localhost:{}/servers/callback"

WHO_LISTENS_WHERE = """
on port 3000             client        port  who is named
nobody                   cells-client  3000  -
127.0.0.1                cells-sync    3636  us
::1                      cells-sync    3636  us
0.0.0.0                  cells-sync    3636  us
:: for IPv6 only         cells-sync    3636  us
:: for both families     cells-sync    3636  us
127.0.0.1 and ::1        cells-sync    3636  us
127.0.0.1, not listening cells-sync    3636  nobody
127.0.0.2                cells-client  3000  -
127.0.0.1, UDP           cells-client  3000  -
"""
ROWS = [
    (line[:25].strip(), line[25:39].strip(), int(line[39:45]), line[45:].strip())
    for line in WHO_LISTENS_WHERE.strip().splitlines()[1:]
]


@contextmanager
def held(where: str, port: int = 3000) -> Iterator[None]:
    """Have a port as one of the rows says, in this very process."""
    with ExitStack() as stack:
        for part in where.split(" and "):
            if part == "nobody":
                continue
            address, _, how = re.sub(" for ", ", ", part).partition(", ")
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_DGRAM if how == "UDP" else socket.SOCK_STREAM
            holder = stack.enter_context(socket.socket(family, kind))
            if family == socket.AF_INET6:
                holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, how != "both families")
            holder.bind((address, port))
            if kind == socket.SOCK_STREAM and how != "not listening":
                holder.listen()
        yield


def profile_name(server: CellsServer) -> str:
    return urlsplit(server.site).netloc


def client_of(program: Program, name: str) -> tuple[str, str]:
    profile = program.read_profile(name)
    return profile["client"]["client_id"], profile["client"]["redirect_uri"]


@pytest.mark.parametrize(("where", "client", "port", "named"), ROWS, ids=[row[0] for row in ROWS])
def test_who_listens_where(
    server: CellsServer, program: Program, desktop: Desktop, where: str, client: str, port: int, named: str
) -> None:
    with held(where):
        login = desktop.log_in(program, server)

    assert login.exit_code == 0, login.stderr
    assert client_of(program, profile_name(server)) == (client, CALLBACK.format(port))
    who = f" by [^ ]+ \\(pid {os.getpid()}\\)" if named == "us" else ""
    notice = f"port 3000 is in use{who}; going on with port 3636 and the client cells-sync"
    if client == CLIENT:
        assert login.warnings == []
    else:
        assert len(login.warnings) == 1
        assert re.fullmatch(notice, login.warnings[0]), login.warnings
    assert not any(is_listening(address, port) for address in LOOPBACK)


DEV_SERVER = """
const server = require("http").createServer((request, response) => {
  console.log(request.url);
  response.end('<div id="root"></div>');
});
server.listen(3000, process.argv[1] || undefined, () => console.log("ready"));
"""


@contextmanager
def react_dev_server(host: str) -> Iterator[subprocess.Popen[str]]:
    """A development server as JavaScript's tool chains start it; it prints what it is asked for."""
    command = [require_program("node"), "-e", DEV_SERVER, host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        try:
            assert node.stdout is not None
            assert node.stdout.readline() == "ready\n"
            yield node
        finally:
            node.terminate()


@pytest.mark.parametrize(
    "host", ["", pytest.param("localhost", marks=thorough)], ids=["everywhere", "localhost"]
)
def test_a_react_developer_logs_in_beside_the_development_server(
    server: CellsServer, program: Program, desktop: Desktop, host: str
) -> None:
    with react_dev_server(host) as node:
        login = desktop.log_in(program, server)
        node.terminate()
        assert node.stdout is not None
        asked_for = node.stdout.read()

    assert login.exit_code == 0, login.stderr
    assert login.warnings == [
        f"port 3000 is in use by node (pid {node.pid}); going on with port 3636 and the client cells-sync"
    ]
    assert asked_for == "", "neither the code nor anything else came to it"


def test_the_session_goes_on_with_the_client_that_it_began_with(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    with held("127.0.0.1"):
        desktop.log_in(program, server)
    program.output("token", "--refresh")
    again = desktop.log_in(program, server, "--force")

    assert again.exit_code == 0, again.stderr
    assert again.warnings == []
    assert client_of(program, profile_name(server)) == (SYNC, CALLBACK.format(3636))
    kinds = ("exchange", "refresh", "revoke")
    assert {request.client_id for request in server.requests if request.kind in kinds} == {SYNC}


def test_the_port_of_the_last_login_is_free_at_once(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    for _ in range(2):
        login = desktop.log_in(program, server, "--force")
        assert (login.exit_code, login.warnings) == (0, [])
        assert client_of(program, profile_name(server)) == (CLIENT, CALLBACK.format(3000))


@pytest.mark.parametrize("free", [None, 3666], ids=["none is free", "the last is free"])
def test_all_ports_of_both_clients(
    server: CellsServer, program: Program, desktop: Desktop, free: int | None
) -> None:
    with ExitStack() as stack:
        for port in PORTS:
            if port != free:
                stack.enter_context(held("127.0.0.1", port))
        login = desktop.log_in(program, server)

    if free:
        assert login.exit_code == 0, login.stderr
        assert client_of(program, profile_name(server)) == (SYNC, CALLBACK.format(free))
        return
    assert login.exit_code == 5
    assert re.search(
        rf"no free port for the callback: port 3000 is in use by .* \(pid {os.getpid()}\)", login.error
    )
    assert "3000 and 31 more" in login.error
    assert "free port 3000" in login.hint
    assert "cells-loopback login --paste" in login.hint
    assert desktop.opened_pages() == []
    assert os.listdir(program.config_dir / "profiles") == []


# Other redirect URIs


def own_client(server: CellsServer, *uris: str) -> tuple[str, ...]:
    """Register a client, and return the options that make it this login's."""
    registered = tuple(uri.replace(":0/", "/") for uri in uris)
    server.add_client(Client("own", registered))
    return ("--client-id", "own", *(word for uri in uris for word in ("--redirect-uri", uri)))


@pytest.mark.parametrize(
    ("uris", "busy", "used"),
    [
        pytest.param(
            ["http://localhost:8123/cb"], [], "http://localhost:8123/cb", id="exact", marks=thorough
        ),
        pytest.param(
            ["http://127.0.0.1:8123/a/b"], [], "http://127.0.0.1:8123/a/b", id="IPv4", marks=thorough
        ),
        pytest.param(["http://[::1]:8123/cb"], [], "http://[::1]:8123/cb", id="IPv6"),
        pytest.param(
            ["http://localhost:8123/one", "http://localhost:8124/two"],
            [8123],
            "http://localhost:8124/two",
            id="several-in-order",
            marks=thorough,
        ),
        pytest.param(
            ["http://localhost:[8123-8126]/cb"], [8123, 8124], "http://localhost:8125/cb", id="range"
        ),
        pytest.param(
            ["http://localhost:[8123-8124]/cb", "http://localhost:9000/cb"],
            [8123, 8124],
            "http://localhost:9000/cb",
            id="range-then-another",
            marks=thorough,
        ),
        pytest.param(
            ["http://127.0.0.1:0/cb"], [], r"http://127\.0\.0\.1:\d+/cb", id="any-port-IPv4", marks=thorough
        ),
        pytest.param(["http://[::1]:0/cb"], [], r"http://\[::1\]:\d+/cb", id="any-port-IPv6"),
        pytest.param(["http://localhost:8123"], [], "http://localhost:8123", id="no-path", marks=thorough),
    ],
)
def test_registered_redirect_uris(
    server: CellsServer, program: Program, desktop: Desktop, uris: list[str], busy: list[int], used: str
) -> None:
    options = own_client(server, *uris)
    with ExitStack() as stack:
        for port in busy:
            stack.enter_context(held("127.0.0.1", port))
        login = desktop.log_in(program, server, *options)

    assert login.exit_code == 0, login.stderr
    client, uri = client_of(program, profile_name(server))
    assert client == "own"
    assert uri == used or re.fullmatch(used, uri)
    assert len(login.warnings) == bool(busy)
    if busy:
        assert login.warnings[0].startswith(f"port {busy[0]} is in use")
        assert login.warnings[0].endswith(f"; going on with port {urlsplit(uri).port}")


def test_an_own_client_never_goes_on_as_another(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    options = own_client(server, "http://localhost:3000/servers/callback")
    with held("::1"):
        login = desktop.log_in(program, server, *options)
    assert login.exit_code == 5
    assert "port 3000 is in use" in login.error


def unprivileged() -> tuple[str, ...]:
    """A command that runs another without an administrator's right to the low ports."""
    if os.geteuid() != 0:
        return ()
    drop = "-net_bind_service"
    return (require_program("setpriv"), f"--bounding-set={drop}", f"--inh-caps={drop}")


def test_a_privileged_port_is_named_as_such(server: CellsServer, program: Program, desktop: Desktop) -> None:
    options = own_client(server, "http://localhost:80/cb", "http://localhost:8123/cb")
    login = desktop.log_in(program, server, *options, under=unprivileged())
    assert login.exit_code == 0, login.stderr
    assert login.warnings == ["port 80 is only for administrators; going on with port 8123"]


def test_where_ipv6_is_switched_off(program: Program, desktop: Desktop) -> None:
    require_own_network()
    with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w", encoding="ascii") as switch:
        switch.write("1")
    with CellsServer() as server:
        login = desktop.log_in(program, server)
    assert (login.exit_code, login.warnings) == (0, [])


# Several logins at one time


def start(program: Program, desktop: Desktop, server: CellsServer, *options: str) -> subprocess.Popen[str]:
    return program.start("login", server.site, "--browser", desktop.browser, *options)


def wait_for_line(process: subprocess.Popen[str], words: str) -> str:
    """Read stderr up to the line that holds ``words``."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"it ended without saying {words!r}")


@contextmanager
def desktops(count: int) -> Iterator[list[Desktop]]:
    all_of_them = [Desktop() for _ in range(count)]
    yield all_of_them
    for desktop in all_of_them:
        desktop.close()


def test_logins_at_the_same_moment_each_get_a_port_of_their_own(
    server: CellsServer, program: Program
) -> None:
    with desktops(3) as people:
        logins = [start(program, person, server, "-p", f"p{n}") for n, person in enumerate(people)]
        pages = [person.opened(login) for person, login in zip(people, logins, strict=True)]
        for page in pages:
            assert "You are logged in" in server.sign_in(page).text
        done = [finish(login) for login in logins]

    assert [one.returncode for one in done] == [0, 0, 0]
    uris = {client_of(program, f"p{n}")[1] for n in range(3)}
    assert uris == {CALLBACK.format(port) for port in (3000, 3636, 3637)}
    assert sum("cells-loopback (pid" in one.stderr for one in done) == 2, "each tells who was there first"


@pytest.mark.parametrize(
    "head_start", [pytest.param(True, marks=thorough), False], ids=["one-after-the-other", "at-once"]
)
def test_a_second_login_to_a_profile_joins_the_first(
    server: CellsServer, program: Program, desktop: Desktop, head_start: bool
) -> None:
    first = start(program, desktop, server)
    page = desktop.opened(first) if head_start else ""
    second = start(program, desktop, server)
    if head_start:
        assert f"(process {first.pid})" in wait_for_line(second, "already under way")
    else:
        page = desktop.opened(first)
    server.sign_in(page)
    ends = [ended(finish(login)) for login in (first, second)]

    assert [end.exit_code for end in ends] == [0, 0], [end.stderr for end in ends]
    assert all(f"logged in to {server.site} as alice" in end.stderr for end in ends)
    assert (len(desktop.opened_pages()), server.count("exchange")) == (1, 1)
    assert len(server.refresh_tokens()) == 1


def test_who_has_joined_a_login_that_fails_fails_alike(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    server.behaviour = Behaviour(consent=True)
    first = start(program, desktop, server)
    page = desktop.opened(first)
    second = start(program, desktop, server)
    wait_for_line(second, "already under way")
    server.sign_in(page, consent="deny")
    ends = [ended(finish(login)) for login in (first, second)]

    assert [end.exit_code for end in ends] == [5, 5]
    assert ends[0].error == ends[1].error != ""
    assert len(desktop.opened_pages()) == 1


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=thorough), signal.SIGKILL], ids=["interrupted", "killed"]
)
def test_a_login_whose_first_is_given_up_is_taken_over_by_the_second(
    server: CellsServer, program: Program, desktop: Desktop, number: signal.Signals
) -> None:
    first = start(program, desktop, server)
    desktop.opened(first)
    second = start(program, desktop, server)
    wait_for_line(second, "already under way")
    first.send_signal(number)
    finish(first)
    page = desktop.opened(second)
    assert "You are logged in" in server.sign_in(page).text
    assert finish(second).returncode == 0
    assert len(desktop.opened_pages()) == 2


def test_a_program_that_joins_gets_the_result_as_its_only_event(
    server: CellsServer, program: Program, desktop: Desktop
) -> None:
    first = start(program, desktop, server)
    page = desktop.opened(first)
    second = start(program, desktop, server, "--json")
    wait_for_line(second, "already under way")
    server.sign_in(page)
    finish(first)
    done = finish(second)
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["logged_in"]
