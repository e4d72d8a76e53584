"""The network, from here to the server's keys: the way a login takes, with each of its stations named."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from cells_loopback.clock import format_time
from cells_loopback.doctor.finding import Finding, ok, problem, warning
from cells_loopback.errors import CellsLoopbackError, UntrustedServerError
from cells_loopback.http.discovery import find_server
from cells_loopback.http.endpoints import fetch_key_set, fetch_metadata
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography.x509 import Certificate

    from cells_loopback.loopback_login.options import LoginPlan
    from cells_loopback.protocol.pkce import PKCEBinding, PKCEPolicy
    from cells_loopback.protocol.site import ServerMetadata, Site

EXPIRY_WARNING = 14 * 86400.0
"""Seconds before a certificate's end, at most, from which the administrator should know."""

CLOCK_TOLERANCE = 60.0
"""Seconds that this machine's clock and the server's may differ before it is worth a word."""

SLOW_CONNECTION = 3.0
"""Seconds after which a connection is slow: an address that does not answer was tried first, most likely."""

_STATIONS = {
    "host_not_found": "dns",
    "proxy": "proxy",
    "refused": "connection",
    "timed_out": "connection",
    "unreachable": "connection",
    "connection_lost": "connection",
    "no_tls": "tls",
    "certificate": "tls",
    "ca_bundle": "tls",
    "plain_http": "tls",
}


class Route:
    """The way to the site, as httpcore tells of it: whom we connected to, and TLS at its end."""

    def __init__(self) -> None:
        self.hop: tuple[str, int] | None = None
        self.address = ""
        self.seconds = 0.0
        self.tls_version = ""
        self.certificate: bytes | None = None
        self._started = 0.0

    def on_trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Note what an event says: ``connect_tcp`` and ``start_tls``, when they start and complete."""
        if name.endswith("connect_tcp.started"):
            self.hop = (info["host"], info["port"])
            self.address, self.tls_version, self.certificate = "", "", None
            self._started = time.monotonic()
        elif name.endswith("connect_tcp.complete"):
            self.seconds = time.monotonic() - self._started
            self.address = info["return_value"].get_extra_info("server_addr")[0]
        elif name.endswith("start_tls.complete"):
            tls = info["return_value"].get_extra_info("ssl_object")
            self.tls_version, self.certificate = tls.version(), tls.getpeercert(True)


def check_site(plan: LoginPlan) -> Iterator[Finding]:
    """Do what the login does before it opens the browser, and tell of each station on the way."""
    trust = plan.trust
    route = Route()

    def ask(site: Site, trust: Trust) -> ServerMetadata:
        with SiteClient(site, trust, route.on_trace) as client:
            return fetch_metadata(client)

    try:
        site, metadata = find_server(plan.site, trust, try_http=plan.scheme_is_open, ask=ask)
    except CellsLoopbackError as error:
        if error.code != "host_not_found":
            yield from _describe_way(plan.site, route)
        yield from _explain(plan.site, trust, error)
        return
    binding = plan.known.pkce_binding if plan.known is not None else None
    yield from _describe_way(site, route)
    yield from _judge_tls(site, trust, route)
    yield ok("discovery", f"the issuer is {metadata.issuer}, and all endpoints are on its origin")
    yield judge_pkce(metadata, plan.settings.pkce, binding)
    with SiteClient(site, trust) as client:
        yield from _check_keys(client, metadata)
        yield from _check_clock(client)


def _describe_way(site: Site, route: Route) -> Iterator[Finding]:
    """Tell of the stations that were passed: name service or proxy, and the connection."""
    if route.hop is None:
        return
    host, port = route.hop
    addresses = _addresses(host, port)
    if addresses and addresses != [host]:
        yield ok("dns", f"{host} is {', '.join(addresses)}")
    if not route.address:
        return
    if (host, port) != (site.host, site.port):
        yield ok("proxy", f"the way to {site.url} leads through the proxy {host}:{port}")
    connected = f"connected to {route.address} port {port} in {route.seconds * 1000:.0f} ms"
    if route.seconds < SLOW_CONNECTION:
        yield ok("connection", connected)
    else:
        yield warning("connection", connected, "see which of the addresses does not answer: IPv6, most often")


def _addresses(host: str, port: int) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in answers))


def _explain(site: Site, trust: Trust, error: CellsLoopbackError) -> Iterator[Finding]:
    area = _STATIONS.get(error.code, "discovery")
    if error.code != "certificate":
        yield problem(area, error)
        return
    # Once more without the check, and without any secret: what is wrong with the certificate?
    route, unchecked = Route(), Trust(insecure=True)
    clock: list[Finding] = []
    try:
        with SiteClient(site, unchecked, route.on_trace) as client:
            clock += _check_clock(client)
    except CellsLoopbackError:  # the certificate is the news, not what comes behind it
        pass
    certificate = _parse_certificate(route.certificate)
    details = f" ({_describe_certificate(certificate)})" if certificate is not None else ""
    yield Finding(area, "problem", error.message + details, error.hint, error.exit_code)
    yield from _check_ssl_cert_file(trust)
    yield from clock


def _check_ssl_cert_file(trust: Trust) -> Iterator[Finding]:
    path = os.environ.get("SSL_CERT_FILE")
    if path and trust.ca_bundle is None and not os.path.isfile(path):
        yield warning(
            "tls", f"SSL_CERT_FILE names {path}, and there is no such file", "mend or unset SSL_CERT_FILE"
        )


def _judge_tls(site: Site, trust: Trust, route: Route) -> Iterator[Finding]:
    if site.scheme == "http":
        if site.is_loopback:
            yield ok("tls", "none: plain http, which does not leave this machine")
        else:
            yield warning("tls", "none: tokens go over the network in clear text", "log in to https://")
        return
    if trust.insecure:
        yield warning(
            "tls",
            "the certificate is not checked: anybody in between can read the token",
            f"log out, then: cells-loopback login {site.url} --ca-bundle FILE",
        )
    certificate = _parse_certificate(route.certificate)
    if certificate is None:
        return
    message = f"{route.tls_version}; the certificate is {_describe_certificate(certificate)}"
    if _ends_soon(certificate, time.time()):
        yield warning("tls", message, "tell the server's administrator that it has to be renewed")
    elif not trust.insecure:
        yield ok("tls", message)


def _parse_certificate(encoded: bytes | None) -> Certificate | None:
    from cryptography.x509 import load_der_x509_certificate

    try:
        return load_der_x509_certificate(encoded) if encoded else None
    except ValueError:  # the TLS library is content with more than this parser is
        return None


def _ends_soon(certificate: Certificate, now: float) -> bool:
    # Some certificates live for days only: a fixed span would warn of those from their first hour.
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return end - now < min(EXPIRY_WARNING, (end - begin) / 10)


def _describe_certificate(certificate: Certificate) -> str:
    """Return for whom, by whom and until when: ``for files.example.com, by Example CA, valid until ...``."""
    from cryptography import x509

    if certificate.issuer == certificate.subject:
        issuer = "self-signed"
    else:
        common = certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        issuer = f"by {common[0].value!s}" if common else f"by {certificate.issuer.rfc4514_string()}"
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)[:3]
    except (x509.ExtensionNotFound, ValueError):
        names = []
    subject = f"for {', '.join(names)}, " if names else ""
    end = certificate.not_valid_after_utc.timestamp()
    return f"{subject}{issuer}, valid until {format_time(end)}"


def _check_keys(client: SiteClient, metadata: ServerMetadata) -> Iterator[Finding]:
    try:
        fetch_key_set(client, metadata)
    except CellsLoopbackError as error:
        yield problem("keys", error)


def judge_pkce(metadata: ServerMetadata, policy: PKCEPolicy, binding: PKCEBinding | None) -> Finding:
    """Say whether the code will be tied to this program (RFC 7636), as far as that shows beforehand."""
    if binding in {"unbound", "foreign"}:
        message = f"the last login found that this server does not bind the code to it ({binding})"
        if policy != "required":
            return warning("pkce", message, "ask the server's administrator for an update")
        hint = "update the server, or log in with --pkce auto if you accept it"
        return problem("pkce", UntrustedServerError(f"{message}, and PKCE is required", hint=hint))
    if policy == "off":
        return warning("pkce", "PKCE is switched off for this login", "log in with --pkce auto")
    if "S256" in metadata.code_challenge_methods_supported:
        return ok("pkce", "the server says that it supports S256")
    return ok("pkce", "the server does not say whether it supports S256; the login tries it")


def _check_clock(client: SiteClient) -> Iterator[Finding]:
    """Compare the clocks by the ``Date`` of an answer (RFC 9110 §6.6.1)."""
    try:
        times = client.get(client.site.discovery_url).time
    except CellsLoopbackError:  # it has just answered; what is known is told
        return
    if times.server_date is None:
        yield ok("clock", "the server does not tell the time")
        return
    offset = times.clock_offset
    if abs(offset) <= CLOCK_TOLERANCE:
        yield ok("clock", "this machine's clock and the server's agree, give or take a minute")
        return
    way = "behind" if offset > 0 else "ahead of"
    yield warning(
        "clock",
        f"this machine's clock is {_span(abs(offset))} {way} the server's",
        "set the wrong one; a login works all the same",
    )


def _span(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 2:
        return f"{days:.0f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min"
