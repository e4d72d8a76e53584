"""A person at a desktop: the browser that a login opens there, and how the login ended.

The command under test is given `stand_in` as its browser, which hands the address over to this process;
here the person goes on from it over real HTTP. So a test may look on, wait, or do something else first.
"""

from __future__ import annotations

import os
import select
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from program import finish

from cells_loopback.testing import Browser, Page
from cells_loopback.testing.browser import _Fetched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from program import Program

    from cells_loopback.testing import CellsServer

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "browser", "stand_in.py")
_LOOK_AGAIN = 0.05


@dataclass(frozen=True)
class Attempt:
    """How a login ended, in the terminal and in the browser; ``page`` is None when none was opened."""

    exit_code: int
    stdout: str
    stderr: str
    page: Page | None = None

    def told(self, kind: str) -> list[str]:
        """Return the lines of stderr that begin with ``error``, ``hint`` or ``warning``."""
        start = kind + ": "
        return [line.removeprefix(start) for line in self.stderr.splitlines() if line.startswith(start)]

    @property
    def error(self) -> str:
        """The line that says why it failed; '' when it did not."""
        return "".join(self.told("error"))

    @property
    def hint(self) -> str:
        """The line that says what to do then."""
        return "".join(self.told("hint"))

    @property
    def warnings(self) -> list[str]:
        """What the person was warned of, in order."""
        return self.told("warning")

    @property
    def shown(self) -> str:
        """The text of the last page in the browser."""
        return "" if self.page is None else self.page.text


def ended(done: subprocess.CompletedProcess[str], page: Page | None = None) -> Attempt:
    """Return how a command ended that was not started by `Desktop.log_in`."""
    return Attempt(done.returncode, done.stdout, done.stderr, page)


class Desktop:
    """A desktop with one browser, which is opened by the command `browser`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.browser = shlex.join([sys.executable, "-S", SCRIPT, str(port), "%s"])
        self.pages: list[str] = []
        """Every address that the browser was sent to, in order."""

    def close(self) -> None:
        """Take no more pages."""
        self._listener.close()

    def opened(self, login: subprocess.Popen[str]) -> str:
        """Wait until a login opens the browser, and return the address; '' when it ends without."""
        while not self._is_called(_LOOK_AGAIN):
            if login.poll() is not None and not self._is_called(0):
                return ""
        return self._take()

    def opened_pages(self) -> list[str]:
        """Return every address that the browser was sent to until now."""
        while self._is_called(0):
            self._take()
        return self.pages

    def log_in(
        self,
        program: Program,
        server: CellsServer,
        *options: str,
        site: str | None = None,
        person: Callable[[str], Page] | None = None,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        given: str | None = None,
    ) -> Attempt:
        """Run ``login`` with this browser; the person is the server's first user unless told otherwise.

        ``given`` is what it reads from stdin.
        """
        site = server.site if site is None else site
        command = ("login", *([site] if site else []), "--browser", self.browser, *options)
        stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
        login = program.start(*command, environment=environment, under=under, stdin=stdin)
        if login.stdin is not None and given:
            login.stdin.write(given)
            login.stdin.flush()
        page = None
        try:
            if url := self.opened(login):
                page = (person or server.sign_in)(url)
        except BaseException:
            login.kill()
            finish(login)
            raise
        return ended(finish(login), page)

    def _is_called(self, seconds: float) -> bool:
        return bool(select.select([self._listener], [], [], seconds)[0])

    def _take(self) -> str:
        connection, _ = self._listener.accept()
        with connection, connection.makefile(encoding="ascii") as address:
            self.pages.append(address.read())
        return self.pages[-1]


class _ElsewhereBrowser(Browser):
    """A browser on another machine, where nothing of ours listens."""

    def _fetch(self, url: str, form: Mapping[str, str] | None, history: tuple[str, ...] = ()) -> _Fetched:
        if "code=" in url or "error=" in url:
            return _Fetched(Page(url, 0, "", history), "")
        return super()._fetch(url, form, history)


def address_elsewhere(server: CellsServer, url: str, *, consent: str = "allow") -> str:
    """Log in with a browser on another machine, and return the address that it ends at."""
    return server.sign_in(url, consent=consent, browser=_ElsewhereBrowser(server.ca_file)).url
