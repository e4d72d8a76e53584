"""However many ask at the moment of expiry, one refresh happens and everybody gets its token.

The server detects reuse: a refresh token that is used twice ends the session, so a second refresh with
the same token could not stay unseen. All processes start behind one gate.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from requires import THOROUGH
from sessions import age_session, read_session, store_session

from cells_loopback import Session
from cells_loopback.store.lock import FileLock
from cells_loopback.store.profiles import ProfileStore
from cells_loopback.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cells_loopback.testing import CellsServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gates, signals and /proc of POSIX")

PROCESSES = 200 if THOROUGH else 30
EXPIRIES = 5 if THOROUGH else 2

COMMAND = """
import sys
sys.stdin.read(1)  # the gate
from cells_loopback.__main__ import main
main()
"""

LIBRARY = """
import sys
sys.stdin.read(1)
from cells_loopback import Session
session = Session.load("work", config_dir=sys.argv[2])
for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 1):
    print(session.access_token(), flush=True)
"""


class Crowd:
    """Processes that wait at a gate until it is opened."""

    def __init__(self, config_dir: Path) -> None:
        self._config_dir = config_dir
        self._gate, self._opener = os.pipe()
        self.children: list[subprocess.Popen[str]] = []

    def add(self, count: int, script: str = COMMAND, *arguments: str) -> None:
        call = arguments or (("token",) if script is COMMAND else ())
        for _ in range(count):
            command = [sys.executable, "-c", script, "--config-dir", str(self._config_dir), *call]
            pipe = subprocess.PIPE
            child = subprocess.Popen(command, stdin=self._gate, stdout=pipe, stderr=pipe, text=True)
            self.children.append(child)

    def open(self) -> None:
        """Let all of them go."""
        os.close(self._opener)
        os.close(self._gate)

    def results(self) -> list[tuple[int, str, str]]:
        """Return exit code, output and errors of each, once they have all ended."""
        results = []
        for child in self.children:
            out, err = child.communicate(timeout=120)
            results.append((child.returncode, out, err))
        return results

    def run(self) -> list[tuple[int, str, str]]:
        """Open the gate and return the results."""
        self.open()
        return self.results()


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def session(server: CellsServer, config_dir: Path) -> None:
    store_session(server, config_dir)
    expire(server, config_dir)


@pytest.fixture
def crowd(config_dir: Path) -> Iterator[Crowd]:
    crowd = Crowd(config_dir)
    yield crowd
    for child in crowd.children:
        child.kill()
        child.communicate()


def expire(server: CellsServer, config_dir: Path) -> None:
    server.expire_access_tokens()
    age_session(config_dir, 600)


def stored_token(config_dir: Path) -> str:
    return read_session(config_dir).tokens.access_token.reveal()


def is_alive(server: CellsServer, config_dir: Path) -> bool:
    """Whether the stored session can go on: its access token is live, and so is its refresh token."""
    tokens = read_session(config_dir).tokens
    assert tokens.refresh_token is not None
    access_token, refresh_token = tokens.access_token.reveal(), tokens.refresh_token.reveal()
    return server.is_live_access_token(access_token) and refresh_token in server.refresh_tokens()


@pytest.mark.usefixtures("session")
class TestProcesses:
    def test_a_crowd_of_commands_at_the_moment_of_expiry(
        self, server: CellsServer, config_dir: Path, crowd: Crowd
    ) -> None:
        crowd.add(PROCESSES)
        results = crowd.run()
        assert results == [(0, stored_token(config_dir) + "\n", "")] * PROCESSES
        assert server.count("refresh") == 1
        assert is_alive(server, config_dir)

    def test_commands_and_programs_with_the_library_together(
        self, server: CellsServer, config_dir: Path, crowd: Crowd
    ) -> None:
        crowd.add(6)
        crowd.add(3, COMMAND, "token", "--format", "json")  # which the warm path leaves to the ordinary one
        crowd.add(6, LIBRARY)
        results = crowd.run()
        token = stored_token(config_dir)
        assert [code for code, _, _ in results] == [0] * 15
        assert all(token in out for _, out, _ in results)
        assert server.count("refresh") == 1
        assert is_alive(server, config_dir)

    def test_eight_that_never_stop_over_several_expiries(
        self, server: CellsServer, config_dir: Path, tmp_path: Path
    ) -> None:
        # Two detectors that know nothing of each other: what each process saw, and the server's log.
        for number in range(EXPIRIES):
            crowd = Crowd(config_dir)
            crowd.add(8, LIBRARY, "20")
            results = crowd.run()
            assert [code for code, _, _ in results] == [0] * 8, results
            assert {line for _, out, _ in results for line in out.split()} == {stored_token(config_dir)}
            assert server.count("refresh") == number + 1
            expire(server, config_dir)

    def test_refused_together(self, server: CellsServer, crowd: Crowd) -> None:
        server.revoke_sessions()
        crowd.add(8)
        results = crowd.run()
        assert [(code, out) for code, out, _ in results] == [(4, "")] * 8
        assert all("log in again" in err and "Traceback" not in err for _, _, err in results)
        assert server.count("refresh") == 1

    def test_failed_together(self, server: CellsServer, config_dir: Path, crowd: Crowd) -> None:
        before = read_session(config_dir)
        hold = threading.Event()
        server.fault("refresh", Fault(status=503, headers={"Retry-After": "9999"}, hold=hold, times=None))
        crowd.add(8)
        crowd.open()
        server.wait_for("refresh", 1, timeout=60)
        wait_until_all_want(crowd, config_dir)
        hold.set()
        results = crowd.results()
        assert [(code, out) for code, out, _ in results] == [(7, "")] * 8, results
        assert server.count("refresh") == 1
        assert read_session(config_dir) == before


def wait_until_all_want(crowd: Crowd, config_dir: Path, timeout: float = 60) -> None:
    """Wait until each process has been seen with the lock file open."""
    path = os.path.realpath(config_dir / "profiles" / "work.lock")
    deadline = time.monotonic() + timeout
    missing = {child.pid for child in crowd.children}
    while missing and time.monotonic() < deadline:
        missing = {pid for pid in missing if path not in open_files(pid)}
    assert not missing


def open_files(pid: int) -> set[str]:
    directory = f"/proc/{pid}/fd"
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("/proc is not there")
    paths = set()
    try:
        names = os.listdir(directory)
    except OSError:  # it has ended
        return set()
    for name in names:
        try:
            paths.add(os.readlink(f"{directory}/{name}"))
        except OSError:
            continue
    return paths


@pytest.mark.usefixtures("session")
class TestKilled:
    def test_holders_killed_before_their_request_is_processed(
        self, server: CellsServer, config_dir: Path, crowd: Crowd
    ) -> None:
        killed = 5
        holds = [threading.Event() for _ in range(killed)]
        for hold in holds:
            server.fault("refresh", Fault(hold=hold, drop="before"))
        crowd.add(killed + 12)
        crowd.open()
        for number in range(killed):
            server.wait_for("refresh", number + 1, timeout=60)
            os.kill(holder(config_dir), signal.SIGKILL)
        results = crowd.results()
        for hold in holds:
            hold.set()
        token = stored_token(config_dir)
        assert sorted(code for code, _, _ in results) == [-signal.SIGKILL] * killed + [0] * 12
        assert {out for code, out, _ in results if code == 0} == {token + "\n"}
        assert server.count("refresh", 200) == 1
        assert is_alive(server, config_dir)

    def test_waiters_killed_at_random(self, server: CellsServer, config_dir: Path, crowd: Crowd) -> None:
        hold = threading.Event()
        server.fault("refresh", Fault(answer_hold=hold))
        crowd.add(20)
        crowd.open()
        server.wait_for("refresh", 1, timeout=60)
        leader = holder(config_dir)
        waiters = [child for child in crowd.children if child.pid != leader]
        for child in random.sample(waiters, 8):
            child.kill()
            time.sleep(random.random() / 100)
        hold.set()
        results = crowd.results()
        assert sorted(code for code, _, _ in results) == [-signal.SIGKILL] * 8 + [0] * 12
        assert {out for code, out, _ in results if code == 0} == {stored_token(config_dir) + "\n"}
        assert server.count("refresh") == 1
        assert is_alive(server, config_dir)

    def test_whoever_is_killed_whenever_no_refresh_token_is_used_by_two_that_live(
        self, server: CellsServer, config_dir: Path
    ) -> None:
        generator = random.Random(os.environ.get("CELLS_LOOPBACK_TESTS_SEED", "4"))
        for _ in range(20 if THOROUGH else 4):
            store_session(server, config_dir)
            expire(server, config_dir)
            before = len(server.requests)
            crowd = Crowd(config_dir)
            crowd.add(6)
            crowd.open()
            victims = generator.sample(crowd.children, 3)
            time.sleep(generator.random() / 4)
            for victim in victims:
                victim.kill()
            codes = {child.pid: child.wait(120) for child in crowd.children}
            crowd.results()
            survivors = [codes[child.pid] for child in crowd.children if child not in victims]
            refreshes = [request for request in server.requests[before:] if request.kind == "refresh"]
            spent = [request.form["refresh_token"] for request in refreshes if request.status == 200]
            assert len(spent) == len(set(spent))
            read_session(config_dir)  # whole, whatever happened
            if survivors == [0, 0, 0]:
                assert is_alive(server, config_dir)
            else:
                # Only an answer that died with its process ends a session: one was given and then one more
                # refresh was refused.
                assert survivors == [4, 4, 4]
                assert [request.status for request in refreshes][-2:] == [200, 400]


def holder(config_dir: Path) -> int:
    """Return the process that renews, as the lock's note names it."""
    note = FileLock(str(config_dir / "profiles" / "work.lock")).read_note()
    return int(note.removeprefix("process ").partition(",")[0])


@pytest.mark.usefixtures("session")
class TestOneProcess:
    def test_fifty_threads(self, server: CellsServer, config_dir: Path) -> None:
        session = Session.load("work", config_dir=str(config_dir))
        tokens: list[str] = []
        gate = threading.Barrier(50)

        def ask() -> None:
            gate.wait(60)
            tokens.append(session.access_token())

        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert tokens == [stored_token(config_dir)] * 50
        assert server.count("refresh") == 1
        assert is_alive(server, config_dir)

    def test_two_hundred_tasks(self, server: CellsServer, config_dir: Path) -> None:
        session = Session.load("work", config_dir=str(config_dir))

        async def ask_all() -> list[str]:
            return await asyncio.gather(*(session.access_token_async() for _ in range(200)))

        assert asyncio.run(ask_all()) == [stored_token(config_dir)] * 200
        assert server.count("refresh") == 1
        assert is_alive(server, config_dir)

    def test_tasks_of_several_event_loops(self, server: CellsServer, config_dir: Path) -> None:
        session = Session.load("work", config_dir=str(config_dir))
        results: list[list[str]] = []

        async def ask_all() -> list[str]:
            return await asyncio.gather(*(session.access_token_async() for _ in range(50)))

        loops = [threading.Thread(target=lambda: results.append(asyncio.run(ask_all()))) for _ in range(4)]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join(60)
        assert results == [[stored_token(config_dir)] * 50] * 4
        assert server.count("refresh") == 1

    def test_a_failure_ends_the_wait_of_all_tasks_together(
        self, server: CellsServer, config_dir: Path
    ) -> None:
        server.fault("refresh", Fault(status=503, headers={"Retry-After": "9999"}, delay=0.2, times=None))
        session = Session.load("work", config_dir=str(config_dir))

        async def ask_all() -> list[object]:
            return await asyncio.gather(
                *(session.access_token_async() for _ in range(200)), return_exceptions=True
            )

        results = asyncio.run(ask_all())
        assert {getattr(result, "exit_code", None) for result in results} == {7}
        assert server.count("refresh") == 1

    def test_profiles_do_not_wait_for_each_other(self, server: CellsServer, config_dir: Path) -> None:
        store_session(server, config_dir, "home")
        age_session(config_dir, 600, "home")
        with ProfileStore(str(config_dir)).lock("work"):
            assert Session.load("home", config_dir=str(config_dir)).access_token()


def test_the_server_of_these_tests_detects_reuse(server: CellsServer, config_dir: Path) -> None:
    """Show that the detector detects: two refreshes with one token end the session."""
    store_session(server, config_dir)
    expire(server, config_dir)
    path = config_dir / "profiles" / "work.json"
    old = path.read_text(encoding="utf-8")
    Session.load("work", config_dir=str(config_dir)).access_token()
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["token"]["refresh_token"] in server.refresh_tokens()
    path.write_text(old, encoding="utf-8")
    with pytest.raises(Exception, match="already used"):
        Session.load("work", config_dir=str(config_dir)).access_token()
    assert server.refresh_tokens() == []
    assert server.access_tokens() == []
