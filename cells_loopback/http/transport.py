"""One site over HTTP: what may be sent there, how long it may take, and how failures are told apart.

httpx underneath. Every request of ours goes through `SiteClient.send`: no redirect is followed, every
answer is bounded in size and time, and a failure becomes one of our errors without a traceback that
could hold a secret.
"""

from __future__ import annotations

import random
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import httpx

from cells_loopback.clock import uptime, wall
from cells_loopback.errors import ServerUnavailableError, UntrustedServerError, without_frames
from cells_loopback.http.answers import MAX_ANSWER, Answer, parse_date
from cells_loopback.http.trust import check_scheme, make_ssl_context
from cells_loopback.process.watchdog import Watchdog
from cells_loopback.protocol.tokens import RequestTime
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    from cells_loopback.errors import CellsLoopbackError
    from cells_loopback.http.trust import Trust
    from cells_loopback.protocol.site import Site

    Result = TypeVar("Result")
    OnTrace = Callable[[str, Mapping[str, Any]], object]

REQUEST_TIMEOUT = 20.0
"""Seconds that one request may take from start to the last byte."""

RETRY_TIMEOUT = 20.0
"""Seconds within which a new try of a failed request may start."""

BACKOFF_BASE, BACKOFF_CAP = 0.5, 5.0
"""Seconds: the first and the longest span from which a pause between two tries is drawn."""

_CONNECT_TIMEOUT = 10.0
_DELIMITED = frozenset({"content-length", "transfer-encoding"})  # its end is not that of the connection
_IDLE_CONNECTION = 600.0  # as long as a person may take to log in: the connection is opened while they type


def make_http_client(site: Site, trust: Trust) -> httpx.Client:
    """Return an httpx client as every request to ``site`` goes through; it follows no redirect.

    Raises `UntrustedServerError` for plain http to another machine, `ServerUnavailableError` for a proxy
    that cannot be used.
    """
    check_scheme(site, trust)
    # For plain http a context that trusts nobody, since none is needed and loading a store takes time.
    verify = make_ssl_context(trust) if site.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx.Client(
            verify=verify,
            timeout=httpx.Timeout(REQUEST_TIMEOUT, connect=_CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=8, keepalive_expiry=_IDLE_CONNECTION),
            trust_env=not site.is_loopback,  # no proxy ever stands between us and this machine
            follow_redirects=False,
            headers={"User-Agent": "cells-loopback"},
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        reason = "SOCKS needs httpx[socks]" if isinstance(error, ImportError) else "its address is not valid"
        raise _proxy_failure(site, reason) from None  # the address itself may hold a password


class SiteClient:
    """Requests to one site over kept connections. Use it as a context manager; safe in several threads."""

    def __init__(self, site: Site, trust: Trust, on_trace: OnTrace = lambda _name, _info: None) -> None:
        """Open nothing yet; raises what `make_http_client` does. ``on_trace`` is told httpcore's events."""
        self.site = site
        self._on_trace = on_trace
        self._hop = ""
        self._sockets: list[socket.socket] = []
        self._client = make_http_client(site, trust)
        # What `_decode` understands: httpx would also offer what other packages happen to bring along.
        self._client.headers.update({"Accept": "application/json", "Accept-Encoding": "gzip, deflate"})

    def __enter__(self) -> SiteClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get(self, url: str, *, bearer: Secret | None = None) -> Answer:
        """Send a GET request, with an access token if given (RFC 6750 §2.1)."""
        return self._send("GET", url, None, None if bearer is None else Secret(f"Bearer {bearer.reveal()}"))

    def post_form(self, url: str, form: Mapping[str, str | Secret], authorization: Secret | None) -> Answer:
        """Send a form, the way every OAuth request goes (RFC 6749 §4.1.3)."""
        return self._send("POST", url, form, authorization)

    def _send(
        self, method: str, url: str, form: Mapping[str, str | Secret] | None, authorization: Secret | None
    ) -> Answer:
        # `_exchange` has header and form in the clear.
        return without_frames(lambda: self._exchange_or_explain(method, url, form, authorization))

    def _exchange_or_explain(
        self, method: str, url: str, form: Mapping[str, str | Secret] | None, authorization: Secret | None
    ) -> Answer:
        try:
            return self._exchange(method, url, form, authorization)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            raise explain_failure(self.site, error, self._hop) from error
        except RuntimeError as error:
            if not self._client.is_closed:
                raise
            raise explain_failure(self.site, error, self._hop) from error  # closed by another thread

    def _exchange(
        self, method: str, url: str, form: Mapping[str, str | Secret] | None, authorization: Secret | None
    ) -> Answer:
        headers = {} if authorization is None else {"Authorization": authorization.reveal()}
        data = None if form is None else {name: _plain(value) for name, value in form.items()}
        sent_at, sent_uptime = wall(), uptime()
        with (
            Watchdog(self._sockets, REQUEST_TIMEOUT) as watchdog,
            self._client.stream(
                method, url, headers=headers, data=data, extensions={"trace": self._note_socket}
            ) as response,
        ):
            body = b"".join(_bounded(response.iter_raw(), self.site))
            if not _DELIMITED.isdisjoint(response.headers):
                watchdog.note_whole_answer()
            if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
                body = _decode(response, body, self.site)
            return Answer(
                status=response.status_code,
                headers={key.lower(): value for key, value in response.headers.items()},
                body=body,
                time=RequestTime(sent_at, sent_uptime, parse_date(response.headers.get("date"))),
            )

    def _note_socket(self, name: str, info: Mapping[str, Any]) -> None:
        # httpcore's trace events are its documented way to the connection underneath.
        self._on_trace(name, info)
        if name.endswith("connect_tcp.started"):
            self._hop = f"{info['host']}:{info['port']}"
        stream = info.get("return_value")
        if stream is not None and name.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._sockets.append(stream.get_extra_info("socket"))


def _plain(value: str | Secret) -> str:
    return value if isinstance(value, str) else value.reveal()


def _bounded(chunks: Iterator[bytes], site: Site) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_ANSWER:
            raise _too_large(site)
        yield chunk


def _too_large(site: Site) -> UntrustedServerError:
    return UntrustedServerError(
        f"{site.url} sends more than {MAX_ANSWER >> 20} MiB where a few kilobytes are due",
        hint="check the address; it is the one that opens Cells in a browser",
        code="answer_too_large",
    )


def _decode(response: httpx.Response, body: bytes, site: Site) -> bytes:
    """Undo gzip or deflate within the same bound."""
    import zlib

    encoding = response.headers["content-encoding"].strip().lower()
    if encoding not in {"gzip", "deflate"}:
        raise httpx.DecodingError(f"unknown content encoding {encoding!r}")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, MAX_ANSWER)
    except zlib.error as error:
        raise httpx.DecodingError(str(error)) from None
    if inflater.unconsumed_tail:
        raise _too_large(site)
    if not inflater.eof:
        raise httpx.DecodingError("the compressed answer is not whole")
    return plain


_AGAIN = "check the network and the server, then try again"


def explain_failure(site: Site, error: Exception, hop: str = "") -> CellsLoopbackError:
    """Turn a failed request into the error for the person: not trusted, or not reachable.

    ``hop`` is the host and port that we connected to, or tried to: a proxy's, or the site's own.
    """
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted_certificate(site, cause.verify_message or "it cannot be verified")
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        lost = not isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout))
        return ServerUnavailableError(
            f"{site.url} does not answer in time", hint=_AGAIN, code="timed_out", answer_lost=lost
        )
    if isinstance(error, httpx.ProxyError):
        return _proxy_failure(site, f"it refuses: {error}")
    if isinstance(error, (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL)):
        return _unreachable(site, error, chain, hop)
    return ServerUnavailableError(
        f"the connection to {site.url} broke before the answer was whole",
        hint=_AGAIN,
        code="connection_lost",
        answer_lost=True,
    )


def _proxy_failure(site: Site, reason: str) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"the proxy on the way to {site.url} cannot be used: {reason}",
        hint="check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY",
        code="proxy",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _untrusted_certificate(site: Site, reason: str) -> UntrustedServerError:
    return UntrustedServerError(
        f"the certificate of {site.url} is not trusted: {reason}",
        hint="if it is your own server's: add its authority to the system's store, or name it with"
        " --ca-bundle FILE, or (for a test server only) --insecure",
        code="certificate",
    )


def _unreachable(
    site: Site, error: Exception, chain: list[BaseException], hop: str
) -> ServerUnavailableError:
    for cause in chain:
        if isinstance(cause, ssl.SSLError):
            return ServerUnavailableError(
                f"{site.url} does not speak TLS on port {site.port}",
                hint="check the port; a test server on this machine may be http://" + site.authority,
                code="no_tls",
            )
        if hop and hop != f"{site.host}:{site.port}" and isinstance(cause, OSError):
            return _proxy_failure(site, f"{hop} cannot be reached")
        if isinstance(cause, socket.gaierror):
            return ServerUnavailableError(
                f"there is no host {site.host}, or the name service does not answer",
                hint="check the spelling of the address and the network",
                code="host_not_found",
            )
        if isinstance(cause, ConnectionRefusedError):
            return ServerUnavailableError(
                f"{site.url} refuses connections: nothing listens on port {site.port}",
                hint="check the address and its port, and that the server runs",
                code="refused",
            )
    return ServerUnavailableError(f"cannot reach {site.url}: {error}", hint=_AGAIN, code="unreachable")


def draw_pause(attempt: int, retry_after: float | None, draw: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after failed try number ``attempt``, from 0.

    Exponential backoff with full jitter, so that clients that failed together do not come back
    together; never earlier than the server asked, and then spread over the same span again.
    """
    span = min(BACKOFF_CAP, BACKOFF_BASE * 2.0**attempt)
    return (retry_after or 0.0) + span * draw()


def retry_unavailable(
    action: Callable[[], Result],
    *,
    total: float = RETRY_TIMEOUT,
    on_retry: Callable[[ServerUnavailableError, float], None] = lambda _error, _pause: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Result:
    """Do ``action`` until it no longer raises `ServerUnavailableError`, or ``total`` seconds are over.

    The last error is raised then, or at once when the server asks to wait longer than that.
    """
    deadline = clock() + total
    attempt = 0
    while True:
        try:
            return action()
        except ServerUnavailableError as error:
            pause = draw_pause(attempt, error.retry_after)
            if clock() + pause > deadline:
                raise
            on_retry(error, pause)
        sleep(pause)
        attempt += 1
