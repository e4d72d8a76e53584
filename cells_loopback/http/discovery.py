"""Find the server behind a site: its metadata, and in which scheme it answers.

This is the one request that stands between a person and the browser, and httpx takes longer to import
than everything before it, ``http.client`` with the ``email`` package behind it a quarter of that. So the
plain case, a direct connection and an answer in one piece, is read from a socket; any other case, a
failure above all, is asked again by `endpoints`, which explains it.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

from cells_loopback.clock import uptime, wall
from cells_loopback.errors import ServerUnavailableError
from cells_loopback.http.answers import MAX_ANSWER, Answer, judge_metadata
from cells_loopback.http.trust import check_scheme, make_ssl_context
from cells_loopback.process.watchdog import Watchdog
from cells_loopback.protocol.site import DISCOVERY_PATH, Site
from cells_loopback.protocol.tokens import RequestTime

if TYPE_CHECKING:
    from collections.abc import Callable

    from cells_loopback.http.trust import Trust
    from cells_loopback.protocol.site import ServerMetadata

    Ask = Callable[[Site, Trust], ServerMetadata]

_ENCODED = frozenset({"content-encoding", "transfer-encoding"})
_NOT_HTTPS = frozenset({"refused", "no_tls", "connection_lost", "timed_out"})
_DIRECT_TIMEOUT = 8.0


def find_server(
    site: Site, trust: Trust, *, try_http: bool, ask: Ask | None = None
) -> tuple[Site, ServerMetadata]:
    """Return the site in the scheme that answers, and what its discovery document says.

    With ``try_http``, plain http is tried when https does not answer: for a loopback host typed without
    a scheme. A certificate that is not trusted *is* an answer. When the server is unavailable by
    both, the error of the https try is raised; otherwise, what is wrong with the answer. ``ask`` fetches
    the document, for a caller who wants to see how.
    """
    ask = ask or _ask
    try:
        return site, ask(site, trust)
    except ServerUnavailableError as error:
        if not try_http or error.code not in _NOT_HTTPS:
            raise
        plain = Site("http", site.host, 80 if site.port == 443 else site.port)
        try:
            return plain, ask(plain, trust)
        except ServerUnavailableError:
            raise error from None


def _ask(site: Site, trust: Trust) -> ServerMetadata:
    check_scheme(site, trust)
    answer = None if _goes_through_proxy(site) else _ask_directly(site, trust)
    if answer is not None and answer.status == 200:
        return judge_metadata(site, answer)
    from cells_loopback.http.endpoints import fetch_metadata
    from cells_loopback.http.transport import SiteClient

    with SiteClient(site, trust) as client:
        return fetch_metadata(client)


def _goes_through_proxy(site: Site) -> bool:
    if site.is_loopback:
        return False
    if sys.platform in {"win32", "darwin"}:
        return True  # perhaps: the system's settings are httpx's to read
    return any(os.environ.get(name) for kind in ("https", "http", "all") for name in _variables(kind))


def _variables(kind: str) -> tuple[str, str]:
    return f"{kind}_proxy", f"{kind}_proxy".upper()


def _ask_directly(site: Site, trust: Trust) -> Answer | None:
    """Return the answer to the discovery request, None when there is none, for whatever reason."""
    time_sent = RequestTime(wall(), uptime())
    # HTTP/1.0, whose answers come in one piece and end with their connection (RFC 9112 §6.1 and §9.3).
    request = (
        f"GET {DISCOVERY_PATH} HTTP/1.0\r\nHost: {site.authority}\r\nUser-Agent: cells-loopback\r\n"
        "Accept: application/json\r\nConnection: close\r\n\r\n"
    )
    try:
        with socket.create_connection((site.host, site.port), _DIRECT_TIMEOUT) as plain:
            connection = plain if site.scheme == "http" else _wrapped(plain, site, trust)
            with connection, Watchdog([connection], _DIRECT_TIMEOUT):
                connection.sendall(request.encode("ascii"))
                status, headers, body = _parse_answer(_read_to_end(connection))
    except (OSError, ValueError):
        return None
    return Answer(status, headers, body, time_sent)


def _wrapped(plain: socket.socket, site: Site, trust: Trust) -> socket.socket:
    return make_ssl_context(trust).wrap_socket(plain, server_hostname=site.host)


def _read_to_end(connection: socket.socket) -> bytes:
    """Read up to the end of the connection, or of an answer that says where that is."""
    received = b""
    while not _is_whole(received) and (chunk := connection.recv(65536)):
        received += chunk
        if len(received) > MAX_ANSWER:
            raise ValueError("too much")
    return received


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    _, _, length = head.lower().partition(b"\r\ncontent-length:")
    stated = length.partition(b"\r\n")[0].strip()
    return bool(end) and stated.isdigit() and len(body) >= int(stated)


def _parse_answer(received: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer in one piece; ``ValueError`` for any other."""
    head, end, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = status_line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    is_whole = end and headers.get("content-length", str(len(body))) == str(len(body))
    if not is_whole or not version.startswith("HTTP/1.") or not _ENCODED.isdisjoint(headers):
        raise ValueError("not plain")
    return int(status), headers, body
