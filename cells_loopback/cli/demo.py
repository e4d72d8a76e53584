"""Try all of it against an embedded Cells-like server; nothing else is needed.

Starts the server, logs in through the real flow, calls the API with the token,
renews it, logs out and cleans up, each step with its time. Without a browser or
a screen it plays the browser itself. No real profile is touched.

examples:
  cells-loopback demo
  cells-loopback demo --headless
  cells-loopback demo --serve       keep the server up to try commands against
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cells_loopback.cli.arguments import parse_port
from cells_loopback.errors import CellsLoopbackError, LoginFailedError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from cells_loopback.cli.console import Console
    from cells_loopback.events import Event
    from cells_loopback.session.session import Session
    from cells_loopback.testing import CellsServer


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--headless", action="store_true", help="play the browser too, open none")
    parser.add_argument("--serve", action="store_true", help="only run the server, until Ctrl-C")
    parser.add_argument(
        "--port", type=parse_port, default=0, help="the server's port (default: any free one)"
    )
    parser.add_argument("--tls", action="store_true", help="serve https with a certificate made on the fly")


def run(args: argparse.Namespace) -> int:
    """Run the demonstration, or the server alone."""
    clock = _Steps(args.console)
    with _running_server(args.port, tls=args.tls) as server:
        clock.done(f"a Cells-like server runs at {server.site}")
        if args.serve:
            _serve(args.console, server)
        with tempfile.TemporaryDirectory(prefix="cells-loopback-demo-") as config_dir:
            _demonstrate(args, server, config_dir, clock)
    clock.done("everything is cleaned up")
    return 0


@contextmanager
def _running_server(port: int, *, tls: bool) -> Iterator[CellsServer]:
    from cells_loopback.testing import CellsServer

    server = CellsServer(port=port, tls=tls)
    try:
        server.start()
    except OSError as error:
        raise LoginFailedError(
            f"the server cannot listen on port {port}: {error.strerror}",
            hint="leave out --port to take any free one",
            code="no_free_port",
        ) from error
    try:
        yield server
    finally:
        server.stop()


class _Steps:
    """Tells each step with the time it took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._since = time.perf_counter()

    def done(self, text: str) -> None:
        now = time.perf_counter()
        self._console.result(f"{(now - self._since) * 1000:7.0f} ms  {text}")
        self._since = now


def _demonstrate(args: argparse.Namespace, server: CellsServer, config_dir: str, clock: _Steps) -> None:
    from cells_loopback.cli.api import exit_code
    from cells_loopback.session.logout import log_out
    from cells_loopback.store.profiles import ProfileStore

    session = _log_in(args, server, config_dir, clock)
    name = session.stored.user.name
    clock.done(f"{name} is logged in; the session is in {os.path.join(config_dir, 'profiles')}")
    session.access_token()
    clock.done("token: the stored access token, as `cells-loopback token` prints it")
    status = _call_api(session)
    clock.done(f"api /a/frontend/state: the server answers {status}")
    session.token(refresh_now=True)
    clock.done("token --refresh: renewed, and stored before it was given out")
    log_out(ProfileStore(config_dir), session.stored.name)
    clock.done("logout: revoked on the server and forgotten")
    if exit_code(status) != 0:
        raise CellsLoopbackError(f"the embedded server answered {status}")


def _log_in(args: argparse.Namespace, server: CellsServer, config_dir: str, clock: _Steps) -> Session:
    from cells_loopback.desktop.browser import why_no_browser
    from cells_loopback.events import AuthorizationURL, BrowserFailed
    from cells_loopback.library import login_sync

    stand_in = "the browser is played by this program"
    reason = None if args.headless else why_no_browser(os.environ)
    headless = args.headless or reason is not None
    if headless:
        args.console.info(stand_in + (f": {reason}" if reason else ""))
    else:
        args.console.info(
            f"in the browser, log in as {server.user.name} with the password {server.user.password}"
        )

    authorization_url = ""

    def tell(event: Event) -> None:
        nonlocal authorization_url
        clock.done(event.event.replace("_", " "))
        if isinstance(event, AuthorizationURL):
            authorization_url = event.url
        elif isinstance(event, BrowserFailed):
            args.console.info(f"{stand_in}: {event.reason}")
            play_browser(server)(authorization_url)

    return login_sync(
        server.site,
        profile="demo",
        config_dir=config_dir,
        on_event=tell,
        open_url=play_browser(server) if headless else None,
        app_name="the demonstration",
        ca_bundle=server.ca_file,
    )


def play_browser(server: CellsServer) -> Callable[[str], object]:
    """Return what opens an address as a person would who logs in there, in a thread of its own."""
    import threading
    from http.client import HTTPException

    def sign_in(url: str) -> None:
        try:
            server.sign_in(url)
        except (OSError, HTTPException):  # the login has ended before its page was fetched
            pass

    return lambda url: threading.Thread(target=sign_in, args=(url,), name="the browser", daemon=True).start()


def _call_api(session: Session) -> int:
    from cells_loopback.http.transport import make_http_client
    from cells_loopback.http.trust import Trust
    from cells_loopback.protocol.site import parse_site

    with make_http_client(parse_site(session.site), Trust.of(session.stored.settings)) as client:
        response = client.get(f"{session.site}/a/frontend/state", auth=session.auth)
    return response.status_code


def _serve(console: Console, server: CellsServer) -> NoReturn:
    console.result(f"site      {server.site}")
    console.result(f"user      {server.user.name}")
    console.result(f"password  {server.user.password}")
    trust = f" --ca-bundle {server.ca_file}" if server.ca_file else ""
    console.info(f"in another terminal: cells-loopback login {server.site}{trust}")
    console.info("Ctrl-C ends it")
    while True:
        time.sleep(3600)
