"""The gateway against botocore, a client that we did not write, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import http.client
import io
import threading
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from aiohttp import web
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from cells_loopback.testing.s3 import add_s3_gateway
from cells_loopback.testing.s3.listing import list_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOKEN = "ory_at_abcDEF-_0123456789.abcDEF-_0123456789"
MIB = 1024 * 1024


@contextlib.contextmanager
def serve(live: set[str], root: Path | None = None) -> Iterator[str]:
    """Run a bare application with the gateway mounted, in a thread of its own, and give its address."""
    started: Future[tuple[str, Callable[[], object]]] = Future()

    async def home(_request: web.Request) -> web.Response:
        return web.Response(text="the web interface")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/", home)
        add_s3_gateway(app, live.__contains__, root)
        # A body that was answered before its end is not waited for.
        runner = web.AppRunner(app, auto_decompress=False, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set_result((address, lambda: loop.call_soon_threadsafe(over.set)))
        await over.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    address, end = started.result(10)
    try:
        yield address
    finally:
        end()
        thread.join()


@pytest.fixture(scope="module")
def live() -> set[str]:
    return {TOKEN}


@pytest.fixture(scope="module")
def endpoint(live: set[str]) -> Iterator[str]:
    with serve(live) as address:
        yield address


def make_client(endpoint: str, key: str = TOKEN, secret: str = "gatewaysecret", **config: Any) -> Any:
    config = {"retries": {"max_attempts": 1}, "signature_version": "s3v4", **config}
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(**config),
    )


@pytest.fixture
def s3(endpoint: str) -> Iterator[Any]:
    client = make_client(endpoint)
    for item in client.list_objects_v2(Bucket="io").get("Contents", ()):
        client.delete_object(Bucket="io", Key=item["Key"])
    yield client
    client.close()


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def signed_request(endpoint: str, method: str, path: str, body: bytes, **headers: str) -> AWSRequest:
    request = AWSRequest(method, endpoint + path, data=body, headers=headers)
    S3SigV4Auth(Credentials(TOKEN, "gatewaysecret"), "s3", "us-east-1").add_auth(request)
    return request


def send(request: AWSRequest, body: bytes | None = None) -> tuple[int, bytes]:
    prepared = request.prepare()
    url = urllib.parse.urlsplit(prepared.url)
    assert url.hostname is not None
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    target = url.path + ("?" + url.query if url.query else "")
    body = prepared.body if body is None else body
    headers = {**prepared.headers, "Content-Length": str(len(body or b""))}
    with contextlib.closing(connection):
        connection.request(prepared.method, target, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_what_is_put_is_got_again_with_its_metadata(s3: Any) -> None:
    s3.put_object(
        Bucket="io",
        Key="personal-files/é +&%.txt",
        Body=b"hello",
        ContentType="text/plain",
        CacheControl="no-cache",
        Metadata={"mtime": "1700000000.5"},
    )
    answer = s3.get_object(Bucket="io", Key="personal-files/é +&%.txt")
    assert answer["Body"].read() == b"hello"
    assert answer["Metadata"] == {"mtime": "1700000000.5"}
    assert (answer["ContentType"], answer["CacheControl"]) == ("text/plain", "no-cache")
    assert answer["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    head = s3.head_object(Bucket="io", Key="personal-files/é +&%.txt")
    assert head["ContentLength"] == 5
    assert dt.datetime.now(dt.timezone.utc) - head["LastModified"] < dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    "key", ["a//b", "a/./b/../c", "/a", "a/", "a b", "a%2Fb", "ü/日本", "a\x01b", "~a'()*!"]
)
def test_any_key_that_s3_allows_names_one_object(s3: Any, key: str) -> None:
    s3.put_object(Bucket="io", Key=key, Body=key.encode())
    assert s3.get_object(Bucket="io", Key=key)["Body"].read() == key.encode()
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="io")["Contents"]] == [key]


def test_an_object_coded_by_its_owner_is_stored_as_it_was_sent(s3: Any) -> None:
    s3.put_object(Bucket="io", Key="a.gz", Body=b"\x1f\x8b not really gzip", ContentEncoding="gzip")
    answer = s3.get_object(Bucket="io", Key="a.gz")
    assert answer["ContentEncoding"] == "gzip"
    assert answer["Body"].read() == b"\x1f\x8b not really gzip"


def test_the_one_bucket_has_two_names(s3: Any) -> None:
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["io", "data"]
    s3.put_object(Bucket="io", Key="a", Body=b"x")
    assert s3.get_object(Bucket="data", Key="a")["Body"].read() == b"x"
    assert s3.list_objects_v2(Bucket="data")["Name"] == "data"


def test_the_bucket_is_as_a_plain_bucket_of_its_owner(s3: Any) -> None:
    s3.head_bucket(Bucket="io")
    assert s3.get_bucket_location(Bucket="io")["LocationConstraint"] is None
    assert "Status" not in s3.get_bucket_versioning(Bucket="io")
    assert s3.get_bucket_acl(Bucket="io")["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert refusal(lambda: s3.list_objects_v2(Bucket="other")) == (404, "NoSuchBucket")
    assert refusal(lambda: s3.create_bucket(Bucket="io")) == (409, "BucketAlreadyOwnedByYou")
    assert refusal(lambda: s3.delete_bucket(Bucket="io")) == (403, "AccessDenied")
    assert refusal(lambda: s3.get_bucket_policy(Bucket="io")) == (404, "NoSuchBucketPolicy")
    assert refusal(lambda: s3.list_object_versions(Bucket="io")) == (501, "NotImplemented")
    assert refusal(lambda: s3.put_object_tagging(Bucket="io", Key="a", Tagging={"TagSet": []})) == (
        501,
        "NotImplemented",
    )


def test_what_is_not_there_is_said_so(s3: Any) -> None:
    assert refusal(lambda: s3.get_object(Bucket="io", Key="none")) == (404, "NoSuchKey")
    assert refusal(lambda: s3.head_object(Bucket="io", Key="none")) == (404, "404")
    assert refusal(lambda: s3.put_object(Bucket="io", Key="a" * 1025, Body=b"")) == (400, "KeyTooLongError")
    s3.delete_object(Bucket="io", Key="none")


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
def test_listings_are_paged_and_folded_at_the_delimiter(s3: Any, operation: str) -> None:
    for key in ("a.txt", "b/1", "b/2", "c/1", "d.txt", "é/1"):
        s3.put_object(Bucket="io", Key=key, Body=b"x")
    pages = list(
        s3.get_paginator(operation).paginate(Bucket="io", Delimiter="/", PaginationConfig={"PageSize": 2})
    )
    assert [len(page.get("Contents", [])) + len(page.get("CommonPrefixes", [])) for page in pages] == [
        2,
        2,
        1,
    ]
    assert [item["Key"] for page in pages for item in page.get("Contents", [])] == ["a.txt", "d.txt"]
    folded = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
    assert folded == ["b/", "c/", "é/"]
    inside = getattr(s3, operation)(Bucket="io", Prefix="b/", Delimiter="/")
    assert [item["Key"] for item in inside["Contents"]] == ["b/1", "b/2"]


def test_listings_begin_behind_a_key_and_tell_owners_on_request(s3: Any) -> None:
    for key in ("a", "b", "c"):
        s3.put_object(Bucket="io", Key=key, Body=b"x")
    answer = s3.list_objects_v2(Bucket="io", StartAfter="a", FetchOwner=True)
    assert [item["Key"] for item in answer["Contents"]] == ["b", "c"]
    assert all("Owner" in item for item in answer["Contents"])
    assert "Contents" not in s3.list_objects_v2(Bucket="io", MaxKeys=0)
    assert refusal(lambda: s3.list_objects_v2(Bucket="io", ContinuationToken="?")) == (400, "InvalidArgument")


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=6-", 206, b"6789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=5-3", 200, b"0123456789"),
        ("bytes=-", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_a_range_is_answered_with_that_range(s3: Any, asked: str, status: int, body: bytes) -> None:
    s3.put_object(Bucket="io", Key="digits", Body=b"0123456789")
    answer = s3.get_object(Bucket="io", Key="digits", Range=asked)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    assert answer["Body"].read() == body


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(s3: Any, asked: str) -> None:
    s3.put_object(Bucket="io", Key="digits", Body=b"0123456789")
    assert refusal(lambda: s3.get_object(Bucket="io", Key="digits", Range=asked)) == (416, "InvalidRange")


def test_reads_and_writes_obey_entity_tags(s3: Any) -> None:
    etag = s3.put_object(Bucket="io", Key="a", Body=b"one")["ETag"]
    s3.get_object(Bucket="io", Key="a", IfMatch=etag)
    assert refusal(lambda: s3.get_object(Bucket="io", Key="a", IfNoneMatch=etag)) == (304, "304")
    assert refusal(lambda: s3.head_object(Bucket="io", Key="a", IfNoneMatch=etag)) == (304, "304")
    assert refusal(lambda: s3.get_object(Bucket="io", Key="a", IfMatch='"x"')) == (412, "PreconditionFailed")
    for conditions in ({"IfNoneMatch": "*"}, {"IfMatch": '"x"'}):
        assert refusal(lambda c=conditions: s3.put_object(Bucket="io", Key="a", Body=b"two", **c)) == (
            412,
            "PreconditionFailed",
        )
    assert s3.get_object(Bucket="io", Key="a")["Body"].read() == b"one"
    assert refusal(lambda: s3.put_object(Bucket="io", Key="new", Body=b"x", IfMatch='"x"')) == (
        412,
        "PreconditionFailed",
    )


def test_an_object_belongs_to_its_owner_and_has_no_tags(s3: Any) -> None:
    s3.put_object(Bucket="io", Key="a", Body=b"one")
    assert s3.get_object_acl(Bucket="io", Key="a")["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert s3.get_object_tagging(Bucket="io", Key="a")["TagSet"] == []
    assert refusal(lambda: s3.get_object_tagging(Bucket="io", Key="none")) == (404, "NoSuchKey")


def test_a_copy_has_the_metadata_of_its_source_or_new_ones(s3: Any) -> None:
    s3.put_object(Bucket="io", Key="a b", Body=b"hello", Metadata={"mtime": "1"})
    s3.copy_object(Bucket="io", Key="copy", CopySource={"Bucket": "io", "Key": "a b"})
    s3.copy_object(
        Bucket="io",
        Key="a b",
        CopySource={"Bucket": "io", "Key": "a b"},
        Metadata={"mtime": "2"},
        MetadataDirective="REPLACE",
    )
    assert s3.get_object(Bucket="io", Key="copy")["Body"].read() == b"hello"
    assert s3.head_object(Bucket="io", Key="copy")["Metadata"] == {"mtime": "1"}
    assert s3.head_object(Bucket="io", Key="a b")["Metadata"] == {"mtime": "2"}
    for source, status, code in [
        ("io/a b", 400, "InvalidRequest"),
        ("io/none", 404, "NoSuchKey"),
        ("other/a", 404, "NoSuchBucket"),
    ]:
        assert refusal(lambda s=source: s3.copy_object(Bucket="io", Key="a b", CopySource=s)) == (
            status,
            code,
        )
    assert refusal(
        lambda: s3.copy_object(Bucket="io", Key="c", CopySource="io/copy", CopySourceIfMatch='"x"')
    ) == (412, "PreconditionFailed")


@pytest.mark.parametrize("quiet", [False, True])
def test_many_objects_are_deleted_in_one_call(s3: Any, quiet: bool) -> None:
    for key in ("a&b", "c"):
        s3.put_object(Bucket="io", Key=key, Body=b"x")
    objects = [{"Key": "a&b"}, {"Key": "c"}, {"Key": "never there"}]
    answer = s3.delete_objects(Bucket="io", Delete={"Objects": objects, "Quiet": quiet})
    assert [item["Key"] for item in answer.get("Deleted", [])] == (
        [] if quiet else ["a&b", "c", "never there"]
    )
    assert "Contents" not in s3.list_objects_v2(Bucket="io")


def test_an_object_is_made_of_its_parts(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket="io", Key="big", Metadata={"mtime": "3"})["UploadId"]
    call = {"Bucket": "io", "Key": "big", "UploadId": upload}
    first = b"a" * (5 * MIB)
    s3.put_object(Bucket="io", Key="tail", Body=b"0123456789")
    parts = [
        {"PartNumber": 1, "ETag": s3.upload_part(**call, PartNumber=1, Body=first)["ETag"]},
        {
            "PartNumber": 3,
            "ETag": s3.upload_part_copy(
                **call, PartNumber=3, CopySource="io/tail", CopySourceRange="bytes=2-4"
            )["CopyPartResult"]["ETag"],
        },
    ]
    assert [item["Key"] for item in s3.list_multipart_uploads(Bucket="io")["Uploads"]] == ["big"]
    page = s3.list_parts(**call, MaxParts=1)
    assert (page["IsTruncated"], page["NextPartNumberMarker"]) == (True, 1)
    rest = s3.list_parts(**call, PartNumberMarker=1)
    assert [(part["PartNumber"], part["Size"]) for part in rest["Parts"]] == [(3, 3)]
    answer = s3.complete_multipart_upload(**call, MultipartUpload={"Parts": parts})
    assert answer["ETag"].endswith('-2"')
    whole = s3.get_object(Bucket="io", Key="big")
    assert whole["Body"].read() == first + b"234"
    assert whole["Metadata"] == {"mtime": "3"}
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="io")


def test_parts_that_do_not_make_an_object_are_refused(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket="io", Key="big")["UploadId"]
    call = {"Bucket": "io", "Key": "big", "UploadId": upload}
    etags = {number: s3.upload_part(**call, PartNumber=number, Body=b"x")["ETag"] for number in (1, 2)}
    s3.upload_part(**call, PartNumber=2, Body=b"x")

    def complete(*parts: tuple[int, str]) -> tuple[int, str]:
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in parts]
        return refusal(lambda: s3.complete_multipart_upload(**call, MultipartUpload={"Parts": listed}))

    assert complete((1, etags[1]), (2, etags[2])) == (400, "EntityTooSmall")
    assert complete((2, etags[2]), (1, etags[1])) == (400, "InvalidPartOrder")
    assert complete((1, '"x"')) == (400, "InvalidPart")
    assert complete() == (400, "MalformedXML")
    assert refusal(lambda: s3.upload_part(**call, PartNumber=10_001, Body=b"x")) == (400, "InvalidArgument")
    s3.abort_multipart_upload(**call)
    assert refusal(lambda: s3.list_parts(**call)) == (404, "NoSuchUpload")


def test_a_large_file_goes_up_in_parts_and_comes_down_in_ranges(s3: Any) -> None:
    content = bytes(range(256)) * (17 * MIB // 256)
    s3.upload_fileobj(io.BytesIO(content), "io", "large")
    assert s3.head_object(Bucket="io", Key="large")["ETag"].endswith('-3"')
    received = io.BytesIO()
    s3.download_fileobj("io", "large", received)
    assert received.getvalue() == content


def test_a_presigned_link_needs_no_other_credentials(s3: Any) -> None:
    link = s3.generate_presigned_url(
        "put_object", Params={"Bucket": "io", "Key": "from a form"}, ExpiresIn=60
    )
    with urllib.request.urlopen(urllib.request.Request(link, data=b"hi", method="PUT")) as answer:
        assert answer.status == 200
    link = s3.generate_presigned_url(
        "get_object",
        Params={"Bucket": "io", "Key": "from a form", "ResponseContentDisposition": "attachment"},
        ExpiresIn=60,
    )
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"hi"
        assert answer.headers["Content-Disposition"] == "attachment"
    for spoilt in (link.replace("form", "farm"), link.replace("Expires=60", "Expires=61")):
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(spoilt):
            pass
        assert caught.value.code == 403
        assert b"<Code>SignatureDoesNotMatch</Code>" in caught.value.read()
        caught.value.close()


def test_a_wrong_secret_key_is_found_out(endpoint: str) -> None:
    client = make_client(endpoint, secret="gatewaysecrets")
    assert refusal(client.list_buckets) == (403, "SignatureDoesNotMatch")
    assert refusal(lambda: client.put_object(Bucket="io", Key="a", Body=b"x")) == (
        403,
        "SignatureDoesNotMatch",
    )
    client.close()


def test_a_token_that_has_died_is_no_access_key(endpoint: str, live: set[str]) -> None:
    client = make_client(endpoint, key="short-lived")
    live.add("short-lived")
    client.list_objects_v2(Bucket="io")
    live.remove("short-lived")
    assert refusal(lambda: client.list_objects_v2(Bucket="io")) == (403, "InvalidAccessKeyId")
    client.close()


def test_another_region_is_refused(endpoint: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="eu-west-1",
        aws_access_key_id=TOKEN,
        aws_secret_access_key="gatewaysecret",
    )
    assert refusal(lambda: client.list_objects_v2(Bucket="io")) == (400, "AuthorizationHeaderMalformed")
    client.close()


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/", b"the web interface"), ("/?a=b", b"the web interface"), ("/iota", b"404: Not Found")],
)
def test_requests_that_are_not_for_the_gateway_go_their_way(
    endpoint: str, path: str, expected: bytes
) -> None:
    try:
        answer = urllib.request.urlopen(endpoint + path)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        assert answer.read() == expected


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("", 403, b"AccessDenied"),
        ("Bearer x", 400, b"InvalidRequest"),
        ("AWS key:signature", 400, b"InvalidRequest"),
        ("AWS4-HMAC-SHA256 Credential=x", 400, b"AuthorizationHeaderMalformed"),
    ],
)
def test_other_ways_to_authenticate_are_refused(endpoint: str, header: str, status: int, code: bytes) -> None:
    request = urllib.request.Request(f"{endpoint}/io/a", headers={"Authorization": header} if header else {})
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request):
        pass
    assert caught.value.code == status
    assert b"<Code>" + code + b"</Code>" in caught.value.read()
    caught.value.close()


def test_a_body_that_is_not_the_signed_one_is_not_stored(endpoint: str, s3: Any) -> None:
    request = signed_request(endpoint, "PUT", "/io/swapped", b"signed")
    status, answer = send(request, b"forged")
    assert (status, b"XAmzContentSHA256Mismatch" in answer) == (400, True)
    assert refusal(lambda: s3.head_object(Bucket="io", Key="swapped")) == (404, "404")


def test_a_header_added_on_the_way_is_refused(endpoint: str) -> None:
    request = signed_request(endpoint, "GET", "/io", b"")
    request.headers["x-amz-meta-added"] = "1"
    status, answer = send(request)
    assert (status, b"not signed: x-amz-meta-added" in answer) == (403, True)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, 400, b"BadDigest"),
        ({"Content-MD5": "?"}, 400, b"InvalidDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, 400, b"BadDigest"),
        ({"x-amz-checksum-sha1": "AAAA"}, 400, b"BadDigest"),
        ({"x-amz-checksum-sha256": "AAAA"}, 400, b"BadDigest"),
        ({"x-amz-checksum-crc32": "NhCmhg=="}, 200, b""),
    ],
)
def test_checksums_sent_along_are_checked(
    endpoint: str, headers: dict[str, str], status: int, code: bytes
) -> None:
    answered, answer = send(signed_request(endpoint, "PUT", "/io/sum", b"hello", **headers))
    assert (answered, code in answer) == (status, True)


def chunked_request(endpoint: str, trailer: str) -> AWSRequest:
    request = AWSRequest(
        "PUT",
        f"{endpoint}/io/chunked",
        data=f"4\r\nhell\r\n1\r\no\r\n0\r\n{trailer}\r\n".encode(),
        headers={
            "Content-Encoding": "aws-chunked",
            "X-Amz-Decoded-Content-Length": "5",
            "X-Amz-Trailer": "x-amz-checksum-crc32",
        },
    )
    request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    S3SigV4Auth(Credentials(TOKEN, "gatewaysecret"), "s3", "us-east-1").add_auth(request)
    assert request.headers["X-Amz-Content-SHA256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    return request


def test_a_body_in_chunks_is_stored_without_them(endpoint: str, s3: Any) -> None:
    request = chunked_request(endpoint, "x-amz-checksum-crc32:NhCmhg==\r\n")
    assert send(request) == (200, b"")
    answer = s3.get_object(Bucket="io", Key="chunked")
    assert answer["Body"].read() == b"hello"
    assert "ContentEncoding" not in answer


@pytest.mark.parametrize(
    ("trailer", "code"), [("x-amz-checksum-crc32:AAAAAA==\r\n", b"BadDigest"), ("", b"BadDigest")]
)
def test_a_trailing_checksum_must_come_and_be_right(endpoint: str, trailer: str, code: bytes) -> None:
    status, answer = send(chunked_request(endpoint, trailer))
    assert (status, code in answer) == (400, True)


@pytest.mark.parametrize(
    "body",
    [b"hello", b"5\r\nhell", b"4\r\nhello\r\n0\r\n\r\n", b"4\r\nhell\r\n0\r\n\r\n", b""],
    ids=["no chunks", "cut off", "chunk too long", "body too short", "nothing"],
)
def test_chunks_that_do_not_make_the_announced_body_are_refused(endpoint: str, body: bytes) -> None:
    status, answer = send(chunked_request(endpoint, ""), body)
    assert (status, b"IncompleteBody" in answer) == (400, True)


@pytest.mark.parametrize("body", [b"<Delete", b"<Other/>", b"<Delete><Object/></Delete>"])
def test_a_document_that_cannot_be_read_is_refused(endpoint: str, body: bytes) -> None:
    status, answer = send(signed_request(endpoint, "POST", "/io?delete=", body))
    assert (status, b"MalformedXML" in answer) == (400, True)


def test_a_document_larger_than_such_documents_are_is_refused(endpoint: str) -> None:
    status, answer = send(signed_request(endpoint, "POST", "/io?delete=", b" " * (4 * MIB + 1)))
    assert (status, b"EntityTooLarge" in answer) == (400, True)


@pytest.mark.parametrize("query", ["max-keys=x", "max-keys=-1", "encoding-type=utf-7"])
def test_a_listing_asked_for_wrongly_is_refused(endpoint: str, query: str) -> None:
    status, answer = send(signed_request(endpoint, "GET", f"/io?{query}", b""))
    assert (status, b"InvalidArgument" in answer) == (400, True)


def test_a_body_without_a_length_is_refused(endpoint: str) -> None:
    request = signed_request(endpoint, "PUT", "/io/a", b"hello").prepare()
    url = urllib.parse.urlsplit(endpoint)
    assert url.hostname is not None
    headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
    with contextlib.closing(http.client.HTTPConnection(url.hostname, url.port, timeout=10)) as connection:
        connection.request("PUT", "/io/a", body=iter([b"hello"]), headers=headers, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, b"MissingContentLength" in answer.read()) == (411, True)


def test_a_method_that_s3_does_not_have_is_refused(endpoint: str) -> None:
    status, answer = send(signed_request(endpoint, "PATCH", "/io/a", b""))
    assert (status, b"MethodNotAllowed" in answer) == (405, True)


def test_objects_outlive_the_server_when_it_is_given_a_directory(tmp_path: Path, live: set[str]) -> None:
    for turn in range(2):
        with serve(live, tmp_path / "objects") as address:
            client = make_client(address)
            if turn == 0:
                client.put_object(Bucket="io", Key="kept", Body=b"x", Metadata={"mtime": "4"})
                client.put_object(Bucket="io", Key="kept", Body=b"y", Metadata={"mtime": "5"})
            answer = client.get_object(Bucket="io", Key="kept")
            assert (answer["Body"].read(), answer["Metadata"]) == (b"y", {"mtime": "5"})
            client.close()
    assert len(list((tmp_path / "objects").iterdir())) == 2


def test_a_page_that_ends_in_a_folded_prefix_is_followed_by_what_stands_behind_it() -> None:
    keys = ["a/1", "a/2", "b"]
    first = list_page(keys, prefix="", delimiter="/", after="", limit=1)
    assert (first.prefixes, first.next_marker) == (("a/",), "a/")
    second = list_page(keys, prefix="", delimiter="/", after="a/", limit=1)
    assert (second.keys, second.prefixes, second.next_marker) == (("b",), (), None)
