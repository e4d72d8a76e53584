"""The keys that sign tokens, as a JWK Set (RFC 7517), and JSON Web Signatures made with them (RFC 7515)."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import threading
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY_SIZE = 2048
_making = threading.Lock()


class SigningKeys:
    """The server's RSA keys: the newest signs, and those not yet retired are published."""

    def __init__(self) -> None:
        self._newest = 0
        self._oldest = 0

    def rotate(self, *, retire: bool = False) -> None:
        """Sign with a new key from now on; `retire` takes the old ones out of the key set at once."""
        self._newest += 1
        if retire:
            self._oldest = self._newest

    def build_jwks(self, *, decoys: bool = False) -> dict[str, object]:
        """Return the public keys, newest first."""
        keys: list[dict[str, object]] = [
            _build_jwk(number) for number in range(self._newest, self._oldest - 1, -1)
        ]
        return {"keys": [*_build_decoys(), *keys] if decoys else keys}

    def sign(self, claims: Mapping[str, object], **header: object) -> str:
        """Return the claims as a compact JWS with RS256; `header` replaces or adds header members."""
        signed = encode_unsigned({"alg": "RS256", "kid": _kid(self._newest), "typ": "JWT", **header}, claims)
        signature = _rsa_key(self._newest).sign(signed.encode("ascii"), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{encode_base64url(signature)}"

    def sign_with_public_key(self, claims: Mapping[str, object]) -> str:
        """Return an attack: HS256 with the public key as the secret (RFC 8725 §2.1)."""
        pem = (
            _rsa_key(self._newest)
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        signed = encode_unsigned({"alg": "HS256", "kid": _kid(self._newest), "typ": "JWT"}, claims)
        return f"{signed}.{encode_base64url(hmac.digest(pem, signed.encode('ascii'), hashlib.sha256))}"


def encode_unsigned(header: Mapping[str, object], claims: Mapping[str, object]) -> str:
    """Return the first two parts of a compact JWS."""
    return ".".join(
        encode_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)
    )


def encode_base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _rsa_key(number: int) -> rsa.RSAPrivateKey:
    with _making:
        return _make_rsa_key(number)


@functools.cache
def _make_rsa_key(number: int) -> rsa.RSAPrivateKey:
    # One key for all servers of a process: making one costs more than starting a server.
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=_KEY_SIZE)


def _kid(number: int) -> str:
    # The modulus makes the name: two servers with different keys never name them alike.
    modulus = _rsa_key(number).public_key().public_numbers().n
    return f"public:hydra.openid.id-token:{hashlib.sha256(str(modulus).encode()).hexdigest()[:12]}"


def _build_jwk(number: int) -> dict[str, object]:
    public = _rsa_key(number).public_key().public_numbers()
    return {
        "use": "sig",
        "kty": "RSA",
        "alg": "RS256",
        "kid": _kid(number),
        "n": encode_base64url(public.n.to_bytes(_KEY_SIZE // 8, "big")),
        "e": encode_base64url(public.e.to_bytes(3, "big")),
    }


def _build_decoys() -> list[dict[str, object]]:
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    return [
        {"use": "sig", "kty": "LATTICE", "alg": "LT512", "kid": "a-type-of-tomorrow", "v": "AQAB"},
        {
            "use": "sig",
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "kid": "public:hydra.jwt.access-token",
            "x": encode_base64url(point.x.to_bytes(32, "big")),
            "y": encode_base64url(point.y.to_bytes(32, "big")),
        },
    ]
