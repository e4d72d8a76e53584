from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requires import require_program

from cells_loopback.desktop import notify
from cells_loopback.desktop.notify import Notification, send_notification

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)
HOSTILE = """it's "quoted" $HOME `id` \\ %s <b>&amp;</b>\n"; do shell script "id" --"""


class NotificationService:
    """A notification service on a session bus of its own, as a desktop has one."""

    def __init__(self, address: str) -> None:
        jeepney: Any = importlib.import_module("jeepney")
        blocking: Any = importlib.import_module("jeepney.io.blocking")
        self._jeepney = jeepney
        self._connection = blocking.open_dbus_connection(bus=address)
        request = jeepney.message_bus.RequestName("org.freedesktop.Notifications")
        assert self._connection.send_and_get_reply(request).body == (1,)
        self.received: queue.Queue[tuple[Any, ...]] = queue.Queue()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.closing(self._connection), contextlib.suppress(OSError):  # until the bus ends
            while True:
                message = self._connection.receive()
                if message.header.message_type is self._jeepney.MessageType.method_call:
                    self._connection.send(self._answer(message))

    def _answer(self, message: Any) -> Any:
        match message.header.fields[self._jeepney.HeaderFields.member]:
            case "Notify":
                self.received.put(message.body)
                return self._jeepney.new_method_return(message, "u", (1,))
            case "GetServerInformation":
                return self._jeepney.new_method_return(message, "ssss", ("test", "test", "1", "1.2"))
            case _:
                return self._jeepney.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod")


@contextlib.contextmanager
def running_bus(*options: str) -> Iterator[str]:
    command = [require_program("dbus-daemon"), "--session", "--nofork", "--print-address=1", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().strip()
        daemon.terminate()


@pytest.fixture
def session_bus() -> Iterator[str]:
    with running_bus() as address:
        yield address


@pytest.fixture
def service(session_bus: str) -> NotificationService:
    return NotificationService(session_bus)


def only(program: str, directory: Path) -> str:
    """Return a PATH on which nothing but one program is found."""
    (directory / program).symlink_to(require_program(program))
    return str(directory)


@pytest.mark.parametrize("program", ["notify-send", "busctl", "gdbus"])
def test_a_notification_arrives_on_a_real_session_bus_word_for_word(
    program: str, session_bus: str, service: NotificationService, tmp_path: Path
) -> None:
    environ = {"DBUS_SESSION_BUS_ADDRESS": session_bus, "PATH": only(program, tmp_path)}

    assert send_notification('Log in again: it\'s "é"', HOSTILE, urgency="critical", environ=environ)

    application, replaces, _icon, title, body, actions, hints, timeout = service.received.get(timeout=10)
    assert (application, replaces, actions, timeout) == ("cells-loopback", 0, [], -1)
    assert title == 'Log in again: it\'s "é"'
    assert body == HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert hints["urgency"] == ("y", 2)


def test_one_notification_is_shown_once_although_several_programs_could_show_it(
    session_bus: str, service: NotificationService
) -> None:
    environ = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": session_bus}

    assert send_notification("title", "body", environ=environ)

    assert service.received.get(timeout=10)[3:5] == ("title", "body")
    assert service.received.empty()


def test_the_bus_is_found_beside_the_runtime_directory_when_the_environment_does_not_name_it(
    tmp_path: Path,
) -> None:
    with running_bus(f"--address=unix:path={tmp_path}/bus") as address:
        service = NotificationService(address)
        environ = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"]}

        assert send_notification("title", "body", environ=environ)

        assert service.received.get(timeout=10)[3] == "title"


def test_without_a_notification_service_it_says_no(session_bus: str) -> None:
    environ = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": session_bus}
    assert not send_notification("title", "body", environ=environ)


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_without_any_program_it_says_no(platform: str, tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert not send_notification("title", "body", platform=platform, environ=environ)


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = tmp_path / "osascript"
    hang.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    hang.chmod(0o700)
    monkeypatch.setattr(notify, "_SECONDS", 0.2)
    assert not send_notification("title", "body", platform="darwin", environ={"PATH": str(tmp_path)})


def record_call(program: Path, record: Path) -> None:
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump([sys.argv[1:], dict(os.environ)], open({str(record)!r}, 'w'))\n"
    )
    program.chmod(0o700)


def test_on_wsl_the_toast_of_windows_is_the_last_resort(tmp_path: Path) -> None:
    record_call(tmp_path / "powershell.exe", tmp_path / "call.json")
    environ = {
        "PATH": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "WSL_DISTRO_NAME": "Debian",
        "WSLENV": "A:B",
    }

    assert send_notification("title", HOSTILE, environ=environ)

    arguments, environment = json.loads((tmp_path / "call.json").read_text())
    assert arguments[:3] == ["-NoProfile", "-NonInteractive", "-Command"]
    assert environment["WSLENV"] == "A:B:CELLS_LOOPBACK_TITLE:CELLS_LOOPBACK_BODY"
    assert (environment["CELLS_LOOPBACK_TITLE"], environment["CELLS_LOOPBACK_BODY"]) == ("title", HOSTILE)


@given(ANY_TEXT, ANY_TEXT)
def test_scripts_never_contain_the_texts(title: str, body: str) -> None:
    """AppleScript and PowerShell get them as data, so no text can be code."""
    command = notify.osascript_command(Notification(title, body))
    scripts = [script for option, script in itertools.pairwise(command) if option == "-e"]
    assert scripts == [*notify._APPLE_SCRIPT]
    assert command[-3:] == ["notification", title, body]
    assert notify.powershell_command("powershell")[-1] == notify._POWERSHELL_SCRIPT


@given(ANY_TEXT, ANY_TEXT)
def test_texts_are_never_taken_for_options(title: str, body: str) -> None:
    sent = notify.notify_send_command(Notification(title, body))
    assert sent.index("--") == len(sent) - 3
    called = notify.busctl_command(Notification(title, body))
    assert called[3] == "--"
    assert called[12] == title


def test_what_no_terminal_or_bus_should_see_becomes_a_space() -> None:
    assert notify._plain("a\x1b[31mb\udc80\x00c\nd") == "a [31mb  c\nd"
