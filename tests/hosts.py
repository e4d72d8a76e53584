"""What the tests of each host library share: sessions that expire while many requests are under way."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sessions import read_session, store_session

from cells_loopback import Session
from cells_loopback.testing import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cells_loopback.testing import CellsServer

REQUESTS = 1000
THREADS = 32
TASKS = 256


def make_session(server: CellsServer, config_dir: Path) -> Session:
    """Store a session and load it."""
    store_session(server, config_dir)
    return Session.load("work", config_dir=str(config_dir))


def current_token(config_dir: Path) -> str:
    """Return the access token that is stored now."""
    return read_session(config_dir).tokens.access_token.reveal()


class Expiries:
    """Lets all access tokens end on the server, unseen by the client, while requests are under way.

    Each request of a test runs inside `request`. None meets two expiries, since it is sent twice at most:
    the next one waits for the renewal after the last, and for all requests that began before that.
    """

    def __init__(self, server: CellsServer, count: int = 3) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._under_way: set[object] = set()
        self._older: set[object] | None = None
        self._count = count
        self.done = 0
        self.happened = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Note that a request goes off and has come back to its caller."""
        mine = object()
        with self._lock:
            self._under_way.add(mine)
        yield
        with self._lock:
            self._under_way.discard(mine)
            self.done += 1
            if self.happened < self._count and self.done >= self.happened * REQUESTS // (self._count + 2):
                self._expire_if_settled()

    def _expire_if_settled(self) -> None:
        if self._older is None:
            if self._server.count("refresh", 200) == self.happened:
                self._older = set(self._under_way)
        elif not self._older & self._under_way:
            self._server.expire_access_tokens()
            self._older = None
            self.happened += 1

    def go_on(self) -> bool:
        """Whether a request more is wanted: until there were enough, and every expiry was met."""
        return self.done < REQUESTS or self._server.count("refresh", 200) < self._count

    def judge(self) -> None:
        """One refresh for each expiry."""
        assert self.done >= REQUESTS
        assert self._server.count("refresh") == self.happened == self._count


class ShortLives:
    """Tokens that live for a second or two, so that they end by themselves while requests are under way."""

    seconds = 2.5

    def __init__(self, server: CellsServer) -> None:
        server.behaviour = Behaviour(access_token_lifetime=2)
        self._server = server
        self._until = time.monotonic() + self.seconds

    def go_on(self) -> bool:
        """Whether it is not over yet."""
        return time.monotonic() < self._until

    def judge(self) -> None:
        """No token was used after its end, and each was renewed once."""
        renewals = self._server.count("refresh", 200)
        assert self._server.count("rest", 401) == 0
        assert 2 <= renewals <= 2 * self.seconds + 1
        assert self._server.count("refresh", 200) == renewals
