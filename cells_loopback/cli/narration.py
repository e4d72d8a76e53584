"""What a login tells on its way: sentences on stderr for a person, or JSON lines on stdout for a program."""

from __future__ import annotations

import os
import sys

from cells_loopback.cli.console import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cells_loopback.cli.console import Console
    from cells_loopback.errors import CellsLoopbackError
    from cells_loopback.events import Event


class Narrator:
    """Tells a person what happens. ``takes`` is what may be pasted: ``code``, ``address`` or ''."""

    def __init__(self, console: Console, *, no_browser: bool) -> None:
        self._console = console
        self._no_browser = no_browser
        self._url = ""
        self._port = 0
        self.takes = ""

    def tell(self, event: Event) -> None:
        """Tell of one step."""
        from cells_loopback import events

        if isinstance(event, events.AuthorizationURL):
            is_second, self._url = bool(self._url), event.url
            self._port = _port_of(event.redirect_uri)
            if self.takes == "code":
                self._console.info("open this address in a browser, on any machine:")
                self._show_url()
                self._console.info("and paste here the code that it shows at the end:")
            elif self._no_browser or is_second:  # the window that the first was opened in is elsewhere
                self._show_way()
        elif isinstance(event, events.BrowserOpened):
            self._console.info(
                "waiting for you to log in, in the browser that has just opened (Ctrl-C cancels)"
            )
        elif isinstance(event, events.BrowserFailed):
            self._console.warn(f"no browser: {event.reason}")
            self._show_way()
        elif isinstance(event, events.CallbackRejected):
            self._console.detail(f"turned away: {event.reason}")
        elif isinstance(event, events.CallbackReceived):
            self._console.detail("the answer has come")

    def _show_way(self) -> None:
        """Tell how a browser comes to the address: on this machine, or over SSH from the person's own."""
        if os.environ.get("SSH_CONNECTION"):
            from cells_loopback.desktop.ssh import host_and_user, ssh_forward_command

            command = ssh_forward_command(self._port, os.environ, *host_and_user())
            self._console.info("on the machine where your browser is, run this first:")
            self._console.info(f"  {command}")
            self._console.info("then open this address there:")
        else:
            self._console.info("open this address in a browser on this machine:")
        self._show_url()
        if self.takes == "address":
            self._console.info("or open it anywhere, and paste here the address that the browser ends at")

    def _show_url(self) -> None:
        """Show the address in one piece, between empty lines; ``--quiet`` does not hide it."""
        from cells_loopback.process.terminal import hyperlink

        link = hyperlink(self._url, is_terminal(sys.stderr), os.environ)
        self._console.show(f"\n{link}\n")


class EventPrinter(Narrator):
    """Prints each event as a line of JSON. ``has_ended`` means that the last one is out, or on its way."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, no_browser=False)
        self.has_ended = False

    def tell(self, event: Event) -> None:
        """Print one step. ``BrokenPipeError`` when nobody reads it."""
        import json

        from cells_loopback.events import LoggedIn, LoginError

        self.has_ended = self.has_ended or isinstance(event, (LoggedIn, LoginError))
        self._console.result(json.dumps(event.to_dict()))

    def end_with(self, error: CellsLoopbackError, exit_code: int | None = None) -> None:
        """Print the last event unless it has been printed, or nobody is left to read it."""
        from cells_loopback.events import LoginError

        if self.has_ended:
            return
        code = error.exit_code if exit_code is None else exit_code
        try:
            self.tell(LoginError(code=error.code, message=error.message, hint=error.hint, exit_code=code))
        except BrokenPipeError:
            pass


def interrupt_when_unread(printer: EventPrinter) -> None:
    """Interrupt the login when nobody reads its events any more, at once and not at the next event.

    A program that has gone would otherwise leave us waiting for its person, with the port held.
    """
    import select
    import signal
    import threading

    if not hasattr(select, "poll"):  # Windows: the next event fails
        return
    main, stdout = threading.main_thread().ident, select.poll()
    try:
        stdout.register(sys.stdout, 0)  # an error or the other end's hang-up is always told
    except (OSError, ValueError, TypeError):  # closed before we came
        return

    def wait() -> None:
        stdout.poll()
        if main is not None and not printer.has_ended:
            signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def _port_of(redirect_uri: str) -> int:
    """Return the port of a loopback redirect URI."""
    from urllib.parse import urlsplit

    return urlsplit(redirect_uri).port or 80
