"""What speed is made of, counted: modules imported, files opened, calls of the system.

Counts are the same on a busy machine, where times are not. The warm path of ``token`` is counted in
``test_main``, the times of everything by ``scripts/bench``.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from examples import PROFILE, TOKENS
from loopback_client import free_port
from requires import require_program
from sessions import write_session

from cells_loopback import Session
from cells_loopback.clock import uptime, wall
from cells_loopback.store.preferences import read_default_profile, read_login_options
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cells_loopback.store.profiles import Profile
    from cells_loopback.testing import CellsServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the early paths are those of POSIX")

HEAVY = {
    "aiohttp", "asyncio", "botocore", "concurrent.futures", "cryptography", "email", "http.client", "httpx",
    "importlib.metadata", "joserfc", "keyring", "logging", "platformdirs", "requests", "subprocess",
    "tomlkit", "truststore", "urllib.request",
}  # fmt: skip

EARLY = {"cells_loopback"} | {
    f"cells_loopback.{name}"
    for name in (
        "__main__", "clock", "desktop", "desktop.browser", "early_browser", "errors", "loopback",
        "loopback.listener", "process", "process.termination", "store", "store.config_dir", "store.lock",
        "store.private_file", "store.snapshot",
    )
}  # fmt: skip

# Runs the program up to the moment that a browser is started (or to its end), and tells what it took.
OBSERVE = """
import os, sys
config_dir, opened, connected = sys.argv.pop(1), [], []
def tell():
    os.write(2, repr([sorted(set(sys.modules) - before), opened, connected]).encode())
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(config_dir):
        opened.append(arguments[0][len(config_dir) + 1:])
    elif event == "socket.connect":
        connected.append(arguments[1][1])
    elif event == "os.posix_spawn":
        tell()
        os._exit(0)
before = set(sys.modules)
sys.addaudithook(note)
from cells_loopback.__main__ import _run
_run(sys.argv[1:])
tell()
"""


class Taken:
    """What a call took up to its browser, or to its end."""

    def __init__(self, modules: list[str], opened: list[str], connected: list[int]) -> None:
        self.modules = set(modules)
        self.ours = {name for name in modules if name.startswith("cells_loopback")}
        self.opened = opened
        self.connected = connected

    def heavy(self) -> set[str]:
        """Those of its modules that cost more than they are worth here."""
        return self.modules & HEAVY


def observe(config_dir: Path, *arguments: str) -> Taken:
    call = [sys.executable, "-c", OBSERVE, str(config_dir), "--config-dir", str(config_dir), *arguments]
    child = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True)
    return Taken(*ast.literal_eval(child.stderr.splitlines()[-1]))


def modules_behind(statement: str) -> set[str]:
    """Return what a statement of the standard library imports, on this version of it."""
    code = (
        f"import sys; before = set(sys.modules); {statement}; print(repr(sorted(set(sys.modules) - before)))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(ast.literal_eval(child.stdout))


def valid_profile(**changes: Any) -> Profile:
    tokens = replace(TOKENS, obtained_at=wall(), obtained_uptime=uptime())
    return replace(PROFILE, name="work", tokens=tokens, **changes)


@pytest.fixture(autouse=True)
def same_signal_handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "config"
    write_session(directory, valid_profile(redirect_uri=f"http://localhost:{free_port()}/servers/callback"))
    return directory


@pytest.fixture
def browser() -> str:
    return shutil.which("true") or "/bin/true"


AGAIN = ("login", "--force", "--browser")


class TestLoginAgain:
    def test_the_browser_starts_with_the_least_that_sockets_take(
        self, config_dir: Path, browser: str
    ) -> None:
        taken = observe(config_dir, *AGAIN, browser)
        assert taken.ours == EARLY
        light = modules_behind("import _json, errno, fcntl, signal, socket, stat, time")
        assert taken.modules - taken.ours <= light | {"__future__"}
        assert not taken.modules & {"argparse", "dataclasses", "json", "typing"}

    def test_three_files_are_opened_and_nobody_is_called_but_the_port_itself(
        self, config_dir: Path, browser: str
    ) -> None:
        taken = observe(config_dir, *AGAIN, browser, "-p", "work")
        assert taken.opened == ["profiles/work.json", "config.toml", "profiles/work.login"]
        port = int(PROFILE_PORT.findall((config_dir / "profiles/work.json").read_text())[0])
        assert set(taken.connected) == {port}

    def test_a_session_that_was_refused_needs_no_force(self, config_dir: Path, browser: str) -> None:
        write_session(config_dir, with_refusal(ProfileStore(str(config_dir)).read("work")))
        taken = observe(config_dir, "login", "--browser", browser)
        assert "argparse" not in taken.modules

    @pytest.mark.parametrize(
        "arguments",
        [
            ("login", "files.example.com", "--force", "-p", "work"),
            ("-p", "work", "login", "https://files.example.com/", "--force"),
            ("--profile=work", "-q", "--no-color", "login", "--force", "-v"),
            ("login", "--force", "--verbose", "--quiet"),
        ],
        ids=" ".join,
    )
    def test_however_it_is_said(self, config_dir: Path, browser: str, arguments: tuple[str, ...]) -> None:
        assert "argparse" not in observe(config_dir, *arguments, f"--browser={browser}").modules

    @pytest.mark.parametrize(
        "arguments",
        [
            ("login", "--force", "--json"),
            ("login", "--force", "--paste"),
            ("login", "--force", "--no-browser"),
            ("login", "--force", "--scope", "openid"),
            ("login", "--force", "--nonsense"),
            ("login", "--force", "one", "two"),
            ("login", "--force", "-p", "-q"),
            ("login", "--force", "-p", ""),
            ("login", "--force", "-p"),
            ("login", "--force", "other.example.com", "-p", "work"),
            ("login",),
            ("--browser", "true", "login", "--force"),
            ("-p", "login", "list"),
            ("list", "login"),
        ],
        ids=" ".join,
    )
    def test_any_other_call_is_left_to_the_ordinary_command(
        self, config_dir: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cells_loopback import early_browser

        monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", str(config_dir))
        monkeypatch.setattr(early_browser, "open_browser", unexpected)
        assert early_browser.open_early_browser(arguments) is None
        assert not (config_dir / "profiles" / "work.login").exists()

    @pytest.mark.parametrize(
        ("name", "value"), [("CELLS_LOOPBACK_CLIENT_SECRET", "secret"), ("CELLS_LOOPBACK_PROFILE", "home")]
    )
    def test_the_environment_may_ask_for_another_login(
        self, config_dir: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cells_loopback import early_browser

        monkeypatch.setenv(name, value)
        monkeypatch.setattr(early_browser, "open_browser", unexpected)
        arguments = ["--config-dir", str(config_dir), "login", "files.example.com", "--force"]
        assert early_browser.open_early_browser(arguments) is None

    @pytest.mark.parametrize("text", ["[login]\ntimeout = 5\n", "login.browser = 'w3m'\n", "login = {}\n"])
    def test_preferences_are_for_the_ordinary_command_to_read(
        self, config_dir: Path, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cells_loopback import early_browser

        with (config_dir / "config.toml").open("a") as file:
            file.write(text)
        monkeypatch.setattr(early_browser, "open_browser", unexpected)
        arguments = ["--config-dir", str(config_dir), "login", "--force"]
        assert early_browser.open_early_browser(arguments) is None

    def test_what_no_login_takes_over_is_undone(self, config_dir: Path, browser: str) -> None:
        from cells_loopback.early_browser import open_early_browser

        arguments = ["--config-dir", str(config_dir), *AGAIN, browser]
        for _ in range(2):  # the second time, everything is free again
            early = open_early_browser(arguments)
            assert early is not None
            assert early.process.pid is not None
            # Until it has become another program, the child has a copy of each of our sockets.
            os.waitpid(early.process.pid, 0)
            early.abandon()
            early.abandon()
            assert not (config_dir / "profiles" / "work.login").exists()

    def test_what_a_login_has_taken_over_is_its_own(self, config_dir: Path, browser: str) -> None:
        from cells_loopback.early_browser import open_early_browser

        early = open_early_browser(["--config-dir", str(config_dir), *AGAIN, browser])
        assert early is not None
        lock = early.take_over()
        early.abandon()
        assert (config_dir / "profiles" / "work.login").exists()
        assert all(sock.fileno() >= 0 for sock in early.sockets)
        with pytest.raises(RuntimeError):
            early.take_over()
        for sock in early.sockets:
            sock.close()
        lock.release()


PROFILE_PORT = re.compile(r'"redirect_uri": "http://localhost:(\d+)/')


def unexpected(*_: object, **__: object) -> None:
    raise AssertionError("a browser is opened")


def with_refusal(profile: Profile) -> Profile:
    return replace(profile, renewals=replace(profile.renewals, rejected_at=wall()))


def free_redirect_uri() -> str:
    """Who has the port of a client that Cells ships with is asked by heavier means."""
    return f"http://localhost:{free_port()}/servers/callback"


class TestFirstLogin:
    def test_nothing_heavy_is_loaded_before_the_browser(
        self, tmp_path: Path, browser: str, server: CellsServer
    ) -> None:
        arguments = ("login", server.site, "--redirect-uri", free_redirect_uri(), "--browser", browser)
        taken = observe(tmp_path / "new", *arguments)
        assert taken.heavy() == set()
        assert "ssl" not in taken.modules  # which plain http to this machine has no use for
        assert server.count("discovery") == 1

    def test_nor_for_a_second_server(self, config_dir: Path, browser: str, server: CellsServer) -> None:
        arguments = ("login", server.site, "--redirect-uri", free_redirect_uri(), "--browser", browser)
        assert observe(config_dir, *arguments).heavy() == set()


class TestOtherCommands:
    @pytest.mark.parametrize(
        "arguments",
        [("token", "--format", "json"), ("status",), ("list",), ("s3", "env")],
        ids=" ".join,
    )
    def test_a_valid_session_needs_no_http(self, config_dir: Path, arguments: tuple[str, ...]) -> None:
        network = HEAVY - {"logging", "subprocess"}
        assert observe(config_dir, *arguments).modules & network == set()

    def test_exec_needs_none_either(self, config_dir: Path) -> None:
        program = "import os, sys; print(os.environ['CELLS_SITE'])"
        command = [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "cells_loopback",
            "--config-dir",
            str(config_dir),
        ]
        done = subprocess.run(
            [*command, "exec", "--", sys.executable, "-c", program],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout == "https://files.example.com\n"
        loaded = set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE))
        assert "cells_loopback.session.session" in loaded
        assert not loaded & {"httpx", "asyncio", "aiohttp", "tomlkit", "joserfc"}

    def test_credentials_for_s3_take_the_warm_path(self, config_dir: Path) -> None:
        taken = observe(config_dir, "s3", "credentials")
        assert not taken.modules & {"argparse", "json", "re", "typing", "dataclasses"}
        assert taken.opened == ["config.toml", "profiles/work.json"]

    def test_the_package_is_two_modules(self) -> None:
        assert modules_behind("import cells_loopback") == {"__future__", "cells_loopback"}


class TestConfig:
    @pytest.mark.parametrize(
        "text",
        [None, "", "# mine\n\n", 'default_profile = "work"\n', '# mine\r\ndefault_profile = "work"\r\n'],
    )
    def test_a_plain_file_is_read_without_a_toml_library(
        self, tmp_path: Path, text: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if text is not None:
            (tmp_path / "config.toml").write_bytes(text.encode())
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "tomlkit", None)
            assert read_login_options(str(tmp_path)) == {}
            if text is None or "work" in text:
                assert read_default_profile(str(tmp_path)) == (text and "work")

    @pytest.mark.parametrize(
        ("text", "options"),
        [
            ('default_profile = "work"\n[login]\ntimeout = 5\n', {"timeout": 5}),
            ("login.timeout = 5\n", {"timeout": 5}),
            ("login = { timeout = 5 }\n", {"timeout": 5}),
            ('"login" = { "timeout" = 5 }\n', {"timeout": 5}),
            ("#" * 70000 + "\n[login]\ntimeout = 5\n", {"timeout": 5}),
            ('x = """\ndefault_profile = "work"\n"""\n', {}),
        ],
    )
    def test_any_other_is_read_with_it(self, tmp_path: Path, text: str, options: dict[str, object]) -> None:
        (tmp_path / "config.toml").write_text(text)
        assert read_login_options(str(tmp_path)) == options


class TestInProcess:
    def test_a_valid_token_takes_no_look_at_the_disk_but_one_a_second(
        self, config_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[str] = []
        stamp = ProfileStore.stamp

        def count(store: ProfileStore, name: str) -> tuple[int, int, int]:
            looks.append(name)
            return stamp(store, name)

        monkeypatch.setattr(ProfileStore, "stamp", count)
        session = Session.load(config_dir=str(config_dir))
        began = uptime()
        assert {session.access_token() for _ in range(10_000)} == {"ory_at_the-access-token"}
        assert len(looks) <= 2 + 2 * (uptime() - began)

    def test_threads_wait_for_nobody(self, config_dir: Path) -> None:
        session = Session.load(config_dir=str(config_dir))
        session.access_token()
        source = session._source
        with source._renewing:  # type: ignore[union-attr]  # a renewal that another thread does
            got: list[str] = []
            threads = [
                threading.Thread(target=lambda: got.append(session.access_token()), daemon=True)
                for _ in range(32)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
        assert got == ["ory_at_the-access-token"] * 32


class TestSystemCalls:
    @staticmethod
    def count(*command: str) -> Counter[str]:
        strace = require_program("strace")
        done = subprocess.run(
            [strace, "-f", "-qq", "-e", "signal=none", "-o", "/dev/stderr", *command],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return Counter(re.findall(r"^(?:\d+ +)?(\w+)\(", done.stderr, re.MULTILINE))

    def test_a_token_takes_no_process_no_thread_no_socket_and_one_write(self, config_dir: Path) -> None:
        empty = self.count(sys.executable, "-c", "import cells_loopback")
        program = [sys.executable, "-m", "cells_loopback", "--config-dir", str(config_dir)]
        counts = self.count(*program, "token") - empty
        forbidden = "clone clone3 fork vfork socket connect bind flock fsync rename unlink sendto"
        assert not counts.keys() & set(forbidden.split())
        assert counts["write"] == 1
        # A few for each of the modules counted above, more where their bytecode is not cached.
        assert counts["openat"] <= 40
        assert counts.total() <= 500
