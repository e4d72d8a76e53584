"""Operations on the service and its one bucket, which has two names."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from aiohttp import web

from .answers import S3Error, answer, iso_time, parse_document
from .call import quote_etag
from .listing import decode_token, encode_token, list_page, parse_limit
from .signature import REGION

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree import ElementTree as ET

    from .answers import Node
    from .call import Call
    from .listing import Page
    from .store import StoredObject

BUCKETS = ("io", "data")
"""The bucket's names. Cells (v4 and v5, from source) has the second one for clients that refuse the first
because it is shorter than three letters, such as mc."""

OWNER: list[Node] = [("ID", "cells"), ("DisplayName", "cells")]
_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_GRANTEE: Node = ("Grantee", OWNER, {_XSI_TYPE: "CanonicalUser"})
_FULL_CONTROL: list[Node] = [
    ("Owner", OWNER),
    ("AccessControlList", [("Grant", [_GRANTEE, ("Permission", "FULL_CONTROL")])]),
]
_BUCKET_CREATED = 0.0


async def list_buckets(_call: Call) -> web.StreamResponse:
    """ListBuckets."""
    buckets: list[Node] = [
        ("Bucket", [("Name", name), ("CreationDate", iso_time(_BUCKET_CREATED))]) for name in BUCKETS
    ]
    return answer("ListAllMyBucketsResult", [("Owner", OWNER), ("Buckets", buckets)])


async def head_bucket(_call: Call) -> web.StreamResponse:
    """HeadBucket."""
    return web.Response(headers={"x-amz-bucket-region": REGION})


async def get_bucket_location(_call: Call) -> web.StreamResponse:
    """GetBucketLocation: us-east-1 is told by an empty element."""
    return answer("LocationConstraint", [])


async def get_bucket_versioning(_call: Call) -> web.StreamResponse:
    """GetBucketVersioning: never enabled, which an empty document says."""
    return answer("VersioningConfiguration", [])


async def get_acl(_call: Call) -> web.StreamResponse:
    """GetBucketAcl and GetObjectAcl: what the token may see is its owner's."""
    return answer("AccessControlPolicy", _FULL_CONTROL)


async def create_bucket(_call: Call) -> web.StreamResponse:
    """CreateBucket: the one bucket is there."""
    raise S3Error("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded.")


async def delete_bucket(_call: Call) -> web.StreamResponse:
    """DeleteBucket: the one bucket stays."""
    raise S3Error("AccessDenied", "Access Denied")


async def list_objects(call: Call) -> web.StreamResponse:
    """ListObjects and ListObjectsV2."""
    query = call.query
    version_2 = query.get("list-type") == "2"
    limit = parse_limit(query.get("max-keys", ""))
    after = _after(call, version_2=version_2)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    page = list_page(call.store.keys(), prefix=prefix, delimiter=delimiter, after=after, limit=limit)
    encode = _key_encoding(query.get("encoding-type", ""))
    children: list[Node] = [
        ("Name", call.bucket),
        ("Prefix", encode(prefix)),
        ("MaxKeys", limit),
        ("IsTruncated", page.next_marker is not None),
    ]
    if delimiter:
        children.append(("Delimiter", encode(delimiter)))
    if "encoding-type" in query:
        children.append(("EncodingType", query["encoding-type"]))
    children += _v2_fields(call, page, encode) if version_2 else _v1_fields(call, page, encode)
    with_owner = not version_2 or query.get("fetch-owner") == "true"
    for key in page.keys:
        children.append(("Contents", _contents(call.store.get(key), encode, with_owner=with_owner)))
    children += [("CommonPrefixes", [("Prefix", encode(common))]) for common in page.prefixes]
    return answer("ListBucketResult", children)


async def delete_objects(call: Call) -> web.StreamResponse:
    """DeleteObjects."""
    tree = parse_document(await call.receive_document(), "Delete")
    keys = [_key_of(element) for element in tree.iter("Object")]
    for key in keys:
        call.store.delete(key)
    quiet = tree.findtext("Quiet", "").strip().lower() == "true"
    children: list[Node] = [] if quiet else [("Deleted", [("Key", key)]) for key in keys]
    return answer("DeleteResult", children)


async def list_multipart_uploads(call: Call) -> web.StreamResponse:
    """ListMultipartUploads, all on one page."""
    prefix = call.query.get("prefix", "")
    encode = _key_encoding(call.query.get("encoding-type", ""))
    children: list[Node] = [
        ("Bucket", call.bucket),
        ("Prefix", encode(prefix)),
        ("IsTruncated", False),
    ]
    for upload in call.store.uploads():
        if upload.key.startswith(prefix):
            fields: list[Node] = [
                ("Key", encode(upload.key)),
                ("UploadId", upload.upload_id),
                ("Initiated", iso_time(upload.initiated)),
            ]
            children.append(("Upload", fields))
    return answer("ListMultipartUploadsResult", children)


def _after(call: Call, *, version_2: bool) -> str:
    if not version_2:
        return call.query.get("marker", "")
    if token := call.query.get("continuation-token"):
        return decode_token(token)
    return call.query.get("start-after", "")


def _v1_fields(call: Call, page: Page, encode: Callable[[str], str]) -> list[Node]:
    fields: list[Node] = [("Marker", encode(call.query.get("marker", "")))]
    if page.next_marker is not None:
        fields.append(("NextMarker", encode(page.next_marker)))
    return fields


def _v2_fields(call: Call, page: Page, encode: Callable[[str], str]) -> list[Node]:
    fields: list[Node] = [("KeyCount", len(page.keys) + len(page.prefixes))]
    if "start-after" in call.query:
        fields.append(("StartAfter", encode(call.query["start-after"])))
    if token := call.query.get("continuation-token"):
        fields.append(("ContinuationToken", token))
    if page.next_marker is not None:
        fields.append(("NextContinuationToken", encode_token(page.next_marker)))
    return fields


def _contents(stored: StoredObject, encode: Callable[[str], str], *, with_owner: bool) -> list[Node]:
    fields: list[Node] = [
        ("Key", encode(stored.key)),
        ("LastModified", iso_time(stored.modified)),
        ("ETag", quote_etag(stored.etag)),
        ("Size", stored.size),
        ("StorageClass", "STANDARD"),
    ]
    if with_owner:
        fields.append(("Owner", OWNER))
    return fields


def _key_encoding(name: str) -> Callable[[str], str]:
    """Return how keys are written: XML 1.0 has no place for some characters that keys may hold."""
    if not name:
        return str
    if name != "url":
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request")
    return lambda key: urllib.parse.quote(key, safe="/~", errors="surrogateescape")


def _key_of(element: ET.Element) -> str:
    key = element.findtext("Key")
    if not key:
        raise S3Error("MalformedXML", "An Object in the Delete document has no Key.")
    return key
