"""One authenticated call: the request, what it is about, and the few readings that operations share."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .answers import S3Error
from .bodies import receive, require_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from .bodies import Received
    from .signature import Head, Verified
    from .store import ObjectStore, StoredObject

MAX_DOCUMENT = 4 * 1024 * 1024

# What is said of an object at upload and said again at download.
_KEPT_HEADERS = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")
_METADATA = "x-amz-meta-"


@dataclass(frozen=True)
class Call:
    """A request whose signature is good."""

    request: web.Request
    head: Head
    verified: Verified
    store: ObjectStore
    query: Mapping[str, str]
    bucket: str
    key: str

    async def receive_blob(self) -> tuple[str, Received]:
        """Write the request's body to a new file of bytes."""
        require_length(self.head)
        with self.store.new_blob() as (blob, file):
            received = await receive(self.request.content, self.head, self.verified, file)
        return blob, received

    async def receive_document(self) -> bytes:
        """Return a request body that is an XML document, of a size that such documents have."""
        if (self.request.content_length or 0) > MAX_DOCUMENT:
            raise S3Error("EntityTooLarge", "Your request is too big.")
        sink = io.BytesIO()
        await receive(self.request.content, self.head, self.verified, sink)
        return sink.getvalue()

    def object_headers(self) -> dict[str, str]:
        """Return what the request says of the object that it uploads."""
        kept = {
            name: value
            for name, value in self.head.headers
            if name in _KEPT_HEADERS or name.startswith(_METADATA)
        }
        codings = [coding.strip() for coding in kept.pop("content-encoding", "").split(",")]
        # aws-chunked is of the transfer; it is not stored ("Transferring Payload in Multiple Chunks").
        if stored_codings := ",".join(coding for coding in codings if coding not in ("", "aws-chunked")):
            kept["content-encoding"] = stored_codings
        kept["content-type"] = self.head.header("content-type") or "binary/octet-stream"
        return kept


def quote_etag(etag: str) -> str:
    """Return an entity tag as headers and documents have it (RFC 9110 section 8.8.3)."""
    return f'"{etag}"'


def matches_etag(condition: str, stored: StoredObject | None) -> bool:
    """Judge ``If-Match`` or ``If-None-Match``: a list of entity tags, or ``*`` for any object."""
    if stored is None:
        return False
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in condition.split(",")}
    return "*" in tags or stored.etag in tags


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one behind the last, or None when the whole is meant.

    As RFC 9110 section 14.2 has it, a range that cannot be read is no range; one that begins behind
    the end is `InvalidRange`.
    """
    match = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", text.strip())
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= stop:
        raise S3Error("InvalidRange", "The requested range is not satisfiable")
    return start, stop
