"""The desktop: open a URL in the person's browser, or say why that cannot be.

The browser is a program of its own that we start and leave alone. It gets neither our terminal nor
our output (stdout is the result of a command), nor our descriptors, our signals or our secrets, and
no shell ever reads the URL. Whether it really showed the page is not known here: a process that
ends with an error at once is all that can be noticed, with `BrowserProcess.poll`.

Imported before the first page is asked for, so it imports nothing that takes a millisecond.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from subprocess import Popen
    from typing import Any

# The ways of each system to open a URL, best first; `%s` is the URL, or it comes last.
_LINUX = (
    ("xdg-open",),
    ("gio", "open"),
    ("x-www-browser",),
    ("sensible-browser",),
    ("www-browser",),
    ("firefox",),
    ("chromium",),
    ("google-chrome",),
)
_SYSTEM32 = "/mnt/c/Windows/System32"
_WSL = (  # the browser of Windows, the absolute names for where Windows' PATH is not appended
    ("wslview",),
    ("rundll32.exe", "url.dll,FileProtocolHandler"),
    (f"{_SYSTEM32}/rundll32.exe", "url.dll,FileProtocolHandler"),
    ("powershell.exe", "-NoProfile", "-NonInteractive", "-Command", "Start-Process '%s'"),
)
_TEXT_MODE = frozenset(
    {"browsh", "carbonyl", "cha", "edbrowse", "elinks", "links", "links2", "lynx", "netrik", "retawq", "w3m"}
)
# What a URL may hold (RFC 3986 section 2), so that no quoting of any program can be left by it.
_NEVER_IN_A_URL = frozenset(' "<>\\^`{|}')
_WITHHELD = ("CELLS_LOOPBACK_CLIENT_SECRET", "CELLS_LOOPBACK_TOKEN")
# SIGPIPE and SIGXFSZ, which Python ignores and a new program would inherit as ignored. As numbers,
# because the module `signal` imports `enum`: 4 ms by `-X importtime`, of a login that has 50.
_IGNORED_BY_PYTHON = (13, 25)


class BrowserError(Exception):
    """No browser can be opened; ``reason`` is a part of a sentence that tells why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Browser:
    """A program that opens URLs, and where its name came from.

    ``words`` are the program's path and its arguments, with ``%s`` for the URL. None at all mean
    that the system has a call for it (Windows).
    """

    __slots__ = ("origin", "words")

    def __init__(self, words: tuple[str, ...], origin: str) -> None:
        self.words = words
        self.origin = origin

    @property
    def program(self) -> str:
        """The program's path, or what stands for it where the system has a call."""
        return self.words[0] if self.words else "the default browser of Windows"

    def argv(self, url: str) -> list[str]:
        """Return the command that opens ``url``."""
        if any("%s" in word for word in self.words):
            return [word.replace("%s", url) for word in self.words]
        return [*self.words, url] if self.words else []

    def __str__(self) -> str:
        return f"{' '.join((self.program, *self.words[1:]))} ({self.origin})"


class BrowserProcess:
    """What was started: ``pid`` is None where the system started it for us."""

    __slots__ = ("_popen", "_status", "pid")

    def __init__(self, pid: int | None, popen: Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._popen = popen
        self._status = 0 if pid is None else None

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs; never wait."""
        if self._popen is not None:
            return self._popen.poll()
        if self._status is None and self.pid is not None and sys.platform != "win32":
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # reaped by somebody else: nothing wrong that we know of
                self._status = 0
            else:
                self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status


_started: list[BrowserProcess] = []


def open_browser(
    url: str,
    command: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    platform: str | None = None,
) -> BrowserProcess:
    """Open ``url`` with ``command``, else with the first of ``$BROWSER`` and the system's that starts.

    ``platform`` is ``linux`` (and its relatives), ``wsl``, ``darwin`` or ``win32``; None means this one.
    Raises `BrowserError`.
    """
    url = _checked(url)
    # A program that runs on for days would otherwise collect a dead child a login.
    _started[:] = [process for process in _started if process.poll() is None]
    problems: list[str] = []
    for browser in _browsers(command, environ, platform or this_platform(environ), problems):
        try:
            process = _start(browser, url, environ)
        except OSError as error:
            problems.append(f"{browser.program} does not start: {error.strerror}")
        else:
            _started.append(process)
            return process
    raise BrowserError("; ".join(problems))


def find_browser(
    command: str | None = None, environ: Mapping[str, str] = os.environ, platform: str | None = None
) -> Browser:
    """Return the browser that `open_browser` tries first; raises `BrowserError`."""
    problems: list[str] = []
    for browser in _browsers(command, environ, platform or this_platform(environ), problems):
        return browser
    raise BrowserError("; ".join(problems))


def why_no_browser(
    environ: Mapping[str, str] = os.environ, command: str | None = None, platform: str | None = None
) -> str | None:
    """Return why no browser can be opened here, as a part of a sentence, or None when one can."""
    try:
        find_browser(command, environ, platform)
    except BrowserError as error:
        return error.reason
    return None


def describe_browser(
    command: str | None = None, environ: Mapping[str, str] = os.environ, platform: str | None = None
) -> str:
    """Return in words which browser a login would open, or why none."""
    try:
        return str(find_browser(command, environ, platform))
    except BrowserError as error:
        return f"none: {error.reason}"


def this_platform(environ: Mapping[str, str] = os.environ) -> str:
    """Return ``darwin``, ``win32``, ``wsl`` (Linux inside Windows), else ``linux``."""
    if sys.platform in {"win32", "darwin"}:
        return sys.platform
    if environ.get("WSL_DISTRO_NAME") or "microsoft" in os.uname().release.lower():
        return "wsl"
    return "linux"


def why_no_screen(environ: Mapping[str, str], platform: str) -> str | None:
    """Return why a browser of the system's would not be seen by the person, or None."""
    remote = is_remote(environ)
    if platform != "linux":
        return "this is an SSH session, and the browser would open on the other machine" if remote else None
    if _has_display(environ):
        return None
    if remote:
        return "this is an SSH session without a display"
    if is_container(environ):
        return "this is a container without a display"
    return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"


def is_remote(environ: Mapping[str, str]) -> bool:
    """Whether this is an SSH session."""
    return any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"))


def is_container(environ: Mapping[str, str]) -> bool:
    """Whether this is a container, by the marks that systemd, Docker and Podman leave in theirs."""
    return bool(environ.get("container")) or any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv")))


def _checked(url: str) -> str:
    if not (url.isascii() and url.isprintable() and _NEVER_IN_A_URL.isdisjoint(url)):
        raise BrowserError("the address holds a character that no URL may hold")
    if not url.lower().startswith(("http://", "https://")):
        raise BrowserError("the address is not a web address")
    return url.replace("'", "%27")  # legal, but the one that would end PowerShell's quotes


def _browsers(
    command: str | None, environ: Mapping[str, str], platform: str, problems: list[str]
) -> Iterator[Browser]:
    """Yield what may be tried, in order, and append to ``problems`` why something may not."""
    if command is not None:
        yield from _parse_command(command, "--browser", environ, platform, problems)
        return
    for entry in environ.get("BROWSER", "").split(";" if platform == "win32" else ":"):
        if entry.strip() == "none":  # the word by which JavaScript's tool chains are told to open nothing
            problems.append("$BROWSER is none")
            return
        if entry.strip():
            yield from _parse_command(entry, "$BROWSER", environ, platform, problems)
    no_screen = why_no_screen(environ, platform)
    if no_screen is not None:
        problems.append(no_screen)
        return
    if platform == "win32":
        yield Browser((), "the system's")
        return
    for program, *arguments in _system_commands(environ, platform):
        path = find_program(program, environ, platform)
        if path is not None and not _is_text_mode(path):
            yield Browser((path, *arguments), "the system's")
    problems.append("no program that opens web pages was found")


def _parse_command(
    text: str, origin: str, environ: Mapping[str, str], platform: str, problems: list[str]
) -> Iterator[Browser]:
    """Read a command as the standard library's ``webbrowser`` does: words, ``%s``, perhaps a last ``&``."""
    try:
        program, *arguments = _split(text.strip(), environ, platform)
    except ValueError:
        problems.append(f"{origin} is not a command: {text.strip()!r}")
        return
    path = find_program(program, environ, platform)
    if path is None and platform == "darwin":  # applications are known by name: Safari, Google Chrome
        opener = find_program("open", environ, platform)
        if opener is not None:
            yield Browser((opener, "-a", program, *arguments), origin)
            return
    if path is None:
        problems.append(f"{origin}: there is no program {program!r}")
    elif _is_text_mode(path):
        problems.append(f"{origin}: {program} is a text-mode browser and would take over the terminal")
    elif platform == "win32" and path.lower().endswith((".bat", ".cmd")):
        problems.append(f"{origin}: {program} is a batch file, which would read the address as commands")
    else:
        yield Browser((path, *arguments), origin)


def _split(text: str, environ: Mapping[str, str], platform: str) -> list[str]:
    """Return the words of a command; raises ValueError when it has none or an open quote."""
    if not text:
        raise ValueError(text)
    if not any(char in " \t\"'\\" for char in text) or find_program(text, environ, platform):
        return [text]
    from shlex import split

    # Backslashes separate directories on Windows; without POSIX rules the quotes stay on the words.
    words = [word.strip('"') for word in split(text, posix=False)] if platform == "win32" else split(text)
    if words and words[-1] == "&":  # "in the background": every browser is
        words.pop()
    return words


def find_program(program: str, environ: Mapping[str, str], platform: str) -> str | None:
    """Return the path of a program: a path as it is, a bare name from the ``PATH``; None without one."""
    if platform == "win32":
        from cells_loopback.process.windows import find_on_path

        return find_on_path(program, environ)
    if os.sep in program:
        return program if _is_program(program) else None
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory or ".", program)
        if _is_program(path):
            return path
    return None


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and os.path.isfile(path)


def _is_text_mode(path: str) -> bool:
    # Debian's www-browser is a link to a link to, for example, w3m.
    return not _TEXT_MODE.isdisjoint((os.path.basename(path), os.path.basename(os.path.realpath(path))))


def _system_commands(environ: Mapping[str, str], platform: str) -> tuple[tuple[str, ...], ...]:
    if platform == "darwin":
        return (("open",),)
    return (_WSL if platform == "wsl" else ()) + (_LINUX if _has_display(environ) else ())


def _has_display(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def _start(browser: Browser, url: str, environ: Mapping[str, str]) -> BrowserProcess:
    if sys.platform == "win32":
        if not browser.words:
            os.startfile(url)
            return BrowserProcess(None)
        import subprocess

        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
        null = subprocess.DEVNULL
        process = subprocess.Popen(
            browser.argv(url),
            env=_environment(browser, environ),
            creationflags=flags,
            stdin=null,
            stdout=null,
            stderr=null,
        )
        return BrowserProcess(process.pid, process)
    else:  # noqa: RET505 (mypy understands the two halves only so)
        return BrowserProcess(_spawn(browser.argv(url), _environment(browser, environ)))


def _environment(browser: Browser, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the browser's environment: ours without our secrets.

    The system's openers obey ``$BROWSER`` too; when we come to them, nothing in it was usable.
    """
    unwanted = _WITHHELD if browser.origin == "$BROWSER" else (*_WITHHELD, "BROWSER")
    return {name: value for name, value in environ.items() if name not in unwanted}


def _spawn(argv: list[str], environment: dict[str, str]) -> int:
    """Start a program in a session of its own, where neither Ctrl-C nor a closed terminal reaches it."""
    descriptors: list[tuple[int, int, str, int, int] | tuple[int, int, int] | tuple[int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable_descriptors()),
    ]

    def start(**apart: Any) -> int:
        return os.posix_spawn(
            argv[0],
            argv,
            environment,
            file_actions=descriptors,
            setsigmask=(),
            setsigdef=_IGNORED_BY_PYTHON,
            **apart,
        )

    try:
        return start(setsid=True)
    except NotImplementedError:  # a system without POSIX_SPAWN_SETSID: a process group stops Ctrl-C too
        return start(setpgroup=0)


def _inheritable_descriptors() -> Iterator[int]:
    """Yield what our own parent left open to us, a pipe that somebody waits for the end of, perhaps.

    What Python opens, the listening sockets among it, is not inheritable (PEP 446).
    """
    for name in os.listdir("/dev/fd"):
        descriptor = int(name)
        try:
            if descriptor > 2 and os.get_inheritable(descriptor):
                yield descriptor
        except OSError:  # the one that listed the directory
            continue
