"""What a request must look like to be a browser that this login has sent, judged without a socket.

Everything that can be wrong about it has a word, the one that is reported and logged. Whether the
``state`` is the expected one is `callback`'s part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

_MAX_PARAMETERS = 32


class CallbackResponse(dict[str, str]):
    """The parameters of the authorization response (RFC 6749 §4.1.2), each once. It prints none."""

    def __repr__(self) -> str:
        return "CallbackResponse(***)"


class RejectedError(Exception):
    """A request that is not this login's: the status it is answered with, and the word it is reported by."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def host_authorities(host: str, port: int) -> frozenset[str]:
    """Return what the Host header may say: the redirect URI's authority, for localhost its addresses too."""
    hosts = {"localhost": ("localhost", "127.0.0.1", "[::1]"), "::1": ("[::1]",)}.get(host, (host,))
    with_port = {f"{host}:{port}" for host in hosts}
    return frozenset(with_port | set(hosts) if port == 80 else with_port)


def check_request(request: web.BaseRequest, authorities: frozenset[str]) -> None:
    """Refuse what a browser that is sent here by a login would not send."""
    headers = request.headers
    if request.method != "GET":
        raise RejectedError(405, "method_not_allowed")
    # A name that somebody's DNS points to this machine is none of ours (DNS rebinding).
    hosts = headers.getall("Host", [])
    if len(hosts) != 1 or hosts[0].lower() not in authorities:
        raise RejectedError(421, "wrong_host")
    if not request.raw_path.startswith("/"):  # the absolute form is for proxies (RFC 9112 §3.2.2)
        raise RejectedError(400, "malformed")
    purposes = " ".join(headers.get(name, "") for name in ("Sec-Purpose", "Purpose", "X-Moz")).lower()
    if "prefetch" in purposes or "preview" in purposes:
        raise RejectedError(503, "prefetch")
    if not _is_navigation(headers):
        raise RejectedError(403, "not_a_navigation")


def is_by_browser(headers: Mapping[str, str]) -> bool:
    """Whether a browser has sent this: each of them tells its Fetch Metadata to a loopback address."""
    return "Sec-Fetch-Mode" in headers


def _is_navigation(headers: Mapping[str, str]) -> bool:
    """Whether this may be a person's browser going somewhere, as far as Fetch Metadata tells.

    A service worker that a developer's app has left on ``localhost:3000`` passes navigations on as
    its own requests: those are same-origin, with an empty destination. Origin is not looked at:
    whether a browser sends it after a redirected form differs, and the state protects anyway.
    """
    destination = headers.get("Sec-Fetch-Dest", "document")
    by_service_worker = destination == "empty" and headers.get("Sec-Fetch-Site") == "same-origin"
    return destination == "document" or by_service_worker


def parse_query(query: str) -> CallbackResponse:
    """Return each parameter once; "parameters MUST NOT be included more than once" (RFC 6749 §3.1)."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise RejectedError(400, "malformed") from None
    parameters = CallbackResponse(pairs)
    if len(parameters) != len(pairs):
        raise RejectedError(400, "repeated_parameter")
    return parameters
