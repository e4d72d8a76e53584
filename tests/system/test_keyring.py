"""Sessions in a real keyring: gnome-keyring on a session bus of its own, open, locked, silent and absent."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from program import Program, finish
from requires import require_program, thorough
from sessions import age_session, make_session, write_session
from signed_in import log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cells_loopback.testing import CellsServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the Secret Service is Linux'")

# The child sees the bus; its own keyring calls are given little time, which is what is to be seen.
IMPATIENT = """
import sys
from cells_loopback.store import keyring_store
keyring_store.CALL_TIMEOUT = 1.0
from cells_loopback.cli import main
sys.exit(main(sys.argv[1:]))
"""
LOCK = """
import contextlib, secretstorage
with contextlib.closing(secretstorage.dbus_init()) as bus:
    secretstorage.get_default_collection(bus).lock()
"""
LOSE = """
import contextlib, secretstorage
with contextlib.closing(secretstorage.dbus_init()) as bus:
    for item in secretstorage.get_default_collection(bus).search_items({"service": "cells-loopback"}):
        item.delete()
"""
ENTRIES = """
import contextlib, json, secretstorage
with contextlib.closing(secretstorage.dbus_init()) as bus:
    items = secretstorage.get_default_collection(bus).search_items({"service": "cells-loopback"})
    print(json.dumps({item.get_attributes()["username"]: item.get_secret().decode() for item in items}))
"""


class Bus:
    """A session bus, as ``dbus-run-session`` makes one, and an environment that has it."""

    def __init__(self, directory: Path) -> None:
        command = [require_program("dbus-run-session"), "--", "sh", "-c"]
        environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
        runtime = directory / "runtime"
        runtime.mkdir(0o700)
        environment["XDG_RUNTIME_DIR"] = str(runtime)
        self._session = subprocess.Popen(
            [*command, 'echo "$DBUS_SESSION_BUS_ADDRESS"; exec cat'],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._session.stdout is not None
        address = self._session.stdout.readline().strip()
        self.environment = {**environment, "DBUS_SESSION_BUS_ADDRESS": address}

    def close(self) -> None:
        self._session.communicate()

    def run(self, code: str, *arguments: str) -> str:
        """Run Python code on this bus and return what it prints."""
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def entries(self) -> dict[str, str]:
        """Return what the open keyring holds of ours: secrets by entry."""
        found: dict[str, str] = json.loads(self.run(ENTRIES))
        return found


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    pytest.importorskip("secretstorage")
    running = Bus(tmp_path)
    yield running
    running.close()


@pytest.fixture
def gnome_keyring(bus: Bus) -> Iterator[Bus]:
    """The bus with a keyring on it, open as after a login to the desktop."""
    daemon = start_gnome_keyring(bus)
    yield bus
    daemon.terminate()
    daemon.wait()


def start_gnome_keyring(bus: Bus) -> subprocess.Popen[str]:
    """Start the daemon, and another in its place when it crashes, as it does now and then."""
    command = [require_program("gnome-keyring-daemon"), "--unlock", "--components=secrets", "--foreground"]
    deadline = time.monotonic() + 40
    while True:
        daemon = subprocess.Popen(
            [*command, "--replace"],  # the bus may have started a locked one by itself since
            env=bus.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert daemon.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            daemon.stdin.write("a password")
            daemon.stdin.close()
        while daemon.poll() is None:
            if answers(bus):
                return daemon
            if time.monotonic() > deadline:
                daemon.kill()
                daemon.wait()
                pytest.fail("gnome-keyring does not answer")


def answers(bus: Bus) -> bool:
    try:
        bus.run("import keyring; keyring.set_password('a', 'b', 'c'); keyring.delete_password('a', 'b')")
    except subprocess.CalledProcessError:
        return False
    return True


@pytest.fixture
def program(tmp_path: Path, bus: Bus) -> Program:
    made = Program(tmp_path)
    made.environment.update(bus.environment)
    made.environment["CELLS_LOOPBACK_CONFIG_DIR"] = str(made.config_dir)
    return made


def impatiently(program: Program, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", IMPATIENT, *arguments],
        env=program.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def secrets_on_disk(program: Program, server: CellsServer) -> list[str]:
    files = [path for path in program.config_dir.rglob("*") if path.is_file()]
    text = "".join(path.read_text() for path in files)
    return [secret for secret in server.secrets() if secret in text]


def age(program: Program, seconds: float) -> None:
    """Make the session in the keyring older, which is the file's part to know."""
    path = program.profile_path("work")
    document = json.loads(path.read_text())
    for clock in ("obtained_at", "obtained_uptime"):
        document["token"][clock] -= seconds
    path.write_text(json.dumps(document))


def test_a_session_logged_in_to_lies_in_the_keyring_and_is_renewed_there(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work", "--store", "keyring")
    assert secrets_on_disk(program, server) == []
    assert json.loads(program.output("status", "--json"))[0]["store"] == "keyring"

    first = program.output("token")
    assert first.strip() in server.access_tokens()
    renewed = program.output("token", "--refresh")
    assert renewed != first
    assert program.output("token") == renewed
    assert any(renewed.strip() in secret for secret in gnome_keyring.entries().values())
    assert secrets_on_disk(program, server) == []

    assert program.run("logout").returncode == 0
    assert gnome_keyring.entries() == {}


@thorough
def test_a_session_moves_between_the_stores_without_a_browser(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work")
    token = program.output("token")

    for store, in_keyring in (("keyring", True), ("file", False), ("keyring", True)):
        moved = program.run("login", "--store", store)
        assert moved.returncode == 0, moved.stderr
        assert "already logged in" in moved.stderr
        assert bool(gnome_keyring.entries()) is in_keyring
        assert bool(secrets_on_disk(program, server)) is not in_keyring
        assert program.output("token") == token
    assert server.count("exchange") == 1


@thorough
def test_many_processes_at_once_renew_a_session_in_the_keyring_once(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work", "--store", "keyring")
    server.expire_access_tokens()
    age(program, 700)
    asking = [program.start("token") for _ in range(8)]
    answers = [finish(process) for process in asking]
    assert {answer.stderr for answer in answers} == {""}
    [token] = {answer.stdout for answer in answers}
    assert token.strip() in server.access_tokens()
    assert server.count("refresh") == 1


@thorough
def test_the_keep_alive_renews_in_the_keyring_too(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work", "--store", "keyring")
    age(program, 30 * 3600)
    assert program.run("keepalive", "run", "--once").returncode == 0
    assert server.count("refresh") == 1
    assert secrets_on_disk(program, server) == []


@thorough
def test_a_locked_keyring_is_told_and_a_file_is_offered(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work", "--store", "keyring")
    gnome_keyring.run(LOCK)

    token = impatiently(program, "token")
    assert token.returncode == 8
    assert "--store file" in token.stderr

    login = impatiently(program, "login", server.site, "-p", "other", "--store", "keyring", "--no-browser")
    assert login.returncode == 8
    assert "--store file" in login.stderr
    assert not program.profile_path("other").exists()
    assert server.count("authorize") == 1, "nothing was opened the second time"


@thorough
def test_looking_at_a_session_asks_no_locked_keyring(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work", "--store", "keyring")
    gnome_keyring.run(LOCK)
    assert program.run("keepalive", "run", "--once").returncode == 0
    assert json.loads(program.output("keepalive", "status", "--json"))["sessions"][0]["profile"] == "work"


def test_where_no_keyring_answers_a_file_is_offered(server: CellsServer, program: Program) -> None:
    started = time.monotonic()
    done = impatiently(program, "login", server.site, "--store", "keyring", "--no-browser")
    assert done.returncode == 8
    assert "--store file" in done.stderr
    assert time.monotonic() - started < 30


@contextlib.contextmanager
def silent_service(address: str) -> Iterator[None]:
    """Be the Secret Service of a bus, and answer nothing at all."""
    jeepney: Any = importlib.import_module("jeepney")
    blocking: Any = importlib.import_module("jeepney.io.blocking")
    connection = blocking.open_dbus_connection(bus=address)
    request = jeepney.message_bus.RequestName("org.freedesktop.secrets")
    assert connection.send_and_get_reply(request).body == (1,)

    def listen() -> None:
        with contextlib.suppress(OSError, ConnectionError):
            while True:
                connection.receive()

    threading.Thread(target=listen, daemon=True).start()
    yield
    connection.close()


@thorough
def test_a_keyring_that_never_answers_does_not_hang_us(
    server: CellsServer, program: Program, bus: Bus
) -> None:
    with silent_service(bus.environment["DBUS_SESSION_BUS_ADDRESS"]):
        started = time.monotonic()
        done = impatiently(program, "login", server.site, "--store", "keyring", "--no-browser")
        assert done.returncode == 8
        assert "has not answered for 1 s" in done.stderr
        assert "--store file" in done.stderr
        assert time.monotonic() - started < 30


@thorough
def test_a_session_whose_secrets_are_gone_from_the_keyring_says_how_to_go_on(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work", "--store", "keyring")
    gnome_keyring.run(LOSE)
    done = program.run("token")
    assert done.returncode == 8
    assert "hint: log in again: cells-loopback login --profile work\n" in done.stderr

    log_in(program, server, "work")
    assert program.output("token").strip() in server.access_tokens()
    gnome_keyring.run(LOSE)
    done = program.run("logout")
    assert done.returncode == 0
    assert "was not revoked on the server: the keyring does not hold" in done.stderr
    assert program.run("token").returncode == 3


@thorough
def test_a_session_is_logged_in_to_anew_to_leave_a_locked_keyring(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work", "--store", "keyring")
    gnome_keyring.run(LOCK)
    log_in(program, server, "work", "--store", "file")
    assert program.output("token").strip() in server.access_tokens()


@thorough
def test_a_login_that_leaves_the_keyring_takes_the_old_secrets_out(
    server: CellsServer, program: Program, gnome_keyring: Bus
) -> None:
    log_in(program, server, "work", "--store", "keyring")
    log_in(program, server, "work", "--store", "file", "--force")
    assert gnome_keyring.entries() == {}


def test_with_the_file_store_no_keyring_is_ever_imported(server: CellsServer, program: Program) -> None:
    write_session(program.config_dir, make_session(server))
    age_session(program.config_dir, 700)
    code = (
        "import sys; from cells_loopback.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 'keyring' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "token"], env=program.environment, timeout=60, check=False
    )
    assert done.returncode == 0
