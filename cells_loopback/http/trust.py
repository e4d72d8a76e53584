"""Whom we believe: certificates, and the one case in which plain http is a person's own choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cells_loopback.errors import UntrustedServerError

if TYPE_CHECKING:
    import ssl

    from cells_loopback.protocol.site import Site
    from cells_loopback.store.profiles import Settings


@dataclass(frozen=True)
class Trust:
    """The system's authorities, or those in ``ca_bundle``, or anybody with ``insecure``."""

    ca_bundle: str | None = None
    insecure: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Trust:
        """Return what the login was told, for each later request of its session."""
        return cls(settings.ca_bundle, settings.insecure)


def check_scheme(site: Site, trust: Trust) -> None:
    """Refuse plain ``http`` to another machine unless asked for (RFC 6749 §3.1, RFC 9700 §2.6).

    Raises `UntrustedServerError`.
    """
    if site.scheme == "http" and not site.is_loopback and not trust.insecure:
        raise UntrustedServerError(
            f"{site.url} would send the token in clear text over the network",
            hint=f"use https://{site.host}, or --insecure if you know every machine in between",
            code="plain_http",
        )


def make_ssl_context(trust: Trust) -> ssl.SSLContext:
    """Return the TLS settings: the system's store (``SSL_CERT_FILE`` included), a bundle, or no check.

    Raises `UntrustedServerError` when the bundle cannot be read.
    """
    import ssl

    if trust.insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.ca_bundle is not None:
        # Not ssl.create_default_context: what that accepts differs from one Python to the next, and from
        # 3.13 it refuses certificates that the same authority in the system's store makes valid.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own certificate will do
        try:
            context.load_verify_locations(cafile=trust.ca_bundle)
        except OSError as error:
            raise UntrustedServerError(
                f"cannot read the certificates in {trust.ca_bundle}: {error.strerror or error}",
                hint="give a file of PEM certificates: --ca-bundle FILE",
                code="ca_bundle",
            ) from None
    else:
        import truststore

        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # some systems build Python without this limit
    return context
