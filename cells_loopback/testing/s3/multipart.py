"""Objects uploaded in parts."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

from aiohttp import web

from .answers import S3Error, answer, iso_time, parse_document
from .call import parse_range, quote_etag
from .listing import parse_limit
from .objects import copy_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .answers import Node
    from .call import Call
    from .store import Part, Upload

MIN_PART_SIZE = 5 * 1024 * 1024
MAX_PARTS = 10_000


async def create_multipart_upload(call: Call) -> web.StreamResponse:
    """CreateMultipartUpload."""
    upload = call.store.create_upload(call.key, call.object_headers())
    fields: list[Node] = [("Bucket", call.bucket), ("Key", call.key), ("UploadId", upload.upload_id)]
    return answer("InitiateMultipartUploadResult", fields)


async def upload_part(call: Call) -> web.StreamResponse:
    """UploadPart and UploadPartCopy, which differ by one header."""
    upload = _upload(call)
    number = _parse_part_number(call.query.get("partNumber", ""))
    if call.head.header("x-amz-copy-source"):
        part = _copy_part(call, upload, number)
        fields: list[Node] = [("LastModified", iso_time(part.modified)), ("ETag", quote_etag(part.etag))]
        return answer("CopyPartResult", fields)
    blob, received = await call.receive_blob()
    part = call.store.put_part(upload, number, blob, size=received.size, etag=received.md5)
    return web.Response(headers={"etag": quote_etag(part.etag)})


async def list_parts(call: Call) -> web.StreamResponse:
    """ListParts."""
    upload = _upload(call)
    marker = parse_limit(call.query.get("part-number-marker", ""), default=0)
    limit = parse_limit(call.query.get("max-parts", ""))
    parts = [upload.parts[number] for number in sorted(upload.parts) if number > marker]
    children: list[Node] = [
        ("Bucket", call.bucket),
        ("Key", call.key),
        ("UploadId", upload.upload_id),
        ("PartNumberMarker", marker),
        ("MaxParts", limit),
        ("IsTruncated", len(parts) > limit),
    ]
    if len(parts) > limit > 0:
        children.append(("NextPartNumberMarker", parts[limit - 1].number))
    for part in parts[:limit]:
        fields: list[Node] = [
            ("PartNumber", part.number),
            ("LastModified", iso_time(part.modified)),
            ("ETag", quote_etag(part.etag)),
            ("Size", part.size),
        ]
        children.append(("Part", fields))
    return answer("ListPartsResult", children)


async def complete_multipart_upload(call: Call) -> web.StreamResponse:
    """CompleteMultipartUpload."""
    upload = _upload(call)
    parts = _chosen_parts(upload, await call.receive_document())
    blob = call.store.join_blobs(part.blob for part in parts)
    etag = _multipart_etag(parts)
    size = sum(part.size for part in parts)
    call.store.put(call.key, blob, size=size, etag=etag, headers=upload.headers)
    call.store.drop_upload(upload)
    fields: list[Node] = [("Bucket", call.bucket), ("Key", call.key), ("ETag", quote_etag(etag))]
    return answer("CompleteMultipartUploadResult", fields)


async def abort_multipart_upload(call: Call) -> web.StreamResponse:
    """AbortMultipartUpload."""
    call.store.drop_upload(_upload(call))
    return web.Response(status=204)


def _upload(call: Call) -> Upload:
    return call.store.upload(call.query["uploadId"], call.key)


def _parse_part_number(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_PARTS:
        return int(text)
    raise S3Error("InvalidArgument", f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive")


def _copy_part(call: Call, upload: Upload, number: int) -> Part:
    source = copy_source(call)
    window = parse_range(call.head.header("x-amz-copy-source-range"), source.size)
    start, stop = window or (0, source.size)
    with call.store.new_blob() as (blob, file), call.store.open_blob(source.blob) as original:
        original.seek(start)
        content = original.read(stop - start)
        file.write(content)
    etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return call.store.put_part(upload, number, blob, size=len(content), etag=etag)


def _chosen_parts(upload: Upload, document: bytes) -> list[Part]:
    """Return the parts that the client lists: known by their entity tags, ascending, large enough."""
    parts = []
    for element in parse_document(document, "CompleteMultipartUpload").iter("Part"):
        number = _parse_part_number(element.findtext("PartNumber", "").strip())
        part = upload.parts.get(number)
        if part is None or part.etag != element.findtext("ETag", "").strip().strip('"'):
            raise S3Error("InvalidPart", "One or more of the specified parts could not be found.")
        parts.append(part)
    if not parts:
        raise S3Error("MalformedXML", "The XML you provided lists no parts.")
    if any(one.number >= next_one.number for one, next_one in itertools.pairwise(parts)):
        raise S3Error("InvalidPartOrder", "The list of parts was not in ascending order.")
    if any(part.size < MIN_PART_SIZE for part in parts[:-1]):
        raise S3Error("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
    return parts


def _multipart_etag(parts: Sequence[Part]) -> str:
    digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
