"""The embedded server itself: its thread, its sockets, and everything a test may ask or tell it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from .accounts import DEFAULT_USERS, EXAMPLE_CLIENTS, SHIPPED_CLIENTS
from .application import build_application
from .behaviour import Behaviour
from .browser import Browser
from .certificates import write_certificates
from .faults import FaultBook
from .provider import Provider
from .traffic import RequestLog

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .accounts import Client, User
    from .browser import Page
    from .certificates import Certificate
    from .faults import Fault
    from .traffic import RecordedRequest

_BACKLOG = 1024  # a whole fleet of processes may come at the same moment
_START_LIMIT = 30.0
_TEN_YEARS = 10 * 365 * 86400.0


class CellsServer:
    """A Cells-like server in a thread of this process, as a context manager, sync or async.

    `users` and `clients` are what an administrator made, beside the clients that every Cells ships with.
    `port` 0 takes any free port; `host` is ``localhost``, ``127.0.0.1`` or ``[::1]``, and is what `site`
    names. With `tls` the certificate is made on the fly and `ca_file` is what to trust; a word for `tls`
    makes a bad certificate. `clock` is what the server's own time starts from. `s3_root` is where the S3
    gateway keeps objects; None forgets them at the end.
    """

    def __init__(
        self,
        *,
        behaviour: Behaviour | None = None,
        users: Iterable[User] = DEFAULT_USERS,
        clients: Iterable[Client] = EXAMPLE_CLIENTS,
        host: str = "localhost",
        port: int = 0,
        tls: bool | Certificate = False,
        clock: Callable[[], float] = time.time,
        s3_root: Path | None = None,
    ) -> None:
        self._users = tuple(users)
        self._provider = Provider(behaviour or Behaviour(), self._users, (*SHIPPED_CLIENTS, *clients), clock)
        self._log = RequestLog()
        self._faults = FaultBook()
        self._host = host
        self._port = port
        self._tls: Certificate | None = "trusted" if tls is True else tls or None
        self._s3_root = s3_root
        self._directory: Path | None = None
        self._browser: Browser | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self.ca_file: str | None = None

    # Its life

    def start(self) -> CellsServer:
        """Start serving and return when connections are taken."""
        sockets = _bind(self._host, self._port)
        port = sockets[0].getsockname()[1]
        self._provider.site = f"{'https' if self._tls else 'http'}://{self._host}:{port}"
        context = self._make_tls_context(self._tls) if self._tls else None
        self._browser = Browser(self.ca_file)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(sockets, context, ready), name="cells-server", daemon=True
        )
        self._thread.start()
        if not ready.wait(_START_LIMIT) or self._failure:
            self.stop()
            raise RuntimeError("the embedded server did not start") from self._failure
        return self

    def stop(self) -> None:
        """Stop serving, cut what is still open, and remove the temporary files."""
        if self._loop and self._stopping and self._thread and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> CellsServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> CellsServer:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    # What it is

    @property
    def site(self) -> str:
        """The base URL, without a slash at the end."""
        return self._provider.site

    @property
    def user(self) -> User:
        """The first user, an administrator unless the server was given other users."""
        return self._users[0]

    @property
    def behaviour(self) -> Behaviour:
        """How the server behaves now; assign ``dataclasses.replace(server.behaviour, ...)`` at any time."""
        return self._provider.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._provider.behaviour = behaviour

    def add_user(self, user: User) -> None:
        """Register another user."""
        self._provider.users[user.name] = user

    def add_client(self, client: Client) -> None:
        """Register another client, or replace one."""
        self._provider.clients[client.client_id] = client

    # What happened

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request so far, in the order of arrival; a copy."""
        return self._log.snapshot()

    def count(self, kind: str, status: int | None = None) -> int:
        """Return how many requests of a kind arrived, or were answered with that status."""
        return self._log.count(kind, status)

    def wait_for(self, kind: str, count: int = 1, timeout: float = 10) -> None:
        """Wait until that many requests of a kind have arrived, answered or not."""
        if not self._log.wait_for(kind, count, timeout):
            raise TimeoutError(f"{self.count(kind)} of {count} {kind} requests came within {timeout} s")

    def secrets(self) -> list[str]:
        """Return every code, token and cookie ever issued, and every verifier the server was sent."""
        return self._provider.grants.secrets()

    # Tokens and sessions

    def access_tokens(self) -> list[str]:
        """Return the live access tokens, oldest first."""
        return self._provider.grants.live_access_tokens()

    def refresh_tokens(self) -> list[str]:
        """Return the live refresh tokens, oldest first: one for each session that can be renewed."""
        return self._provider.grants.live_refresh_tokens()

    def is_live_access_token(self, token: str) -> bool:
        """Tell whether the REST API and the S3 gateway take this token now."""
        return self._provider.grants.find_bearer(token) is not None

    def add_personal_access_token(self, user_name: str = "", lifetime: float = _TEN_YEARS) -> str:
        """Return a new personal access token of a user, by default of the first one."""
        user = self._provider.users[user_name or self.user.name]
        return self._provider.grants.add_personal_access_token(user, lifetime)

    def expire_access_tokens(self) -> None:
        """Let every access token expire now."""
        self._provider.grants.expire_access_tokens()

    def expire_refresh_tokens(self) -> None:
        """Let every refresh token expire now."""
        self._provider.grants.expire_refresh_tokens()

    def revoke_sessions(self, user_name: str | None = None) -> None:
        """Revoke every session, or those of one user, as an administrator can."""
        self._provider.grants.revoke_sessions(user_name)

    def revoke_personal_access_tokens(self) -> None:
        """Revoke every personal access token."""
        self._provider.grants.revoke_personal_access_tokens()

    def end_web_sessions(self) -> None:
        """Log every browser out, so that the next login needs a password again."""
        self._provider.grants.end_web_sessions()

    def rotate_signing_key(self, *, retire: bool = False) -> None:
        """Sign with a new key from now on; `retire` also takes the old ones out of the key set."""
        self._provider.keys.rotate(retire=retire)

    def advance(self, seconds: float) -> None:
        """Let that much time pass on the server at once."""
        self._provider.clock.advance(seconds)

    def now(self) -> float:
        """Return the server's time in Unix seconds."""
        return self._provider.clock.now()

    # Faults

    def fault(self, where: str, fault: Fault) -> None:
        """Switch a fault on, for a path such as ``/oidc/*`` or a kind of request such as ``refresh``."""
        self._faults.add(where, fault)

    def clear_faults(self) -> None:
        """Switch all faults off."""
        self._faults.clear()

    # The person at the browser

    def sign_in(
        self,
        authorization_url: str,
        username: str = "",
        password: str = "",
        *,
        consent: str = "allow",
        browser: Browser | None = None,
    ) -> Page:
        """Play the person: open the address, log in (by default as `user`), follow to the very end.

        The server's own browser keeps its login from call to call; pass another one for another person.
        """
        browser = browser or self._browser or Browser(self.ca_file)
        name = username or self.user.name
        known = self._provider.users.get(name)
        return browser.sign_in(
            authorization_url, name, password or (known.password if known else ""), consent=consent
        )

    def _make_tls_context(self, kind: Certificate) -> ssl.SSLContext:
        self._directory = Path(tempfile.mkdtemp(prefix="cells-server-"))
        ca_file, context = write_certificates(self._directory, kind)
        self.ca_file = str(ca_file)
        return context

    def _run(
        self, sockets: list[socket.socket], context: ssl.SSLContext | None, ready: threading.Event
    ) -> None:
        try:
            asyncio.run(self._serve(sockets, context, ready))
        except BaseException as error:  # noqa: BLE001  told to the thread that waits for the start
            self._failure = error
        finally:
            for bound in sockets:
                bound.close()
            ready.set()

    async def _serve(
        self, sockets: list[socket.socket], context: ssl.SSLContext | None, ready: threading.Event
    ) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = build_application(self._provider, self._log, self._faults, self._s3_root)
        # A signed S3 body must arrive as it was signed, hence no decompression.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, auto_decompress=False)
        await runner.setup()
        try:
            for bound in sockets:
                await web.SockSite(runner, bound, ssl_context=context, backlog=_BACKLOG).start()
            ready.set()
            await self._stopping.wait()
        finally:
            await _stop_accepting(sockets)
            await runner.cleanup()
            await _let_settle()


async def _stop_accepting(sockets: list[socket.socket]) -> None:
    # asyncio forgets to close a connection that it has accepted but not yet set up when its server is
    # closed (CPython 3.11: an assertion in Server._attach). So accept no more, and let those arrive.
    for bound in sockets:
        with contextlib.suppress(NotImplementedError):  # Windows: there it does not happen
            asyncio.get_running_loop().remove_reader(bound)
    await _let_settle()


async def _let_settle() -> None:
    # It takes a few turns of the loop to set a connection up, and to take it down.
    for _ in range(10):
        await asyncio.sleep(0)


def _bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for a host: one, or for ``localhost`` one on each loopback address."""
    if host != "localhost":
        return [_listen(host.strip("[]"), port)]
    while True:
        first = _listen("127.0.0.1", port)
        try:
            return [first, _listen("::1", first.getsockname()[1])]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return [first]  # a machine without IPv6
            first.close()
            if port:
                raise


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
