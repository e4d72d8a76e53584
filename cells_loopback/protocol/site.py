"""What a person types becomes a `Site`; the discovery document becomes `ServerMetadata`.

Values only. Fetching the document is `endpoints`' part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cells_loopback.errors import LoginFailedError, UntrustedServerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_RIGHT_FORM = "give a site like files.example.com or https://files.example.com:8443"
_DEFAULT_PORTS = {"https": 443, "http": 80}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_BRACKETS = re.compile(r"\[[^\[\]]*:[^\[\]]*\](:.*)?|[^\[\]]*")
_DOTTED_NUMBERS = re.compile(r"[0-9.]+")
# The paths by which people name a Cells server: its issuer, and the discovery URL itself.
_OIDC_PATHS = frozenset({"", "/oidc", "/oidc/.well-known/openid-configuration"})

DISCOVERY_PATH = "/oidc/.well-known/openid-configuration"
"""Where Cells publishes its metadata (OpenID Connect Discovery 1.0 §4), below the site's URL."""


@dataclass(frozen=True)
class Site:
    """The base URL of one Cells server, in one spelling.

    ``scheme`` is ``https`` or ``http``; ``host`` is lower case, an IDN as its A-labels, an IPv6
    address without brackets; ``port`` is always a number.
    """

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """``host`` or ``host:port``, the port left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL without a trailing slash; also the site's origin (RFC 6454 §6.2)."""
        return f"{self.scheme}://{self.authority}"

    @property
    def discovery_url(self) -> str:
        """The URL of the discovery document."""
        return self.url + DISCOVERY_PATH

    @property
    def is_loopback(self) -> bool:
        """Whether requests to this host cannot leave the machine (RFC 6761 §6.3 for ``localhost``)."""
        return is_loopback_host(self.host)

    def __str__(self) -> str:
        return self.url


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address names this machine's loopback interface."""
    if host == "localhost" or host.endswith(".localhost") or host == "::1":
        return True
    parts = host.split(".")
    are_numbers = len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts)
    return are_numbers and parts[0] == "127" and all(len(part) < 4 and int(part) < 256 for part in parts)


def parse_site(text: str) -> Site:
    """Read a site as people type it: host, URL, issuer or discovery URL.

    A host without a scheme means ``https``. Raises `UsageError` for anything that is not a server's
    base URL.
    """
    typed = text.strip()
    if not typed:
        raise UsageError("the site is empty", hint=_RIGHT_FORM)
    if any(ord(character) < 33 or ord(character) == 127 or character == "\\" for character in typed):
        raise _not_a_site(typed, "it holds a space, a backslash or a control character")
    url = typed if "://" in typed else "https://" + _bracketed(typed)
    if "@" in url.partition("://")[2].partition("/")[0]:  # first, since all other complaints repeat it
        raise UsageError("the site holds a user name or a password", hint=_RIGHT_FORM)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _not_a_site(typed, str(error)) from None
    if not _BRACKETS.fullmatch(parts.netloc):  # of which urlsplit sees the first pair, or none
        raise _not_a_site(typed, "only an IPv6 address stands in brackets")
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise _not_a_site(typed, f"the scheme {scheme} is neither https nor http")
    if "?" in url or "#" in url:
        raise _not_a_site(typed, "it has a query or a fragment")
    if parts.path.rstrip("/") not in _OIDC_PATHS:
        raise _not_a_site(typed, f"Cells lives at the root of a host, not at {parts.path}")
    if port == 0 or parts.netloc.endswith(":"):
        raise _not_a_site(typed, "the port is missing or 0")
    return Site(scheme, _parse_host(host, typed), port or _DEFAULT_PORTS[scheme])


def origin_of(url: str) -> str:
    """Return the origin of an http(s) URL in one spelling (RFC 6454 §4); ``ValueError`` if it has none."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("not an http or https URL")
    return Site(scheme, parts.hostname.lower(), parts.port or _DEFAULT_PORTS[scheme]).url


def has_origin(url: str, origin: str) -> bool:
    """Whether a URL has this origin; False for what is no http(s) URL, a WebSocket's among them."""
    try:
        return origin_of(url) == origin
    except ValueError:
        return False


def _bracketed(typed: str) -> str:
    # A bare IPv6 literal has at least two colons before any path; host:port has one.
    host, slash, path = typed.partition("/")
    if host.count(":") > 1 and not host.startswith("["):
        return f"[{host}]{slash}{path}"
    return typed


def _parse_host(host: str, typed: str) -> str:
    if not host:
        raise _not_a_site(typed, "it has no host")
    if ":" in host:
        import ipaddress

        if "%" in host:
            raise _not_a_site(typed, "an address with a zone is not supported")
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise _not_a_site(typed, "the IPv6 address is not valid") from None
    if not host.isascii():
        host = _to_a_labels(host, typed)
    host = host.lower().rstrip(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise _not_a_site(typed, "the host name is not valid")
    if _DOTTED_NUMBERS.fullmatch(host):
        import ipaddress

        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise _not_a_site(typed, "the IPv4 address is not valid") from None
    return host


def _to_a_labels(host: str, typed: str) -> str:
    import idna  # tables of some 300 kB, needed by few

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise _not_a_site(typed, "the international host name is not valid") from None


def _not_a_site(typed: str, reason: str) -> UsageError:
    return UsageError(f"{typed[:200]!r} is not a site: {reason[:200]}", hint=_RIGHT_FORM)


@dataclass(frozen=True)
class ServerMetadata:
    """The members of the discovery document that we use, named as in RFC 8414 §2.

    ``None`` means that the server does not publish the member. All endpoints have the site's origin.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str | None = None
    revocation_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ()
    code_challenge_methods_supported: tuple[str, ...] = ()
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    authorization_response_iss_parameter_supported: bool = False


_ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "revocation_endpoint",
    "userinfo_endpoint",
)
_REQUIRED_ENDPOINTS = frozenset({"authorization_endpoint", "token_endpoint"})


def parse_metadata(document: Mapping[str, Any], site: Site) -> ServerMetadata:
    """Judge a discovery document that ``site`` answered with.

    The issuer must be the site's own and every endpoint must have the issuer's origin, so that no
    code, token or secret can be sent elsewhere (RFC 8414 §3.3 and §6.2, RFC 9700 §4.4). Raises
    `LoginFailedError` when it is no discovery document, `UntrustedServerError` when it names another
    server.
    """
    issuer = document.get("issuer")
    if not isinstance(issuer, str) or not issuer:
        raise not_a_cells_server(site, "its discovery document names no issuer")
    if not same_issuer(issuer, f"{site.url}/oidc"):
        raise _other_issuer(site, issuer)
    endpoints: dict[str, str | None] = {}
    for name in _ENDPOINTS:
        endpoints[name] = _parse_endpoint(document, name, site)
    return ServerMetadata(
        issuer=issuer,
        authorization_endpoint=endpoints["authorization_endpoint"] or "",
        token_endpoint=endpoints["token_endpoint"] or "",
        jwks_uri=endpoints["jwks_uri"],
        revocation_endpoint=endpoints["revocation_endpoint"],
        userinfo_endpoint=endpoints["userinfo_endpoint"],
        token_endpoint_auth_methods_supported=_words(document, "token_endpoint_auth_methods_supported"),
        code_challenge_methods_supported=_words(document, "code_challenge_methods_supported"),
        id_token_signing_alg_values_supported=_words(document, "id_token_signing_alg_values_supported")
        or ("RS256",),
        authorization_response_iss_parameter_supported=document.get(
            "authorization_response_iss_parameter_supported"
        )
        is True,
    )


def same_issuer(one: str, other: str) -> bool:
    """Compare two issuers, the last slash aside: Cells publishes ``SITE/oidc/`` or ``SITE/oidc`` by release.

    The standard compares the strings as they are (RFC 8414 §3.3); scheme and host are compared here
    in one spelling too, since people type them.
    """
    return _canonical(one) == _canonical(other)


def _canonical(issuer: str) -> str:
    if any(mark in issuer for mark in "?#@"):  # an issuer has none of them (RFC 8414 §2): no other spelling
        return issuer
    try:
        return origin_of(issuer) + urlsplit(issuer).path.rstrip("/")
    except ValueError:
        return issuer


def _parse_endpoint(document: Mapping[str, Any], name: str, site: Site) -> str | None:
    url = document.get(name)
    if url is None and name not in _REQUIRED_ENDPOINTS:
        return None
    if not isinstance(url, str):
        raise not_a_cells_server(site, f"its discovery document names no {name}")
    try:
        origin = origin_of(url)
    except ValueError:
        raise not_a_cells_server(site, f"its {name} is not a URL") from None
    # A user name in it would become credentials of its own, in place of ours.
    has_user = "@" in urlsplit(url).netloc
    is_plain = all("!" <= character <= "~" for character in url)
    if origin != site.url or has_user or "#" in url or not is_plain:
        fault = "is not a plain address" if origin == site.url else f"is of another origin: {origin}"
        raise UntrustedServerError(
            f"the {name} that {site.url} names {fault}",
            hint="ask the server's administrator: its external URL is set wrong, or somebody is in between",
            code="foreign_endpoint",
        )
    return url


def _words(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name)
    return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list) else ()


def _other_issuer(site: Site, issuer: str) -> UntrustedServerError:
    try:
        own = origin_of(issuer)
    except ValueError:
        own = ""
    if own and own != site.url:
        hint = f"if {own} is the server you mean, log in there: cells-loopback login {own}"
    else:
        hint = "ask the server's administrator: its issuer should be " + site.url + "/oidc/"
    return UntrustedServerError(
        f"{site.url} says that its issuer is {issuer[:200]}", hint=hint, code="issuer_mismatch"
    )


def not_a_cells_server(site: Site, reason: str) -> LoginFailedError:
    """Return the error for a site that answers, but not as a Cells server does."""
    return LoginFailedError(
        f"{site.url} is not a Cells server: {reason}",
        hint="check the address; it is the one that opens Cells in a browser",
        code="not_a_cells_server",
    )
