"""A server that answers with exactly the bytes it is told, at the pace it is told."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cells_loopback.protocol.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[[socket.socket], None]


class RawServer:
    """One listening socket; each connection is served by `serve`, one after the other."""

    def __init__(self, listening: socket.socket, serve: Serve) -> None:
        self.port = int(listening.getsockname()[1])
        self.site = Site("http", "127.0.0.1", self.port)
        self.requests: list[bytes] = []
        self._listening = listening
        self._serve = serve
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                try:
                    self.requests.append(_read_request(connection))
                    self._serve(connection)
                except OSError:  # the client has gone, which may be what is tested
                    pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def _read_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request and (received := connection.recv(65536)):
        request += received
        if not request[:1].isalpha():  # TLS, which says no more before it is answered
            break
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while length and len(body) < int(length[1]) and (received := connection.recv(65536)):
        request += received
        body += received
    return request


@contextmanager
def serving(serve: Serve) -> Iterator[RawServer]:
    """Serve connections in a thread until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = RawServer(listening, serve)
        try:
            yield server
        finally:
            server.close()


def answering(*pieces: bytes) -> Serve:
    """Answer every request with these bytes, then close."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"".join(pieces))
        connection.shutdown(socket.SHUT_WR)

    return serve


def dripping(head: bytes, stop: threading.Event, pause: float = 0.02) -> Serve:
    """Send a head and then byte after byte, for ever or until the client or the test has had enough."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(head)
        while not stop.wait(pause):
            connection.sendall(b" ")

    return serve


def http(body: bytes, *lines: str, status: str = "200 OK", connection: str = "close") -> bytes:
    """Return the bytes of an answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", f"Connection: {connection}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body
