"""The OAuth client we are: its registration, its redirect URIs and how it authenticates.

Values only; finding a free port among the redirect URIs is `loopback.redirect`'s part.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlsplit

from cells_loopback.errors import UsageError
from cells_loopback.protocol.site import is_loopback_host
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells_loopback.protocol.site import ServerMetadata, Site

DEFAULT_SCOPE = "openid email profile pydio offline"
"""The scope of every client that Cells ships with."""

OFFLINE_SCOPES = frozenset({"offline", "offline_access"})
"""Without one of these the server gives no refresh token."""

# Cells' own notation for a range of ports: http://localhost:[3636-3666]/servers/callback
_PORT_RANGE = re.compile(r"(http://[^/\[]+|http://\[[0-9a-fA-F:]+\]):\[([0-9]{1,5})-([0-9]{1,5})\](/.*)?")


@dataclass(frozen=True)
class RedirectURI:
    """A loopback redirect as registered: one address, one path, one or many ports (RFC 8252 §7.3).

    ``names_port`` is false for one that leaves port 80 unsaid: servers compare the text.
    """

    host: str
    ports: range
    path: str
    names_port: bool = True

    def __str__(self) -> str:
        if len(self.ports) == 1:
            return self.on_port(self.ports[0])
        return f"http://{_bracket(self.host)}:[{self.ports[0]}-{self.ports[-1]}]{self.path}"

    def on_port(self, port: int) -> str:
        """Return the exact ``redirect_uri`` to send when ``port`` is the one that was bound."""
        authority = f"{_bracket(self.host)}:{port}" if self.names_port else _bracket(self.host)
        return f"http://{authority}{self.path}"


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parse_redirect_uri(text: str) -> RedirectURI:
    """Read a loopback redirect URI, a range of ports in Cells' notation included.

    Port 0 stands for any free port. Raises `UsageError` for everything that a short-lived server on
    this machine cannot receive, or that Cells cannot answer to: it puts ``?code=`` behind the URI as it
    is, so a query in it breaks.
    """
    ranged = _PORT_RANGE.fullmatch(text)
    first, last = (int(ranged[2]), int(ranged[3])) if ranged else (0, 0)
    plain = f"{ranged[1]}{ranged[4] or ''}" if ranged else text
    try:
        parts = urlsplit(plain)
        port = parts.port
    except ValueError as error:
        raise _not_a_redirect_uri(text, str(error)) from None
    if not ranged:
        first = last = 80 if port is None else port
    host = (parts.hostname or "").lower()
    if parts.scheme != "http" or not _is_redirect_host(host) or "@" in parts.netloc:
        raise _not_a_redirect_uri(text, "it must be http:// on localhost, 127.0.0.1 or [::1]")
    if "?" in text or "#" in text:
        raise _not_a_redirect_uri(text, "it must have no query and no fragment")
    if not re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", parts.path):
        raise _not_a_redirect_uri(text, "its path holds a character that must be percent-encoded")
    if not {".", "..", "%2e", "%2e%2e"}.isdisjoint(parts.path.lower().split("/")):
        raise _not_a_redirect_uri(text, "a browser takes the dots out of its path, and ends elsewhere")
    if last > 65535 or first > last or (ranged and first == 0):
        raise _not_a_redirect_uri(text, "its ports are not between 1 and 65535, first to last")
    return RedirectURI(host, range(first, last + 1), parts.path, ranged is not None or port is not None)


def _is_redirect_host(host: str) -> bool:
    return is_loopback_host(host) and not host.endswith(".localhost")


def _not_a_redirect_uri(text: str, reason: str) -> UsageError:
    return UsageError(
        f"{text[:200]!r} cannot be the redirect URI: {reason[:200]}",
        hint="give it as registered, e.g. http://localhost:3000/servers/callback"
        " or http://localhost:[3636-3666]/servers/callback",
    )


@dataclass(frozen=True)
class ClientRegistration:
    """One client of the server (RFC 7591 §2): who we say we are, and where we may be called back.

    ``client_secret`` is None for a public client.
    """

    client_id: str
    redirect_uris: tuple[RedirectURI, ...]
    client_secret: Secret | None = None
    scope: str = DEFAULT_SCOPE

    @property
    def is_public(self) -> bool:
        """Whether the client has no secret (RFC 6749 §2.1)."""
        return self.client_secret is None

    @property
    def asks_for_refresh_token(self) -> bool:
        """Whether the scope holds ``offline`` or ``offline_access``."""
        return not OFFLINE_SCOPES.isdisjoint(self.scope.split())

    def candidates(self) -> Iterator[tuple[RedirectURI, int]]:
        """Yield each redirect URI with each of its ports, in the order they are to be tried."""
        for redirect_uri in self.redirect_uris:
            for port in redirect_uri.ports:
                yield redirect_uri, port


CELLS_CLIENT = ClientRegistration(
    "cells-client", (parse_redirect_uri("http://localhost:3000/servers/callback"),)
)
"""The client of Cells' own command line program; the default."""

CELLS_SYNC = ClientRegistration(
    "cells-sync",
    (
        parse_redirect_uri("http://localhost:3000/servers/callback"),
        parse_redirect_uri("http://localhost:[3636-3666]/servers/callback"),
    ),
)
"""The client of Cells' sync program, with 31 more ports: what we go on with when port 3000 is busy."""


def out_of_band_redirect_uri(site: Site) -> str:
    """Return the redirect URI of the server's own copy-paste page."""
    return f"{site.url}/oauth2/oob"


def out_of_band_client(client: ClientRegistration) -> ClientRegistration:
    """Return who to be on that page, at which Cells knows `CELLS_CLIENT` but not `CELLS_SYNC`."""
    return replace(CELLS_CLIENT, scope=client.scope) if client.client_id == CELLS_SYNC.client_id else client


@dataclass(frozen=True)
class ClientAuthentication:
    """What authenticates a client at the token and revocation endpoints: header or form members.

    Exactly one of the two holds the secret; a public client has only ``client_id`` in the form.
    """

    form: dict[str, str | Secret]
    header: Secret | None = None


def authenticate_client(client: ClientRegistration, metadata: ServerMetadata) -> ClientAuthentication:
    """Choose how ``client`` authenticates to the server of ``metadata``.

    A public client names itself in the body and sends no Authorization header: some releases answer
    a header of a public client with ``401 invalid_client``. A confidential client uses HTTP Basic,
    both halves form-encoded first (RFC 6749 §2.3.1), or the body where the metadata offers only
    ``client_secret_post``.
    """
    if client.client_secret is None:
        return ClientAuthentication({"client_id": client.client_id})
    methods = metadata.token_endpoint_auth_methods_supported
    if "client_secret_post" in methods and "client_secret_basic" not in methods:
        return ClientAuthentication({"client_id": client.client_id, "client_secret": client.client_secret})
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret.reveal())}"
    return ClientAuthentication({}, Secret("Basic " + base64.b64encode(pair.encode()).decode()))
