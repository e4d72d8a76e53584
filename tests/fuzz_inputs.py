"""Inputs that are almost right, for `fuzz_targets`: near misses get further than noise does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from examples import METADATA, NOW, REQUEST, SITE, UPTIME
from hypothesis import strategies as st

from cells_loopback.http.answers import Answer, parse_date
from cells_loopback.protocol.tokens import RequestTime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hypothesis.strategies import SearchStrategy

WORDS = st.sampled_from(
    [
        *("", " ", "bearer", "openid", "https://evil.example", "localhost", "\x1b[2J", "\u202e", "\ud800"),
        *(SITE.url, METADATA.issuer, METADATA.token_endpoint, REQUEST.redirect_uri),
        *("invalid_grant", "null", "true", "x" * 5000, "::1", "[", "²"),
    ]
)
TEXTS = st.text(max_size=30) | st.text(st.characters(), max_size=8) | WORDS
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 10**19, 10**400, 1e308, float("nan"), float("inf"), 2**63])
)
JSON_VALUES: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
JSON_OBJECTS = st.dictionaries(TEXTS, JSON_VALUES, max_size=3)
DEEP = st.integers(1, 100_000).map(lambda depth: b"[" * depth)
_DELETED = object()


def joined(pieces: SearchStrategy[bytes], most: int) -> SearchStrategy[bytes]:
    """Pieces one after the other, some of them noise."""
    return st.lists(pieces | st.binary(max_size=12), max_size=most).map(b"".join)


def changed(document: Mapping[str, Any]) -> SearchStrategy[Any]:
    """Documents that differ from a right one in a few members: added, removed or replaced."""
    places = st.sampled_from(list(_places(document))) | st.tuples(TEXTS)
    changes = st.lists(st.tuples(places, JSON_VALUES | st.just(_DELETED)), min_size=1, max_size=3)
    return changes.map(lambda chosen: _with_changes(json.loads(json.dumps(document)), chosen))


def _places(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    if isinstance(document, (dict, list)):
        members = document.items() if isinstance(document, dict) else enumerate(document)
        for name, value in members:
            yield from _places(value, (*place, name))


def _with_changes(document: Any, changes: list[tuple[tuple[Any, ...], Any]]) -> Any:
    for place, value in changes:
        holder = document
        for name in place[:-1]:
            holder = holder[name] if _has(holder, name) else {}
        if value is not _DELETED and (isinstance(holder, dict) or _has(holder, place[-1])):
            holder[place[-1]] = value
        elif _has(holder, place[-1]):
            del holder[place[-1]]
    return document


def _has(holder: Any, name: Any) -> bool:
    if isinstance(holder, list):
        return isinstance(name, int) and name < len(holder)
    return isinstance(holder, dict) and name in holder


@st.composite
def damaged(draw: st.DrawFn, content: SearchStrategy[bytes]) -> bytes:
    """Bytes that were cut short, or have others put in their place."""
    data = bytearray(draw(content))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 20)) | st.just(len(data)))
    data[start:end] = draw(st.binary(max_size=20))
    return bytes(data)


def files_like(document: Mapping[str, Any]) -> SearchStrategy[bytes]:
    """The bytes of a JSON document: right, changed, damaged, or anything at all."""
    right = st.just(json.dumps(document, indent=2).encode())
    other = changed(document).map(lambda value: json.dumps(value).encode())
    any_json = JSON_VALUES.map(lambda value: json.dumps(value).encode())
    return right | other | other | any_json | damaged(right) | damaged(other) | DEEP | st.binary()


class Reply(NamedTuple):
    """The server's answer to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def answer(self) -> Answer:
        """The same as the transport hands it on."""
        time = RequestTime(NOW, UPTIME, parse_date(self.headers.get("date")))
        return Answer(self.status, self.headers, self.body, time)


_STATUSES = st.sampled_from([200, 200, 400, 401, 403, 404, 204, 301, 307, 418, 429, 500, 502, 503, 504])
_HEADER_TEXTS = TEXTS | st.sampled_from(
    [
        *("7", "-1", "9" * 50, "\xb2", "1e9", "1 Jan 99999 0:0:0", "0 0 0 0"),
        *("Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"),
        *("Mon, 01 Jan 0001 00:00:00 -2359", "Mon, 01 Jan 0001 00:00:00 -0000"),
    ]
)
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "location", "content-type"]), _HEADER_TEXTS
)


def replies_like(*documents: Mapping[str, Any]) -> SearchStrategy[Reply]:
    """Answers with any status and headers, whose body is like one of these documents."""
    return st.builds(Reply, _STATUSES, _HEADERS, st.one_of([files_like(document) for document in documents]))
