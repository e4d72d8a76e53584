"""Signatures against the worked examples that Amazon published, computed by neither side here."""

from __future__ import annotations

import asyncio
import calendar
import io
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from cells_loopback.testing.s3.answers import S3Error
from cells_loopback.testing.s3.bodies import receive
from cells_loopback.testing.s3.signature import Head, is_signed, verify

if TYPE_CHECKING:
    from cells_loopback.testing.s3.signature import Verified

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
NOW = calendar.timegm((2013, 5, 24, 0, 0, 0))
SCOPE = "20130524/us-east-1/s3/aws4_request"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

GET_OBJECT = Head(
    "GET",
    "/test.txt",
    "",
    [
        ("host", "examplebucket.s3.amazonaws.com"),
        (
            "authorization",
            (
                f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{SCOPE},"
                "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
                "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
            ),
        ),
        ("range", "bytes=0-9"),
        ("x-amz-content-sha256", EMPTY),
        ("x-amz-date", "20130524T000000Z"),
    ],
)
LIST_OBJECTS = Head(
    "GET",
    "/",
    "max-keys=2&prefix=J",
    [
        ("host", "examplebucket.s3.amazonaws.com"),
        (
            "authorization",
            (
                f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{SCOPE},"
                "SignedHeaders=host;x-amz-content-sha256;x-amz-date,"
                "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
            ),
        ),
        ("x-amz-content-sha256", EMPTY),
        ("x-amz-date", "20130524T000000Z"),
    ],
)
PRESIGNED = Head(
    "GET",
    "/test.txt",
    urllib.parse.urlencode(
        {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{ACCESS_KEY}/{SCOPE}",
            "X-Amz-Date": "20130524T000000Z",
            "X-Amz-Expires": "86400",
            "X-Amz-SignedHeaders": "host",
            "X-Amz-Signature": "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        }
    ),
    [("host", "examplebucket.s3.amazonaws.com")],
)
CHUNKED = Head(
    "PUT",
    "/examplebucket/chunkObject.txt",
    "",
    [
        ("host", "s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        (
            "authorization",
            (
                f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{SCOPE},"
                "SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;"
                "x-amz-decoded-content-length;x-amz-storage-class,"
                "Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
            ),
        ),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("content-length", "66824"),
    ],
)
CHUNKS = [
    (b"a" * 65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (b"a" * 1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (b"", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
]
CHUNKED_WITH_TRAILER = Head(
    "PUT",
    "/examplebucket/chunkObject.txt",
    "",
    [
        ("host", "s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        (
            "authorization",
            (
                f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{SCOPE},"
                "SignedHeaders=content-encoding;host;x-amz-content-sha256;x-amz-date;"
                "x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer,"
                "Signature=106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
            ),
        ),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("x-amz-trailer", "x-amz-checksum-crc32c"),
        ("content-length", "66824"),
    ],
)
CHUNKS_BEFORE_TRAILER = [
    (b"a" * 65536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
    (b"a" * 1024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
    (b"", "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"),
]
TRAILER = "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{}\r\n"
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def check(head: Head, now: float = NOW, access_key: str = ACCESS_KEY) -> Verified:
    return verify(head, access_key.__eq__, now, SECRET_KEY)


def refusal(head: Head, now: float = NOW) -> str:
    with pytest.raises(S3Error) as caught:
        check(head, now)
    return caught.value.code


def with_header(head: Head, name: str, value: str) -> Head:
    others = [(key, text) for key, text in head.headers if key != name]
    return Head(head.method, head.path, head.query, [*others, (name, value)] if value else others)


def frame(chunks: list[tuple[bytes, str]], trailer: str = "") -> bytes:
    framed = [
        b"%x;chunk-signature=%s\r\n" % (len(data), signature.encode()) + (data and data + b"\r\n")
        for data, signature in chunks
    ]
    return b"".join(framed) + trailer.encode() + b"\r\n"


def store(head: Head, body: bytes) -> bytes:
    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        content = StreamReader(BaseProtocol(loop), limit=2**16, loop=loop)
        content.feed_data(body)
        content.feed_eof()
        sink = io.BytesIO()
        received = await receive(content, head, check(head), sink)
        assert received.size == len(sink.getvalue())
        return sink.getvalue()

    return asyncio.run(run())


@pytest.mark.parametrize("head", [GET_OBJECT, LIST_OBJECTS, PRESIGNED, CHUNKED, CHUNKED_WITH_TRAILER])
def test_amazons_examples_verify(head: Head) -> None:
    assert is_signed(head)
    verified = check(head)
    assert (verified.access_key, verified.scope) == (ACCESS_KEY, SCOPE)
    assert ACCESS_KEY not in repr(verified)


@pytest.mark.parametrize(
    "changed",
    [
        Head("HEAD", GET_OBJECT.path, "", GET_OBJECT.headers),
        Head("GET", "/test.txT", "", GET_OBJECT.headers),
        Head("GET", "/test.txt", "versionId=1", GET_OBJECT.headers),
        with_header(GET_OBJECT, "range", "bytes=0-10"),
        with_header(GET_OBJECT, "host", "other.s3.amazonaws.com"),
        with_header(GET_OBJECT, "x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ],
    ids=["method", "path", "query", "header", "host", "payload"],
)
def test_whatever_is_signed_cannot_be_changed(changed: Head) -> None:
    assert refusal(changed) == "SignatureDoesNotMatch"


def test_the_way_a_path_or_a_header_is_written_does_not_matter() -> None:
    check(Head("GET", "/%74est%2Etxt", "", GET_OBJECT.headers))
    check(with_header(GET_OBJECT, "range", "  bytes=0-9 "))


@pytest.mark.parametrize(("seconds", "code"), [(899, None), (-899, None), (901, "TooSkewed"), (-901, "Too")])
def test_a_header_signature_is_good_for_a_quarter_of_an_hour(seconds: int, code: str | None) -> None:
    if code is None:
        check(GET_OBJECT, NOW + seconds)
    else:
        assert refusal(GET_OBJECT, NOW + seconds) == "RequestTimeTooSkewed"


def test_a_presigned_link_is_good_until_it_expires() -> None:
    check(PRESIGNED, NOW + 86400)
    assert refusal(PRESIGNED, NOW + 86401) == "AccessDenied"
    assert refusal(PRESIGNED, NOW - 901) == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    ("old", "new"),
    [("Expires=86400", "Expires=604801"), ("Expires=86400", "Expires=x"), ("AWS4-HMAC", "AWS5-HMAC")],
)
def test_a_presigned_link_must_be_of_the_right_form(old: str, new: str) -> None:
    spoilt = Head("GET", PRESIGNED.path, PRESIGNED.query.replace(old, new), PRESIGNED.headers)
    assert refusal(spoilt) == "AuthorizationQueryParametersError"


def test_a_dead_access_key_is_said_so_before_the_signature_is_judged() -> None:
    with pytest.raises(S3Error) as caught:
        check(GET_OBJECT, access_key="another")
    assert caught.value.code == "InvalidAccessKeyId"


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (with_header(GET_OBJECT, "x-amz-date", ""), "AuthorizationHeaderMalformed"),
        (with_header(GET_OBJECT, "x-amz-date", "20130524"), "AccessDenied"),
        (with_header(GET_OBJECT, "x-amz-date", "20130525T000000Z"), "AuthorizationHeaderMalformed"),
        (with_header(GET_OBJECT, "x-amz-content-sha256", ""), "InvalidRequest"),
        (with_header(GET_OBJECT, "x-amz-acl", "public-read"), "AccessDenied"),
    ],
)
def test_headers_that_are_missing_or_not_signed_are_refused(head: Head, code: str) -> None:
    assert refusal(head) == code


def test_chunks_signed_one_by_one_are_put_together() -> None:
    assert store(CHUNKED, frame(CHUNKS)) == b"a" * 66560
    body = frame(CHUNKS_BEFORE_TRAILER, TRAILER.format(TRAILER_SIGNATURE))
    assert store(CHUNKED_WITH_TRAILER, body) == b"a" * 66560


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (CHUNKED, frame([(b"b" * 65536, CHUNKS[0][1]), *CHUNKS[1:]])),
        (CHUNKED, frame([CHUNKS[1], CHUNKS[0], CHUNKS[2]])),
        (CHUNKED, frame([CHUNKS[0], CHUNKS[2]])),
        (
            CHUNKED_WITH_TRAILER,
            frame(CHUNKS_BEFORE_TRAILER, TRAILER.format(TRAILER_SIGNATURE[::-1])),
        ),
        (CHUNKED_WITH_TRAILER, frame(CHUNKS_BEFORE_TRAILER, "x-amz-checksum-crc32c:sOO8/Q==\r\n")),
        (CHUNKED_WITH_TRAILER, frame(CHUNKS_BEFORE_TRAILER)),
    ],
    ids=["changed", "swapped", "left out", "trailer forged", "trailer unsigned", "trailer left out"],
)
def test_chunks_that_were_touched_are_found_out(head: Head, body: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        store(head, body)
    assert caught.value.code == "SignatureDoesNotMatch"
