"""The S3 gateway of a Cells server: path style, one bucket, signature version 4 verified for real.

As on Cells, the site itself is the endpoint, the bucket is ``io`` or ``data``, the region ``us-east-1``, the
access key an access token and the secret key ``gatewaysecret``. The gateway keeps objects in a
directory on disk and answers the operations that ``aws``, boto3, rclone, s3cmd and mc use; what it
does not have it refuses with the error that S3 has for that.
"""

from __future__ import annotations

import tempfile
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import web

from . import buckets, multipart, objects
from .answers import S3Error, error_answer
from .call import Call
from .signature import Head, is_signed, verify
from .store import ObjectStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohttp.typedefs import Handler

__all__ = ["add_s3_gateway"]

Operation: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]

# An operation is known by its method and by the one query parameter that names a subresource.
_BUCKET_OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", ""): buckets.list_objects,
    ("HEAD", ""): buckets.head_bucket,
    ("PUT", ""): buckets.create_bucket,
    ("DELETE", ""): buckets.delete_bucket,
    ("GET", "location"): buckets.get_bucket_location,
    ("GET", "versioning"): buckets.get_bucket_versioning,
    ("GET", "acl"): buckets.get_acl,
    ("GET", "uploads"): buckets.list_multipart_uploads,
    ("POST", "delete"): buckets.delete_objects,
}
_OBJECT_OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", ""): objects.get_object,
    ("HEAD", ""): objects.head_object,
    ("PUT", ""): objects.put_object,
    ("DELETE", ""): objects.delete_object,
    ("GET", "acl"): buckets.get_acl,
    ("GET", "tagging"): objects.get_object_tagging,
    ("POST", "uploads"): multipart.create_multipart_upload,
    ("PUT", "uploadId"): multipart.upload_part,
    ("GET", "uploadId"): multipart.list_parts,
    ("POST", "uploadId"): multipart.complete_multipart_upload,
    ("DELETE", "uploadId"): multipart.abort_multipart_upload,
}
# What may be configured on a bucket elsewhere and is configured on no bucket here.
_NOT_CONFIGURED = {
    "cors": "NoSuchCORSConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "policy": "NoSuchBucketPolicy",
    "tagging": "NoSuchTagSet",
    "website": "NoSuchWebsiteConfiguration",
}
_NOT_IMPLEMENTED = {
    "accelerate", "attributes", "legal-hold", "logging", "notification", "ownershipControls",
    "publicAccessBlock", "replication", "requestPayment", "restore", "retention", "select", "torrent",
    "versions",
}  # fmt: skip
_SUBRESOURCES = (
    {subresource for _, subresource in (*_BUCKET_OPERATIONS, *_OBJECT_OPERATIONS) if subresource}
    | set(_NOT_CONFIGURED)
    | _NOT_IMPLEMENTED
)
_MAX_KEY_BYTES = 1024


def add_s3_gateway(
    app: web.Application, is_live_access_token: Callable[[str], bool], root: Path | None = None
) -> None:
    """Let an application answer S3 requests too; all other requests go their way as before.

    Requests signed for AWS are for the gateway, whatever their path, and so is everything under ``/io``
    and ``/data``. Objects lie in `root`, or in a temporary directory that goes with the application.
    Run the application with ``auto_decompress=False``: a signed body must arrive as it was signed.
    """
    gateway: _Gateway | None = None

    async def keep_objects(_app: web.Application) -> AsyncIterator[None]:
        nonlocal gateway
        with tempfile.TemporaryDirectory(prefix="cells-s3-") as temporary:
            gateway = _Gateway(ObjectStore(root or Path(temporary)), is_live_access_token)
            yield

    @web.middleware
    async def serve_s3(request: web.Request, handler: Handler) -> web.StreamResponse:
        head = _read_head(request)
        if gateway is not None and _is_for_gateway(head):
            return await gateway.answer(request, head)
        return await handler(request)

    app.cleanup_ctx.append(keep_objects)
    app.middlewares.append(serve_s3)


class _Gateway:
    def __init__(self, store: ObjectStore, is_live_access_token: Callable[[str], bool]) -> None:
        self._store = store
        self._is_live_access_token = is_live_access_token

    async def answer(self, request: web.Request, head: Head) -> web.StreamResponse:
        try:
            verified = verify(head, self._is_live_access_token, time.time())
            bucket, key = _parse_path(head.path)
            operation = _choose_operation(head, bucket, key)
            query = dict(head.parameters())
            return await operation(Call(request, head, verified, self._store, query, bucket, key))
        except S3Error as error:
            return error_answer(error, path=head.path, method=head.method)


def _read_head(request: web.Request) -> Head:
    path, _, query = request.raw_path.partition("?")
    headers = [(_text(name).lower(), _text(value)) for name, value in request.raw_headers]
    return Head(request.method, path, query, headers)


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _is_for_gateway(head: Head) -> bool:
    return _parse_path(head.path)[0] in buckets.BUCKETS or is_signed(head)


def _parse_path(path: str) -> tuple[str, str]:
    """Return bucket and key, decoded; each may be empty."""
    bucket, _, key = path.removeprefix("/").partition("/")
    return urllib.parse.unquote(bucket), urllib.parse.unquote(key, errors="surrogateescape")


def _choose_operation(head: Head, bucket: str, key: str) -> Operation:
    subresource = next((name for name, _ in head.parameters() if name in _SUBRESOURCES), "")
    if not bucket:
        operations: Mapping[tuple[str, str], Operation] = {("GET", ""): buckets.list_buckets}
    elif bucket not in buckets.BUCKETS:
        raise S3Error("NoSuchBucket", "The specified bucket does not exist")
    else:
        operations = _OBJECT_OPERATIONS if key else _BUCKET_OPERATIONS
    if len(key.encode(errors="surrogateescape")) > _MAX_KEY_BYTES:
        raise S3Error("KeyTooLongError", "Your key is too long")
    if operation := operations.get((head.method, subresource)):
        return operation
    if head.method == "GET" and not key and subresource in _NOT_CONFIGURED:
        raise S3Error(_NOT_CONFIGURED[subresource], f"The {subresource} configuration does not exist")
    if subresource:
        raise S3Error(
            "NotImplemented", "A header or query you provided implies functionality not implemented"
        )
    raise S3Error("MethodNotAllowed", "The specified method is not allowed against this resource.")
