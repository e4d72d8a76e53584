"""What the gateway says: XML documents and XML errors, as the Amazon S3 API Reference has them."""

from __future__ import annotations

import datetime as dt
import email.utils
import uuid
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from xml.etree import ElementTree as ET

from aiohttp import web

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

Content: TypeAlias = str | int | bool | Sequence["Node"]
Node: TypeAlias = tuple[str, Content] | tuple[str, Content, Mapping[str, str]]
"""An element: its name, its text or its children, and its attributes if it has any."""

# API Reference, "Error responses": the codes that this gateway uses.
_STATUS = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "BadDigest": 400,
    "BucketAlreadyOwnedByYou": 409,
    "EntityTooLarge": 400,
    "EntityTooSmall": 400,
    "IncompleteBody": 400,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidDigest": 400,
    "InvalidPart": 400,
    "InvalidPartOrder": 400,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "KeyTooLongError": 400,
    "MalformedXML": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchBucketPolicy": 404,
    "NoSuchCORSConfiguration": 404,
    "NoSuchKey": 404,
    "NoSuchLifecycleConfiguration": 404,
    "NoSuchTagSet": 404,
    "NoSuchUpload": 404,
    "NoSuchWebsiteConfiguration": 404,
    "NotImplemented": 501,
    "ObjectLockConfigurationNotFoundError": 404,
    "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403,
    "ServerSideEncryptionConfigurationNotFoundError": 404,
    "SignatureDoesNotMatch": 403,
    "XAmzContentSHA256Mismatch": 400,
}


class S3Error(Exception):
    """A request that the gateway refuses, with the error code that S3 has for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = _STATUS[code]


def document(root: str, children: Sequence[Node], *, namespace: str = NAMESPACE) -> bytes:
    """Render an XML document."""
    element = ET.Element(root, {"xmlns": namespace} if namespace else {})
    _append(element, children)
    text: bytes = ET.tostring(element, encoding="utf-8", xml_declaration=True)
    return text


def answer(root: str, children: Sequence[Node], headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer 200 with an XML document."""
    return web.Response(body=document(root, children), content_type="application/xml", headers=headers)


def error_answer(error: S3Error, *, path: str, method: str) -> web.Response:
    """Answer with an XML error; to HEAD with its status alone (RFC 9110 section 9.3.2)."""
    request_id = uuid.uuid4().hex[:16].upper()
    headers = {"x-amz-request-id": request_id}
    if method == "HEAD":
        return web.Response(status=error.status, headers=headers)
    children = [
        ("Code", error.code),
        ("Message", error.message),
        ("Resource", path),
        ("RequestId", request_id),
    ]
    body = document("Error", children, namespace="")
    return web.Response(status=error.status, body=body, content_type="application/xml", headers=headers)


def parse_document(text: bytes, root: str) -> ET.Element:
    """Read an XML document with this root, with or without a namespace; else `MalformedXML`."""
    try:
        tree = ET.fromstring(text)  # noqa: S314 - only signed requests get here, and expat bounds entities
    except ET.ParseError:
        raise S3Error("MalformedXML", "The XML you provided was not well-formed.") from None
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
    if tree.tag != root:
        raise S3Error("MalformedXML", f"The XML you provided is not a {root}.")
    return tree


def iso_time(seconds: float) -> str:
    """Write an instant as S3 does in XML: UTC, with three digits after the second."""
    instant = dt.datetime.fromtimestamp(int(seconds), dt.timezone.utc)
    return instant.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def http_time(seconds: float) -> str:
    """Write an instant as a header has it (RFC 9110 section 5.6.7)."""
    return email.utils.formatdate(seconds, usegmt=True)


def _append(parent: ET.Element, children: Sequence[Node]) -> None:
    for name, content, *attributes in children:
        child = ET.SubElement(parent, name, dict(*attributes))
        if isinstance(content, bool):
            child.text = "true" if content else "false"
        elif isinstance(content, (str, int)):
            child.text = str(content)
        else:
            _append(child, content)
