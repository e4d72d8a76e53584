"""A login takes its port on all loopback addresses or on none, and never beside another listener."""

from __future__ import annotations

import errno
import os
import pathlib
import select
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from loopback_client import free_port

from cells_loopback.loopback.listener import PortUnavailable, bind_loopback, is_listening

if TYPE_CHECKING:
    from collections.abc import Iterator

WHO_LISTENS = {
    "nobody": [],
    "127.0.0.1": ["127.0.0.1"],
    "::1": ["::1"],
    "0.0.0.0": ["0.0.0.0"],
    ":: for IPv6 only": ["::"],
    ":: for both families": ["dual"],
    "127.0.0.1 and ::1": ["127.0.0.1", "::1"],
    "0.0.0.0 and ::": ["0.0.0.0", "::"],
}
HOSTS = ["localhost", "127.0.0.1", "::1"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only there is all of 127.0.0.0/8 this machine")

CHILD = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from test_listener import listen
sockets = []
for line in sys.stdin:
    for former in sockets:
        former.close()
    port, *addresses = line.split()
    sockets = [listen(address, int(port)) for address in addresses]
    print("done", flush=True)
"""


def listen(address: str, port: int) -> socket.socket:
    """Listen as other programs do; ``dual`` is the wildcard address of both families at once."""
    family = socket.AF_INET if "." in address else socket.AF_INET6
    other = socket.socket(family, socket.SOCK_STREAM)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "dual")
    other.bind(("::" if address == "dual" else address, port))
    other.listen()
    return other


class Listener:
    """A process that listens where it is told to: this one."""

    pid = os.getpid()

    def __init__(self) -> None:
        self._sockets = ExitStack()

    def listen(self, addresses: list[str], port: int) -> None:
        """Listen there, and no longer where it did before."""
        self._sockets.close()
        for address in addresses:
            self._sockets.enter_context(listen(address, port))


class OtherProcess:
    """The same in a process of its own."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.pid = child.pid
        self._child = child

    def listen(self, addresses: list[str], port: int) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(" ".join([str(port), *addresses]) + "\n")
        self._child.stdin.flush()
        assert self._child.stdout.readline() == "done\n"


@pytest.fixture(scope="module", params=["same process", "other process"])
def other(request: pytest.FixtureRequest) -> Iterator[Listener | OtherProcess]:
    if request.param == "same process":
        yield Listener()
        return
    here = pathlib.Path(__file__)
    directories = f"{here.parents[0]}{os.pathsep}{here.parents[1]}"
    command = [sys.executable, "-c", CHILD, directories]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield OtherProcess(child)
        child.communicate()


@pytest.fixture
def port() -> int:
    return free_port()


def names(sockets: list[socket.socket]) -> list[str]:
    return [bound.getsockname()[0] for bound in sockets]


def close(sockets: list[socket.socket]) -> None:
    for bound in sockets:
        bound.close()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("addresses", WHO_LISTENS.values(), ids=WHO_LISTENS.keys())
def test_a_port_is_free_only_when_nobody_listens_on_either_family(
    other: Listener | OtherProcess, addresses: list[str], host: str, port: int
) -> None:
    other.listen(addresses, port)
    if addresses:
        with pytest.raises(PortUnavailable) as caught:
            bind_loopback(host, port)
        assert (caught.value.port, caught.value.reason) == (port, "in_use")
        if sys.platform == "linux":
            assert caught.value.holder.endswith(f" (pid {other.pid})")
            assert caught.value.holder in str(caught.value)
    else:
        close(bind_loopback(host, port))
    other.listen([], port)


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("localhost", ["127.0.0.1", "::1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
        pytest.param("127.1.2.3", ["127.1.2.3"], marks=LINUX),
    ],
)
def test_the_sockets_listen_on_what_the_host_stands_for(host: str, addresses: list[str]) -> None:
    sockets = bind_loopback(host, 0)
    assert names(sockets) == addresses
    assert len({bound.getsockname()[1] for bound in sockets}) == 1
    for bound in sockets:
        assert not bound.getblocking()
        assert not bound.get_inheritable()
        socket.create_connection(bound.getsockname()[:2], timeout=1).close()
    close(sockets)


@LINUX
def test_a_port_that_is_taken_on_the_very_address_is_in_use(port: int) -> None:
    with listen("127.1.2.3", port), pytest.raises(PortUnavailable) as caught:
        bind_loopback("127.1.2.3", port)
    assert caught.value.reason == "in_use"


def test_many_browsers_may_connect_before_the_server_is_up(port: int) -> None:
    sockets = bind_loopback("localhost", port)
    with ExitStack() as stack:
        for _ in range(120):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
    close(sockets)


def test_what_the_last_login_left_in_time_wait_does_not_make_the_port_busy(port: int) -> None:
    for _ in range(2):
        sockets = bind_loopback("localhost", port)
        for bound in sockets:
            with socket.create_connection(bound.getsockname()[:2], timeout=1) as browser:
                select.select([bound], [], [], 1)
                connection, _address = bound.accept()
                connection.close()  # whoever closes first keeps the port in TIME_WAIT
                assert browser.recv(1) == b""
        close(sockets)


def test_after_closing_nobody_listens(port: int) -> None:
    close(bind_loopback("localhost", port))
    assert not is_listening("127.0.0.1", port)
    assert not is_listening("::1", port)


def test_a_second_login_finds_the_port_busy_and_names_the_first(port: int) -> None:
    sockets = bind_loopback("localhost", port)
    with pytest.raises(PortUnavailable) as caught:
        bind_loopback("localhost", port)
    assert caught.value.reason == "in_use"
    close(sockets)


RACER = """
import select, sys
from cells_loopback.loopback.listener import PortUnavailable, bind_loopback
print("ready", flush=True)
sys.stdin.readline()
try:
    sockets = bind_loopback("localhost", int(sys.argv[1]))
except PortUnavailable as error:
    print(error.reason, flush=True)
else:
    print("bound", len(sockets), flush=True)
sys.stdin.readline()
"""


def test_of_many_that_bind_at_once_at_most_one_has_the_port_and_that_one_has_it_whole(port: int) -> None:
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACER, str(port)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(4)
        ]
        assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * 4
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        outcomes = sorted(racer.stdout.readline() for racer in racers if racer.stdout)
        for racer in racers:
            racer.communicate()
    assert outcomes in (["bound 2\n"] + ["in_use\n"] * 3, ["in_use\n"] * 4)


def test_a_listener_that_answers_nobody_still_has_its_port(port: int) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(listen("127.0.0.1", port))
        other.listen(0)
        for _ in range(3):  # until its backlog is full and connections time out
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        with pytest.raises(PortUnavailable, match="in use"):
            bind_loopback("localhost", port)


class Refusing(socket.socket):
    """A system that answers ``bind`` with an error, for one family or for both."""

    code = errno.EACCES
    families = frozenset({socket.AF_INET, socket.AF_INET6})

    def bind(self, address: tuple[str, int]) -> None:  # type: ignore[override]  # all that is passed here
        if self.family in self.families:
            raise OSError(self.code, os.strerror(self.code))
        super().bind(address)

    def setsockopt(self, level: int, name: int, value: int) -> None:  # type: ignore[override]  # as used here
        if name >= 0:  # Windows' own option is a negative number, and unknown elsewhere
            super().setsockopt(level, name, value)


def refusing(error: int, *families: socket.AddressFamily) -> type[Refusing]:
    return type("Refused", (Refusing,), {"code": error, "families": families or Refusing.families})


@pytest.mark.parametrize(
    ("platform", "error", "reason", "words"),
    [
        ("linux", errno.EACCES, "privileged", "only for administrators"),
        ("darwin", errno.EACCES, "privileged", "only for administrators"),
        ("win32", errno.EACCES, "reserved", "reserved by the system"),
        ("linux", errno.EADDRINUSE, "in_use", "in use"),
        ("win32", errno.EADDRINUSE, "in_use", "in use"),
        ("linux", errno.EADDRNOTAVAIL, "no_such_address", "no loopback address"),
    ],
)
def test_each_refusal_of_the_system_has_its_reason(
    platform: str, error: int, reason: str, words: str, port: int
) -> None:
    with pytest.raises(PortUnavailable, match=words) as caught:
        bind_loopback("localhost", port, platform=platform, new_socket=refusing(error))
    assert caught.value.reason == reason


@pytest.mark.parametrize("port_asked", [0, None], ids=["any port", "a given port"])
@pytest.mark.parametrize(
    ("missing", "left"), [(socket.AF_INET6, "127.0.0.1"), (socket.AF_INET, "::1")], ids=["no IPv6", "no IPv4"]
)
def test_a_machine_with_one_family_listens_on_that_one(
    missing: socket.AddressFamily, left: str, port_asked: int | None, port: int
) -> None:
    chosen = port if port_asked is None else port_asked
    sockets = bind_loopback("localhost", chosen, new_socket=refusing(errno.EADDRNOTAVAIL, missing))
    assert names(sockets) == [left]
    close(sockets)


def test_a_family_that_the_system_was_built_without_is_left_out(port: int) -> None:
    def only_ipv4(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no such family")
        return socket.socket(family, kind)

    sockets = bind_loopback("localhost", port, new_socket=only_ipv4)
    assert names(sockets) == ["127.0.0.1"]
    close(sockets)


def test_when_the_second_address_is_refused_the_first_is_given_back(port: int) -> None:
    with pytest.raises(PortUnavailable):
        bind_loopback("localhost", port, new_socket=refusing(errno.EACCES, socket.AF_INET6))
    close(bind_loopback("localhost", port))


@pytest.mark.parametrize(
    ("platform", "option"),
    [
        ("linux", socket.SO_REUSEADDR),
        ("darwin", socket.SO_REUSEADDR),
        ("win32", getattr(socket, "SO_EXCLUSIVEADDRUSE", -5)),
    ],
)
def test_windows_is_asked_for_the_port_alone_and_posix_for_what_is_in_time_wait(
    platform: str, option: int
) -> None:
    asked: list[int] = []

    class Recording(socket.socket):
        def setsockopt(self, level: int, name: int, *rest: object) -> None:
            asked.append(name)

    close(bind_loopback("127.0.0.1", 0, platform=platform, new_socket=Recording))
    assert asked == [option]


def test_the_holder_is_looked_for_only_when_somebody_asks() -> None:
    asked: list[int] = []

    def find(port: int) -> str:
        asked.append(port)
        return "node (pid 4242)"

    error = PortUnavailable(3000, "in_use", find)
    assert not asked
    assert error.holder == "node (pid 4242)"
    assert str(error) == "port 3000 is in use by node (pid 4242)"
    assert asked == [3000]


def test_importing_the_listener_loads_nothing_but_what_socket_loads() -> None:
    code = (
        "import __future__, errno, socket, sys; before = set(sys.modules)\n"
        "import cells_loopback.loopback.listener; print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.split() == [
        "cells_loopback",
        "cells_loopback.loopback",
        "cells_loopback.loopback.listener",
    ]
