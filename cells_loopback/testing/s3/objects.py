"""Operations on single objects."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from aiohttp import web

from .answers import S3Error, answer, http_time, iso_time
from .bodies import PIECE
from .buckets import BUCKETS
from .call import matches_etag, parse_range, quote_etag

if TYPE_CHECKING:
    from .answers import Node
    from .call import Call
    from .store import StoredObject

_OVERRIDES = "response-"


async def get_object(call: Call) -> web.StreamResponse:
    """GetObject, whole or a range of it."""
    stored = call.store.get(call.key)
    if (unmodified := _judge_read(call, stored)) is not None:
        return unmodified
    headers = _headers(call, stored)
    window = parse_range(call.head.header("range"), stored.size)
    start, stop = window or (0, stored.size)
    if window:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{stored.size}"
    headers["content-length"] = str(stop - start)
    response = web.StreamResponse(status=206 if window else 200, headers=headers)
    with call.store.open_blob(stored.blob) as file:
        await response.prepare(call.request)
        file.seek(start)
        while start < stop:
            piece = file.read(min(PIECE, stop - start))
            await response.write(piece)
            start += len(piece)
    await response.write_eof()
    return response


async def head_object(call: Call) -> web.StreamResponse:
    """HeadObject."""
    stored = call.store.get(call.key)
    if (unmodified := _judge_read(call, stored)) is not None:
        return unmodified
    headers = _headers(call, stored)
    headers["content-length"] = str(stored.size)
    return web.Response(headers=headers)


async def put_object(call: Call) -> web.StreamResponse:
    """PutObject and CopyObject, which differ by one header."""
    _judge_write(call)
    if call.head.header("x-amz-copy-source"):
        return _copy_object(call)
    blob, received = await call.receive_blob()
    stored = call.store.put(
        call.key, blob, size=received.size, etag=received.md5, headers=call.object_headers()
    )
    return web.Response(headers={"etag": quote_etag(stored.etag)})


async def delete_object(call: Call) -> web.StreamResponse:
    """DeleteObject: what is not there counts as deleted."""
    call.store.delete(call.key)
    return web.Response(status=204)


async def get_object_tagging(call: Call) -> web.StreamResponse:
    """GetObjectTagging: none."""
    call.store.get(call.key)
    return answer("Tagging", [("TagSet", [])])


def copy_source(call: Call) -> StoredObject:
    """Return the object that ``x-amz-copy-source`` names: ``[/]BUCKET/KEY``, percent-encoded."""
    source, _, _version = call.head.header("x-amz-copy-source").partition("?")
    bucket, _, key = urllib.parse.unquote(source, errors="surrogateescape").lstrip("/").partition("/")
    if bucket not in BUCKETS:
        raise S3Error("NoSuchBucket", "The specified bucket does not exist")
    stored = call.store.get(key)
    condition = call.head.header("x-amz-copy-source-if-match")
    if condition and not matches_etag(condition, stored):
        raise _precondition_failed()
    return stored


def _copy_object(call: Call) -> web.Response:
    source = copy_source(call)
    replaces = call.head.header("x-amz-metadata-directive") == "REPLACE"
    if source.key == call.key and not replaces:
        raise S3Error(
            "InvalidRequest", "This copy request is illegal because it copies an object to itself unchanged."
        )
    headers = call.object_headers() if replaces else source.headers
    blob = call.store.copy_blob(source.blob)
    stored = call.store.put(call.key, blob, size=source.size, etag=source.etag, headers=headers)
    fields: list[Node] = [("LastModified", iso_time(stored.modified)), ("ETag", quote_etag(stored.etag))]
    return answer("CopyObjectResult", fields)


def _headers(call: Call, stored: StoredObject) -> dict[str, str]:
    headers = dict(stored.headers)
    headers["etag"] = quote_etag(stored.etag)
    headers["last-modified"] = http_time(stored.modified)
    headers["accept-ranges"] = "bytes"
    # A presigned link may say how a browser is to treat the download.
    for name, value in call.query.items():
        if name.startswith(_OVERRIDES):
            headers[name.removeprefix(_OVERRIDES)] = value
    return headers


def _judge_read(call: Call, stored: StoredObject) -> web.Response | None:
    """Answer 304 or raise 412 where RFC 9110 section 13.2.2 wants it; else None."""
    if (condition := call.head.header("if-match")) and not matches_etag(condition, stored):
        raise _precondition_failed()
    if (condition := call.head.header("if-none-match")) and matches_etag(condition, stored):
        return web.Response(status=304, headers={"etag": quote_etag(stored.etag)})
    return None


def _judge_write(call: Call) -> None:
    stored = call.store.find(call.key)
    if (condition := call.head.header("if-match")) and not matches_etag(condition, stored):
        raise _precondition_failed()
    if (condition := call.head.header("if-none-match")) and matches_etag(condition, stored):
        raise _precondition_failed()


def _precondition_failed() -> S3Error:
    return S3Error("PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
