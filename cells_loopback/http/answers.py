"""An answer of the server as it came, and what any answer may mean before its content is read.

Nothing is sent from here, so nothing heavy is imported: the first request of a login is judged by this
before httpx is there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cells_loopback.errors import LoginFailedError, ServerUnavailableError
from cells_loopback.protocol.json_decoder import FiniteJSONDecoder
from cells_loopback.protocol.site import Site, not_a_cells_server, origin_of, parse_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cells_loopback.protocol.site import ServerMetadata
    from cells_loopback.protocol.tokens import RequestTime

MAX_ANSWER = 1 << 20
"""Bytes of an answer's body that are read at most."""

_FAILING = frozenset({408, 425, 429, *range(500, 600)})
_NOT_DONE = frozenset(
    {408, 425, 429, 501, 503, 505}
)  # any other: passed on, perhaps, before a gateway failed
WAIT = "nothing is lost: try again later"


@dataclass(frozen=True)
class Answer:
    """An answer as it came: status, headers (lower case), at most `MAX_ANSWER` bytes, and the clocks."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    time: RequestTime

    def json_object(self) -> dict[str, Any] | None:
        """Return the body as a JSON object, None if it is none."""
        try:
            document = json.loads(self.body, cls=FiniteJSONDecoder)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None


def judge_metadata(site: Site, answer: Answer) -> ServerMetadata:
    """Judge the answer to the discovery request; errors as for `fetch_metadata`."""
    raise_if_failing(site, answer)
    if 300 <= answer.status < 400:
        raise _redirected(site, answer)
    if answer.status == 400 and site.scheme == "http":
        raise _wants_https(site)
    if answer.status != 200:
        raise not_a_cells_server(site, f"it answers {answer.status} where its discovery document should be")
    document = answer.json_object()
    if document is None:
        raise not_a_cells_server(site, "it answers, but not with a discovery document")
    return parse_metadata(document, site)


def raise_if_failing(site: Site, answer: Answer) -> None:
    """Raise `ServerUnavailableError` for the statuses that pass by themselves (RFC 9110 §15.6)."""
    if answer.status in _FAILING:
        wait = parse_retry_after(
            answer.headers.get("retry-after"), answer.time.server_date or answer.time.wall
        )
        asks = f" and asks to wait {wait:.0f} s" if wait else ""
        raise ServerUnavailableError(
            f"{site.url} is failing: it answers {answer.status}{asks}",
            hint=WAIT,
            code=f"status_{answer.status}",
            retry_after=wait,
            answer_lost=answer.status not in _NOT_DONE,
        )


def _wants_https(site: Site) -> LoginFailedError:
    # What Go's server, which Cells is, and nginx answer to plain http on a port of https.
    return LoginFailedError(
        f"{site.url} answers 400, as a port of https does to plain http",
        hint=f"log in there by https: cells-loopback login {Site('https', site.host, site.port).url}",
        code="not_a_cells_server",
    )


def _redirected(site: Site, answer: Answer) -> LoginFailedError:
    target = answer.headers.get("location", "")
    try:
        other = origin_of(target)
    except ValueError:
        other = ""
    if other and other != site.url:
        return LoginFailedError(
            f"{site.url} redirects to {other}",
            hint=f"if that is the server you mean: cells-loopback login {other}",
            code="redirected",
        )
    return not_a_cells_server(site, "it redirects where its discovery document should be")


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Read ``Retry-After`` (RFC 9110 §10.2.3), seconds or a date, as seconds from ``now``."""
    if value is None:
        return None
    seconds = value.strip()
    if seconds.isascii() and seconds.isdigit():
        return float(seconds[:9])
    date = parse_date(value)
    return None if date is None else max(0.0, date - now)


def parse_date(value: str | None) -> float | None:
    """Return an HTTP date (RFC 9110 §5.6.7) in Unix seconds, None when it is missing or wrong."""
    if value is None:
        return None
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(value)
        # "Values in the asctime format are assumed to be in UTC": that one names no zone.
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
