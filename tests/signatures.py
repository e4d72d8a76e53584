"""JSON Web Signatures made with the cryptography library alone, so that joserfc verifies none of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

PrivateKey: TypeAlias = "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey"

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: dict[str, tuple[ec.EllipticCurve, str]] = {
    "ES256": (ec.SECP256R1(), "P-256"),
    "ES384": (ec.SECP384R1(), "P-384"),
    "ES512": (ec.SECP521R1(), "P-521"),
}

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
)


def encode(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def encode_json(value: object) -> str:
    return encode(json.dumps(value, separators=(",", ":")).encode())


def _number(value: int, size: int | None = None) -> str:
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class Signer:
    """A key pair for one algorithm, published under ``kid``."""

    algorithm: str
    kid: str
    private_key: PrivateKey

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key (RFC 7517)."""
        return {"use": "sig", "alg": self.algorithm, "kid": self.kid, **_public_members(self.private_key)}

    @property
    def public_pem(self) -> bytes:
        return self.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, claims: object, header: Mapping[str, Any] | None = None) -> str:
        """Return a compact JWS; ``header`` adds members, and takes them out with None."""
        members = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **(header or {})}
        head = encode_json({name: value for name, value in members.items() if value is not None})
        return self.sign_text(f"{head}.{encode_json(claims)}")

    def sign_text(self, text: str) -> str:
        """Return ``header.payload`` with its signature."""
        return f"{text}.{encode(_sign(self.private_key, self.algorithm, text.encode()))}"


@cache
def make_signer(algorithm: str = "RS256", number: int = 0) -> Signer:
    """Return a key pair, the same for the same arguments: making one costs more than a test."""
    return Signer(algorithm, f"key-{algorithm}-{number}", _make_key(algorithm, number))


@cache
def _make_key(algorithm: str, number: int) -> PrivateKey:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm][0])
    # One RSA key for all of its algorithms.
    return _make_key("RSA", number) if algorithm != "RSA" else rsa.generate_private_key(65537, 2048)


def _public_members(private_key: PrivateKey) -> dict[str, str]:
    if isinstance(private_key, rsa.RSAPrivateKey):
        rsa_numbers = private_key.public_key().public_numbers()
        return {"kty": "RSA", "n": _number(rsa_numbers.n), "e": _number(rsa_numbers.e)}
    point = private_key.public_key().public_numbers()
    size = (private_key.key_size + 7) // 8
    curve = next(name for known, name in _CURVES.values() if known.name == private_key.curve.name)
    return {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}


def _sign(private_key: PrivateKey, algorithm: str, data: bytes) -> bytes:
    digest = _HASHES[algorithm[2:]]
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(private_key.sign(data, ec.ECDSA(digest)))
        size = (private_key.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
        return private_key.sign(data, pss, digest)
    return private_key.sign(data, padding.PKCS1v15(), digest)


def sign_with_hmac(secret: bytes, claims: object, header: Mapping[str, Any]) -> str:
    """Return a compact JWS with HS256, as an attacker makes it from a public key (RFC 8725 §2.1)."""
    text = f"{encode_json({'alg': 'HS256', 'typ': 'JWT', **header})}.{encode_json(claims)}"
    return f"{text}.{encode(hmac.digest(secret, text.encode(), hashlib.sha256))}"
