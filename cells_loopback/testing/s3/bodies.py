"""Request bodies: taken off the wire piece by piece, and believed only when they prove to be whole.

Three framings exist: the body as it is, and ``aws-chunked`` with or without a signature on each
chunk, the last two with or without trailing checksums ("Transferring Payload in Multiple Chunks"
and "Checking object integrity" of the Amazon S3 documentation).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .answers import S3Error
from .signature import UNSIGNED_PAYLOAD, sign

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import StreamReader

    from .signature import Head, Verified

PIECE = 256 * 1024

_SIGNED_CHUNKS = ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
_UNSIGNED_CHUNKS = ("STREAMING-UNSIGNED-PAYLOAD-TRAILER",)
_EMPTY = hashlib.sha256(b"").hexdigest()


class Sink(Protocol):
    """Where the pieces go."""

    def write(self, data: bytes, /) -> int:
        """Take a piece."""


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


@dataclass(frozen=True)
class Received:
    """A whole body that passed every check."""

    size: int
    md5: str


async def receive(content: StreamReader, head: Head, verified: Verified, sink: Sink) -> Received:
    """Write the body to the sink and check it against everything that the request says of it.

    The sink has been written to when this raises: only a body returned from here may be kept.
    """
    framing = verified.payload_hash
    trailers: dict[str, str] = {}
    if framing in _SIGNED_CHUNKS:
        pieces = _read_chunks(content, trailers, _ChunkSignatures(verified))
    elif framing in _UNSIGNED_CHUNKS:
        pieces = _read_chunks(content, trailers, None)
    else:
        pieces = content.iter_chunked(PIECE)
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    checksums = _announced_checksums(head)
    size = 0
    async for piece in pieces:
        sink.write(piece)
        size += len(piece)
        for digest in (md5, sha256, *checksums.values()):
            digest.update(piece)
    _check_length(head, size)
    _check_md5(head, md5.digest())
    if framing not in (*_SIGNED_CHUNKS, *_UNSIGNED_CHUNKS, UNSIGNED_PAYLOAD, sha256.hexdigest()):
        raise S3Error(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )
    for name, digest in checksums.items():
        _check_checksum(name, digest.digest(), head.header(name) or trailers.get(name, ""))
    return Received(size, md5.hexdigest())


def require_length(head: Head) -> None:
    """Refuse a body that does not say how long it is, as S3 does."""
    if not (head.header("content-length") or head.header("x-amz-decoded-content-length")):
        raise S3Error("MissingContentLength", "You must provide the Content-Length HTTP header.")


@dataclass
class _ChunkSignatures:
    """The chain of chunk signatures: each one signs its chunk and the signature before it."""

    verified: Verified
    previous: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self.previous = self.verified.signature

    @property
    def with_trailer(self) -> bool:
        return self.verified.payload_hash.endswith("-TRAILER")

    def check_chunk(self, sha256: str, signature: str) -> None:
        self._check("AWS4-HMAC-SHA256-PAYLOAD", [_EMPTY, sha256], signature)

    def check_trailers(self, canonical: bytes, signature: str) -> None:
        self._check("AWS4-HMAC-SHA256-TRAILER", [hashlib.sha256(canonical).hexdigest()], signature)

    def _check(self, algorithm: str, hashes: list[str], signature: str) -> None:
        verified = self.verified
        text = "\n".join([algorithm, verified.timestamp, verified.scope, self.previous, *hashes])
        expected = sign(verified.signing_key, text)
        if not hmac.compare_digest(expected, signature):
            raise S3Error("SignatureDoesNotMatch", "A chunk's signature does not match its content.")
        self.previous = expected


async def _read_chunks(
    content: StreamReader, trailers: dict[str, str], signatures: _ChunkSignatures | None
) -> AsyncIterator[bytes]:
    """Yield what stands in the chunks, and put what follows them into `trailers`."""
    while True:
        size, signature = _parse_chunk_head(await _read_line(content))
        sha256 = hashlib.sha256()
        left = size
        while left:
            piece = await content.read(min(left, PIECE))
            if not piece:
                raise S3Error("IncompleteBody", "The request body ended within a chunk.")
            left -= len(piece)
            sha256.update(piece)
            yield piece
        if signatures is not None:
            signatures.check_chunk(sha256.hexdigest(), signature)
        if size == 0:
            break
        if await _read_line(content):
            raise S3Error("IncompleteBody", "A chunk is longer than it says.")
    await _read_trailers(content, trailers, signatures)


async def _read_trailers(
    content: StreamReader, trailers: dict[str, str], signatures: _ChunkSignatures | None
) -> None:
    canonical = b""
    while line := await _read_line(content):
        name, _, value = (part.strip() for part in line.partition(":"))
        trailers[name.lower()] = value
        if name.lower() != "x-amz-trailer-signature":
            canonical += f"{name.lower()}:{value}\n".encode()
    if signatures is not None and signatures.with_trailer:
        signatures.check_trailers(canonical, trailers.get("x-amz-trailer-signature", ""))


async def _read_line(content: StreamReader) -> str:
    """Read a line without its end; a body that simply stops reads as an empty one."""
    line = await content.readline()
    return line.decode("latin-1").rstrip("\r\n")


def _parse_chunk_head(line: str) -> tuple[int, str]:
    size, _, extension = line.partition(";")
    try:
        return int(size, 16), extension.removeprefix("chunk-signature=")
    except ValueError:
        raise S3Error("IncompleteBody", "The request body is not made of chunks.") from None


def _check_length(head: Head, size: int) -> None:
    announced = head.header("x-amz-decoded-content-length")
    if announced and announced != str(size):
        raise S3Error("IncompleteBody", "The body is not as long as x-amz-decoded-content-length says.")


def _check_md5(head: Head, md5: bytes) -> None:
    announced = head.header("content-md5")
    if not announced:
        return
    try:
        expected = base64.b64decode(announced, validate=True)
    except binascii.Error:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified is not valid.") from None
    if expected != md5:
        raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _announced_checksums(head: Head) -> dict[str, _Digest]:
    """Return a digest to compute for each checksum that comes in a header or will come in a trailer.

    CRC-32C and CRC-64/NVME are let pass unchecked: the standard library has neither.
    """
    trailing = {name.strip().lower() for name in head.header("x-amz-trailer").split(",")}
    known: dict[str, _Digest] = {
        "x-amz-checksum-crc32": _Crc32(),
        "x-amz-checksum-sha1": hashlib.sha1(usedforsecurity=False),
        "x-amz-checksum-sha256": hashlib.sha256(),
    }
    return {name: digest for name, digest in known.items() if name in trailing or head.header(name)}


def _check_checksum(name: str, computed: bytes, announced: str) -> None:
    if base64.b64encode(computed).decode() != announced:
        raise S3Error("BadDigest", f"The {name} you specified did not match what we received.")
