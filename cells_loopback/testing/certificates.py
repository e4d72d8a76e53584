"""Certificates made on the fly: an authority of our own, and what it signs, good or bad."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING, Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

Certificate = Literal["trusted", "self-signed", "expired", "other-host"]
"""What a client that trusts the server's `ca_file` finds; ``self-signed`` is as on a default install."""

_CA_NAME = "Cells-like test authority"
_DAY = dt.timedelta(days=1)


def write_certificates(directory: Path, kind: Certificate) -> tuple[Path, ssl.SSLContext]:
    """Write the authority's certificate, and return its path and a context with the server's own."""
    if kind not in get_args(Certificate):
        raise ValueError(f"tls is {kind!r}, which is none of {get_args(Certificate)}")
    now = dt.datetime.now(dt.timezone.utc)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _CA_NAME)])
    ca = _start(ca_name, ca_name, ca_key, now).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), True
    )
    ca = ca.add_extension(_key_usage(signs_certificates=True), True)
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(_pem(ca.sign(ca_key, hashes.SHA256())))

    key = ec.generate_private_key(ec.SECP256R1())
    host = "elsewhere.example" if kind == "other-host" else "localhost"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    signed_by_itself = kind == "self-signed"
    issuer, issuer_key = (name, key) if signed_by_itself else (ca_name, ca_key)
    since = now - 30 * _DAY if kind == "expired" else now
    leaf = _start(name, issuer, key, since, until=since + 10 * _DAY)
    leaf = leaf.add_extension(x509.SubjectAlternativeName(_alternative_names(host)), False)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    leaf = leaf.add_extension(_key_usage(signs_certificates=False), True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    leaf = leaf.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
    )
    return ca_file, _make_context(directory, leaf.sign(issuer_key, hashes.SHA256()), key)


def _start(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    since: dt.datetime,
    until: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since - _DAY)
        .not_valid_after(until or since + 30 * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(host: str) -> list[x509.GeneralName]:
    if host != "localhost":
        return [x509.DNSName(host)]
    addresses = (ipaddress.ip_address(text) for text in ("127.0.0.1", "::1"))
    return [x509.DNSName(host), *map(x509.IPAddress, addresses)]


def _make_context(
    directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> ssl.SSLContext:
    chain = directory / "server.pem"
    chain.touch(mode=0o600)
    chain.write_bytes(
        _pem(certificate)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    chain.unlink()
    return context


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
