"""AWS signature version 4, the verifying side.

Follows "Authenticating Requests (AWS Signature Version 4)" of the Amazon S3 API Reference, and
shares no code with the clients that sign. As on Cells, the access key is an access token and the
secret key is the same for everybody: the signature proves which token is meant and that nobody
changed the request, the token proves who asks.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .answers import S3Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REGION = "us-east-1"
SECRET_KEY = "gatewaysecret"  # noqa: S105 - Cells' own constant, published in its documentation

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
MAX_SKEW = 15 * 60
MAX_PRESIGNED_LIFE = 7 * 24 * 3600

_TIMESTAMP = "%Y%m%dT%H%M%SZ"
_PRESIGNED = ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature")


@dataclass(frozen=True)
class Head:
    """A request without its body, as it stood on the wire."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    """Names in lower case."""

    def header(self, name: str) -> str:
        """Return a header's values joined by commas, or an empty string (RFC 9110 section 5.3)."""
        return ",".join(value for key, value in self.headers if key == name)

    def parameters(self) -> list[tuple[str, str]]:
        """Return the query's parameters, decoded."""
        return urllib.parse.parse_qsl(self.query, keep_blank_values=True, errors="surrogateescape")

    def parameter(self, name: str) -> str:
        """Return one query parameter, or an empty string."""
        return next((value for key, value in self.parameters() if key == name), "")


@dataclass(frozen=True)
class Verified:
    """What a good signature vouches for; the body must still prove to be the one it names."""

    access_key: str = field(repr=False)
    timestamp: str
    scope: str
    payload_hash: str
    signature: str = field(repr=False)
    signing_key: bytes = field(repr=False)


@dataclass(frozen=True)
class _Claim:
    """An Authorization header or a presigned query, taken apart and not yet believed."""

    credential: str = field(repr=False)
    signed_headers: tuple[str, ...]
    signature: str = field(repr=False)
    timestamp: str
    payload_hash: str
    query: list[tuple[str, str]] = field(repr=False)
    lifetime: int | None = None


def is_signed(head: Head) -> bool:
    """Tell whether a request means to speak to an AWS service, well signed or not."""
    names = {name for name, _ in head.parameters()}
    return head.header("authorization").startswith("AWS") or not names.isdisjoint(
        {"X-Amz-Algorithm", "X-Amz-Signature", "AWSAccessKeyId"}
    )


def verify(
    head: Head, is_live_access_key: Callable[[str], bool], now: float, secret_key: str = SECRET_KEY
) -> Verified:
    """Return what the signature vouches for, or raise the `S3Error` that S3 would answer."""
    claim = _presigned_claim(head) if head.parameter("X-Amz-Algorithm") else _header_claim(head)
    access_key, scope = _split_credential(claim)
    _check_time(claim, now)
    _check_signed_headers(head, claim)
    if not is_live_access_key(access_key):
        raise S3Error(
            "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
        )
    key = derive_key(secret_key, scope)
    canonical = hashlib.sha256(_canonical_request(head, claim)).hexdigest()
    expected = sign(key, f"{ALGORITHM}\n{claim.timestamp}\n{scope}\n{canonical}")
    if not hmac.compare_digest(expected, claim.signature):
        raise S3Error(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        )
    return Verified(access_key, claim.timestamp, scope, claim.payload_hash, claim.signature, key)


def derive_key(secret_key: str, scope: str) -> bytes:
    """Derive the key that signs within a scope: date, region, service, ``aws4_request``."""
    key = b"AWS4" + secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def sign(key: bytes, text: str) -> str:
    """Sign a string, in hexadecimal."""
    return hmac.digest(key, text.encode(errors="surrogateescape"), "sha256").hex()


def _header_claim(head: Head) -> _Claim:
    authorization = head.header("authorization")
    if not authorization:
        raise S3Error("AccessDenied", "Access Denied")
    scheme, _, rest = authorization.partition(" ")
    if scheme != ALGORITHM:
        raise S3Error(
            "InvalidRequest",
            f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.",
        )
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if set(parts) != {"Credential", "SignedHeaders", "Signature"}:
        raise S3Error("AuthorizationHeaderMalformed", "The authorization header is malformed.")
    payload_hash = head.header("x-amz-content-sha256")
    if not payload_hash:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    return _Claim(
        credential=parts["Credential"],
        signed_headers=tuple(parts["SignedHeaders"].split(";")),
        signature=parts["Signature"],
        timestamp=head.header("x-amz-date"),
        payload_hash=payload_hash,
        query=head.parameters(),
    )


def _presigned_claim(head: Head) -> _Claim:
    parameters = dict(head.parameters())
    lifetime = parameters.get("X-Amz-Expires", "")
    if parameters["X-Amz-Algorithm"] != ALGORITHM or not all(map(parameters.get, _PRESIGNED)):
        raise S3Error(
            "AuthorizationQueryParametersError",
            f"Query-string authentication needs {ALGORITHM} and {', '.join(_PRESIGNED)}.",
        )
    if not re.fullmatch(r"[0-9]{1,6}", lifetime) or int(lifetime) > MAX_PRESIGNED_LIFE:
        raise S3Error("AuthorizationQueryParametersError", "X-Amz-Expires must be at most a week in seconds.")
    return _Claim(
        credential=parameters["X-Amz-Credential"],
        signed_headers=tuple(parameters["X-Amz-SignedHeaders"].split(";")),
        signature=parameters["X-Amz-Signature"],
        timestamp=parameters["X-Amz-Date"],
        payload_hash=parameters.get("X-Amz-Content-Sha256")
        or head.header("x-amz-content-sha256")
        or UNSIGNED_PAYLOAD,
        query=[pair for pair in head.parameters() if pair[0] != "X-Amz-Signature"],
        lifetime=int(lifetime),
    )


def _split_credential(claim: _Claim) -> tuple[str, str]:
    """Return the access key and the scope, which must be today's, ours, and for S3."""
    # From the right: nothing says that an access key, here a token, holds no slash.
    access_key, *scope = claim.credential.rsplit("/", 4)
    expected = [claim.timestamp[:8], REGION, "s3", "aws4_request"]
    if scope != expected:
        raise S3Error(
            "AuthorizationHeaderMalformed",
            f"The credential scope is {'/'.join(scope)!r}; expecting {'/'.join(expected)!r}.",
        )
    return access_key, "/".join(scope)


def _check_time(claim: _Claim, now: float) -> None:
    try:
        signed_at = calendar.timegm(time.strptime(claim.timestamp, _TIMESTAMP))
    except ValueError:
        raise S3Error("AccessDenied", "AWS authentication requires a valid x-amz-date.") from None
    if claim.lifetime is None:
        outside = abs(now - signed_at) > MAX_SKEW
    else:
        outside = signed_at - now > MAX_SKEW
        if now > signed_at + claim.lifetime:
            raise S3Error("AccessDenied", "Request has expired")
    if outside:
        raise S3Error(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        )


def _check_signed_headers(head: Head, claim: _Claim) -> None:
    """Refuse what a go-between could have added: "host" and every "x-amz-" header must be signed."""
    must = {"host"} | {name for name, _ in head.headers if name.startswith("x-amz-")}
    if claim.lifetime is not None:
        # It only repeats the parameter or the default, and clients add it to a presigned request.
        must.discard("x-amz-content-sha256")
    if unsigned := must.difference(claim.signed_headers):
        raise S3Error(
            "AccessDenied",
            f"There were headers present in the request which were not signed: {', '.join(sorted(unsigned))}",
        )


def _canonical_request(head: Head, claim: _Claim) -> bytes:
    lines = [
        head.method,
        _quote_path(head.path),
        _canonical_query(claim.query),
        *(f"{name}:{_canonical_value(head, name)}" for name in claim.signed_headers),
        "",
        ";".join(claim.signed_headers),
        claim.payload_hash,
    ]
    return "\n".join(lines).encode(errors="surrogateescape")


def _quote_path(path: str) -> str:
    # S3 alone neither normalizes the path nor encodes it twice.
    return urllib.parse.quote(urllib.parse.unquote_to_bytes(path), safe="/~")


def _canonical_query(parameters: list[tuple[str, str]]) -> str:
    quoted = sorted((_quote(name), _quote(value)) for name, value in parameters)
    return "&".join(f"{name}={value}" for name, value in quoted)


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="~", errors="surrogateescape")


def _canonical_value(head: Head, name: str) -> str:
    return ",".join(" ".join(value.split()) for key, value in head.headers if key == name)
