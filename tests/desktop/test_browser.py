"""The person's browser is found, started apart from us, and never by a shell."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cells_loopback.desktop.browser import (
    BrowserError,
    describe_browser,
    find_browser,
    open_browser,
    this_platform,
    why_no_browser,
)

if TYPE_CHECKING:
    from cells_loopback.desktop.browser import BrowserProcess

URL = "https://files.example.com/oidc/oauth2/auth?client_id=cells-client&state=a-b_c&x=%20%s$(id)"
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="starts scripts by their #! line")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


class Desk:
    """A PATH of its own, with programs that stand in for browsers."""

    def __init__(self, directory: Path) -> None:
        self.programs = directory / "bin"
        self.programs.mkdir()
        self.record = directory / "record.json"

    def environ(self, **more: str) -> dict[str, str]:
        return {"PATH": str(self.programs), **more}

    def program(self, name: str, body: str = "") -> str:
        path = self.programs / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"#!{sys.executable}\n{body}")
        path.chmod(0o755)
        return str(path)

    def recorder(self, name: str) -> str:
        """A browser that writes down all it can see of how it was started."""
        return self.program(name, RECORDER.format(record=str(self.record)))

    def recorded(self, process: BrowserProcess) -> dict[str, Any]:
        assert ended(process) == 0
        record: dict[str, Any] = json.loads(self.record.read_text())
        return record


RECORDER = """
import json, os, signal, sys
def place(fd):
    try: return os.readlink("/dev/fd/%d" % fd)
    except OSError: return None
listed = os.listdir("/dev/fd")
sys.stdout.write("noise on stdout")
sys.stderr.write("noise on stderr")
seen = dict(
    argv=sys.argv[1:], pid=os.getpid(), session=os.getsid(0), group=os.getpgid(0), environ=dict(os.environ),
    open=[int(fd) for fd in listed if place(int(fd))], places=[place(fd) for fd in (0, 1, 2)],
    masked=len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
)
with open({record!r}, "w") as file: json.dump(seen, file)
"""


def ended(process: BrowserProcess, seconds: float = 30) -> int:
    """Return the exit status, waiting for it as a login does: by looking now and then."""
    deadline = time.monotonic() + seconds
    while (status := process.poll()) is None:
        assert time.monotonic() < deadline, "the browser did not end"
        time.sleep(0.005)
    return status


# --- how it is started


@posix_only
def test_a_browser_gets_the_address_as_one_argument_no_shell_reads_it(desk: Desk) -> None:
    process = open_browser(URL, desk.recorder("browser"), environ=desk.environ())
    assert desk.recorded(process)["argv"] == [URL]


@posix_only
def test_a_browser_has_a_session_of_its_own_so_ctrl_c_does_not_reach_it(desk: Desk) -> None:
    process = open_browser(URL, desk.recorder("browser"), environ=desk.environ())
    record = desk.recorded(process)
    assert record["pid"] == process.pid
    assert record["session"] == process.pid != os.getsid(0)


@posix_only
def test_a_browser_reads_nothing_and_writes_nowhere(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    process = open_browser(URL, desk.recorder("browser"), environ=desk.environ())
    assert desk.recorded(process)["places"] == [os.devnull] * 3
    assert capfd.readouterr() == ("", "")


@posix_only
def test_a_browser_inherits_no_socket_and_no_pipe(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        try:
            process = open_browser(URL, desk.recorder("browser"), environ=desk.environ())
            record = desk.recorded(process)
        finally:
            os.close(reading)
            os.close(writing)
    assert [fd for fd in record["open"] if fd > 2] == []


@posix_only
def test_a_browser_starts_with_no_signal_blocked(desk: Desk) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        process = open_browser(URL, desk.recorder("browser"), environ=desk.environ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert desk.recorded(process)["masked"] == 0


@posix_only
def test_a_browser_dies_of_a_broken_pipe_although_python_does_not(desk: Desk) -> None:
    shell = desk.programs / "browser"
    shell.write_text("#!/bin/sh\nkill -PIPE $$\nexit 7\n")
    shell.chmod(0o755)
    assert ended(open_browser(URL, "browser", environ=desk.environ())) == -signal.SIGPIPE


@posix_only
def test_a_browser_does_not_see_our_secrets(desk: Desk) -> None:
    environ = desk.environ(
        CELLS_LOOPBACK_CLIENT_SECRET="s3cret", CELLS_LOOPBACK_TOKEN="t0ken", LANG="C.UTF-8"
    )
    process = open_browser(URL, desk.recorder("browser"), environ=environ)
    seen = desk.recorded(process)["environ"]
    assert seen["LANG"] == "C.UTF-8"
    assert {"s3cret", "t0ken"} & set(seen.values()) == set()


@posix_only
def test_opening_does_not_wait_for_the_browser(desk: Desk) -> None:
    program = desk.program("browser", "import signal; signal.pause()")
    process = open_browser(URL, program, environ=desk.environ())
    assert process.poll() is None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process) == -signal.SIGTERM
    assert process.poll() == -signal.SIGTERM


@posix_only
def test_a_browser_that_fails_at_once_is_noticed(desk: Desk) -> None:
    process = open_browser(URL, desk.program("browser", "raise SystemExit(3)"), environ=desk.environ())
    assert ended(process) == 3


@posix_only
def test_a_browser_reaped_by_somebody_else_is_not_a_failure(desk: Desk) -> None:
    process = open_browser(URL, desk.program("browser", "raise SystemExit(3)"), environ=desk.environ())
    assert process.pid is not None
    os.waitpid(process.pid, 0)
    assert process.poll() == 0


@posix_only
def test_the_next_login_reaps_the_browsers_of_those_before(desk: Desk) -> None:
    first = open_browser(URL, desk.program("first"), environ=desk.environ())
    assert first.pid is not None
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet reaped
    second = open_browser(URL, desk.program("second"), environ=desk.environ())
    with pytest.raises(ChildProcessError):
        os.waitpid(first.pid, os.WNOHANG)
    assert ended(second) == 0


# --- which one


@posix_only
def test_a_percent_s_is_where_the_address_goes(desk: Desk) -> None:
    desk.recorder("browser")
    process = open_browser(URL, "browser --app=%s --new-window", environ=desk.environ())
    assert desk.recorded(process)["argv"] == [f"--app={URL}", "--new-window"]


@posix_only
def test_arguments_come_before_the_address(desk: Desk) -> None:
    desk.recorder("browser")
    process = open_browser(URL, "browser -P 'my profile' --new-tab", environ=desk.environ())
    assert desk.recorded(process)["argv"] == ["-P", "my profile", "--new-tab", URL]


@posix_only
@pytest.mark.parametrize("written", ["{}", "'{}'", '"{}" %s'], ids=["bare", "quoted", "quoted with %s"])
def test_a_path_may_hold_spaces(desk: Desk, written: str) -> None:
    path = desk.recorder("My Browsers/browser")
    process = open_browser(URL, written.format(path), environ=desk.environ())
    assert desk.recorded(process)["argv"] == [URL]


@posix_only
def test_the_variable_browser_is_a_list_and_the_first_program_that_exists_wins(desk: Desk) -> None:
    desk.recorder("second")
    desk.program("third", "raise SystemExit(1)")
    environ = desk.environ(BROWSER="first::second --flag:third")
    assert desk.recorded(open_browser(URL, environ=environ))["argv"] == ["--flag", URL]


@posix_only
def test_the_command_comes_before_the_variable(desk: Desk) -> None:
    desk.recorder("mine")
    desk.program("theirs", "raise SystemExit(1)")
    assert desk.recorded(open_browser(URL, "mine", environ=desk.environ(BROWSER="theirs")))["argv"] == [URL]


@posix_only
def test_an_ampersand_at_the_end_means_what_happens_anyway(desk: Desk) -> None:
    desk.recorder("browser")
    assert desk.recorded(open_browser(URL, environ=desk.environ(BROWSER="browser &")))["argv"] == [URL]


@posix_only
def test_the_systems_opener_comes_last_and_does_not_read_browser_again(desk: Desk) -> None:
    desk.recorder("xdg-open")
    environ = desk.environ(DISPLAY=":0", BROWSER="missing")
    record = desk.recorded(open_browser(URL, environ=environ, platform="linux"))
    assert record["argv"] == [URL]
    assert "BROWSER" not in record["environ"]


@posix_only
def test_an_opener_that_cannot_be_started_is_followed_by_the_next(desk: Desk) -> None:
    broken = Path(desk.program("xdg-open"))
    broken.write_bytes(b"\x7fnot a program")
    desk.recorder("gio")
    process = open_browser(URL, environ=desk.environ(WAYLAND_DISPLAY="wayland-0"), platform="linux")
    assert desk.recorded(process)["argv"] == ["open", URL]


@posix_only
def test_when_nothing_starts_the_reason_names_each(desk: Desk) -> None:
    Path(desk.program("xdg-open")).write_bytes(b"\x7fnot a program")
    with pytest.raises(BrowserError, match=r"xdg-open does not start: .+; no program that opens web pages"):
        open_browser(URL, environ=desk.environ(DISPLAY=":0"), platform="linux")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("nowhere", "--browser: there is no program 'nowhere'"),
        ("/no/such/browser %s", "--browser: there is no program '/no/such/browser'"),
        ("", "--browser is not a command: ''"),
        ("'open quote", '--browser is not a command: "\'open quote"'),
    ],
)
def test_a_named_command_that_cannot_be_meant_is_an_error_and_nothing_else_is_tried(
    desk: Desk, command: str, reason: str
) -> None:
    desk.program("xdg-open")
    with pytest.raises(BrowserError) as caught:
        open_browser(URL, command, environ=desk.environ(DISPLAY=":0"), platform="linux")
    assert caught.value.reason == reason


def test_a_file_that_may_not_be_executed_is_no_browser(desk: Desk) -> None:
    Path(desk.program("browser")).chmod(0o644)
    assert why_no_browser(desk.environ(), "browser") == "--browser: there is no program 'browser'"


# --- text mode


@pytest.mark.parametrize("name", ["w3m", "lynx", "links2", "elinks", "browsh"])
def test_a_text_mode_browser_never_takes_over_the_terminal(desk: Desk, name: str) -> None:
    desk.program(name)
    with pytest.raises(BrowserError, match=f"{name} is a text-mode browser"):
        open_browser(URL, f"{name} -s", environ=desk.environ())


def test_a_link_to_a_text_mode_browser_is_one(desk: Desk) -> None:
    os.symlink(desk.program("w3m"), desk.programs / "alternative")
    os.symlink("alternative", desk.programs / "www-browser")
    reason = why_no_browser(desk.environ(DISPLAY=":0"), platform="linux")
    assert reason == "no program that opens web pages was found"


def test_a_text_mode_browser_in_the_variable_gives_way_to_the_systems(desk: Desk) -> None:
    desk.program("lynx")
    opener = desk.program("xdg-open")
    chosen = find_browser(None, desk.environ(BROWSER="lynx", DISPLAY=":0"), "linux")
    assert chosen.words == (opener,)
    reason = why_no_browser(desk.environ(BROWSER="lynx", SSH_TTY="/dev/pts/1"), platform="linux")
    assert reason is not None
    assert "lynx is a text-mode browser" in reason
    assert reason.endswith("this is an SSH session without a display")


# --- why none

ELSEWHERE = "this is an SSH session, and the browser would open on the other machine"


@pytest.mark.parametrize(
    ("platform", "environ", "reason"),
    [
        ("linux", {"SSH_CONNECTION": "192.0.2.1 5 192.0.2.2 22"}, "this is an SSH session without a display"),
        ("linux", {"container": "podman"}, "this is a container without a display"),
        ("linux", {"BROWSER": "none", "DISPLAY": ":0"}, "$BROWSER is none"),
        ("linux", {"DISPLAY": ":0"}, "no program that opens web pages was found"),
        ("linux", {"DISPLAY": ":0", "SSH_TTY": "/dev/pts/0"}, "no program that opens web pages was found"),
        ("darwin", {"SSH_TTY": "/dev/ttys0"}, ELSEWHERE),
        ("win32", {"SSH_CLIENT": "192.0.2.1 5 22"}, ELSEWHERE),
        ("wsl", {"SSH_TTY": "/dev/pts/0"}, ELSEWHERE),
    ],
)
def test_the_reason_why_no_browser_opens_is_told(
    desk: Desk, platform: str, environ: dict[str, str], reason: str
) -> None:
    assert why_no_browser(desk.environ(**environ), platform=platform) == reason
    assert describe_browser(None, desk.environ(**environ), platform) == f"none: {reason}"


def test_a_machine_without_a_display_says_so(desk: Desk) -> None:
    reason = why_no_browser(desk.environ(), platform="linux")
    assert reason in {
        "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)",
        "this is a container without a display",
    }


def test_a_browser_named_by_the_person_needs_no_display(desk: Desk) -> None:
    helper = desk.program("browser.sh")
    environ = desk.environ(BROWSER=helper, SSH_CONNECTION="192.0.2.1 5 192.0.2.2 22")
    assert why_no_browser(environ, platform="linux") is None
    assert describe_browser(None, environ, "linux") == f"{helper} ($BROWSER)"


# --- other systems, by the commands that they would be given


def test_macos_opens_with_open(desk: Desk) -> None:
    opener = desk.program("open")
    assert find_browser(None, desk.environ(), "darwin").argv(URL) == [opener, URL]


def test_macos_knows_applications_by_name(desk: Desk) -> None:
    opener = desk.program("open")
    assert find_browser("Safari", desk.environ(), "darwin").argv(URL) == [opener, "-a", "Safari", URL]
    named = find_browser("'Google Chrome'", desk.environ(), "darwin")
    assert named.argv(URL) == [opener, "-a", "Google Chrome", URL]


def test_macos_without_open_says_what_is_missing(desk: Desk) -> None:
    assert why_no_browser(desk.environ(), "Safari", "darwin") == "--browser: there is no program 'Safari'"


def test_windows_opens_by_its_own_call(desk: Desk) -> None:
    browser = find_browser(None, desk.environ(), "win32")
    assert browser.argv(URL) == []
    assert str(browser) == "the default browser of Windows (the system's)"


def test_a_call_of_windows_that_fails_is_a_reason_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise OSError(2, "No application is associated with the file")

    monkeypatch.setattr("cells_loopback.desktop.browser._start", start)
    with pytest.raises(BrowserError, match="the default browser of Windows does not start: No application"):
        open_browser(URL, environ=desk.environ(), platform="win32")


def test_a_windows_command_keeps_its_backslashes(desk: Desk) -> None:
    desk.program("browser\\fire fox.exe")
    browser = find_browser('"browser\\fire fox.exe" -new-tab %s', desk.environ(), "win32")
    assert browser.argv(URL) == [f"{desk.programs}/browser\\fire fox.exe", "-new-tab", URL]


def test_the_windows_variable_is_split_at_semicolons(desk: Desk) -> None:
    path = desk.program("browser.exe")
    assert find_browser(None, desk.environ(BROWSER="C:\\no.exe;browser.exe"), "win32").words == (path,)


@pytest.mark.parametrize("name", ["browser.bat", "BROWSER.CMD"])
def test_windows_never_runs_a_batch_file_which_would_interpret_the_address(desk: Desk, name: str) -> None:
    desk.program(name)
    reason = why_no_browser(desk.environ(), name, "win32")
    assert reason == f"--browser: {name} is a batch file, which would read the address as commands"


@pytest.mark.parametrize(
    ("present", "arguments"),
    [
        (["wslview", "rundll32.exe", "powershell.exe", "xdg-open"], [URL]),
        (["rundll32.exe", "powershell.exe", "xdg-open"], ["url.dll,FileProtocolHandler", URL]),
        (
            ["powershell.exe", "xdg-open"],
            ["-NoProfile", "-NonInteractive", "-Command", f"Start-Process '{URL}'"],
        ),
        (["xdg-open"], [URL]),
    ],
    ids=lambda value: value[0],
)
def test_wsl_opens_the_browser_of_windows(desk: Desk, present: list[str], arguments: list[str]) -> None:
    paths = [desk.program(name) for name in present]
    chosen = find_browser(None, desk.environ(DISPLAY=":0"), "wsl")
    assert chosen.argv(URL) == [paths[0], *arguments]


@pytest.mark.skipif(sys.platform != "linux", reason="WSL is a Linux")
def test_wsl_is_known_by_its_name() -> None:
    assert this_platform({"WSL_DISTRO_NAME": "Debian"}) == "wsl"
    assert this_platform({}) in {"linux", "wsl"}


# --- the address


@pytest.mark.parametrize(
    "url",
    [
        "--version",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "ftp://example.com/",
        "https://example.com/a b",
        "https://example.com/\n--flag",
        'https://example.com/"&calc"',
        "https://example.com/`id`",
        "https://example.com/\\x",
        "https://example.com/\u202e",
        "",
    ],
)
def test_only_a_web_address_is_opened(desk: Desk, url: str) -> None:
    program = desk.recorder("browser")
    with pytest.raises(BrowserError, match="address"):
        open_browser(url, program, environ=desk.environ())
    assert not desk.record.exists()


@posix_only
def test_an_apostrophe_cannot_end_the_quotes_of_powershell(desk: Desk) -> None:
    desk.recorder("powershell.exe")
    process = open_browser("https://example.com/?a=';calc;'", environ=desk.environ(), platform="wsl")
    assert desk.recorded(process)["argv"][-1] == "Start-Process 'https://example.com/?a=%27;calc;%27'"


# --- cost


def test_importing_and_opening_loads_none_of_the_slow_modules(desk: Desk) -> None:
    program = desk.program("browser")
    slow = {"subprocess", "webbrowser", "shlex", "shutil", "signal", "enum", "re", "typing"}
    code = (
        "import sys; before = set(sys.modules); from cells_loopback.desktop.browser import open_browser\n"
        f"open_browser('http://127.0.0.1:1/', {program!r})\n"
        f"print(*sorted({slow} & (set(sys.modules) - before)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (answer.stdout, answer.stderr) == ("\n", "")
