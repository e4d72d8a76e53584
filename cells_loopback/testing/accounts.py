"""Who uses the server: people, and the clients that an administrator or Cells itself registered."""

from __future__ import annotations

import re
import urllib.parse
import uuid
from dataclasses import dataclass, field

DEFAULT_SCOPE = "openid email profile pydio offline"

# Cells' notation for a range of ports: http://localhost:[3636-3666]/servers/callback
_PORT_RANGE = re.compile(r"(?P<before>.*):\[(?P<first>\d+)-(?P<last>\d+)\](?P<after>.*)", re.DOTALL)
_LOOPBACK_LITERALS = {"127.0.0.1", "::1"}


@dataclass(frozen=True)
class User:
    """A person with an account; `name` is the login name, `uuid` the ``sub`` of ID tokens."""

    name: str
    password: str = field(repr=False)
    admin: bool = field(default=False, kw_only=True)
    email: str = field(default="", kw_only=True)
    display_name: str = field(default="", kw_only=True)
    uuid: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        namespace = uuid.uuid5(uuid.NAMESPACE_URL, "cells-user")
        for name, value in (
            ("email", f"{self.name}@example.com"),
            ("display_name", self.name.capitalize()),
            ("uuid", str(uuid.uuid5(namespace, self.name))),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Client:
    """A registered client (RFC 7591 §2): public without a secret, confidential with one.

    ``{site}`` in a redirect URI stands for the server's base URL, and ``[3636-3666]`` for a range of
    ports. `token_endpoint_auth_method` defaults to ``none`` or ``client_secret_basic``.
    """

    client_id: str
    redirect_uris: tuple[str, ...]
    client_secret: str | None = field(default=None, repr=False)
    token_endpoint_auth_method: str = ""
    scope: str = DEFAULT_SCOPE
    name: str = ""

    def __post_init__(self) -> None:
        if not self.token_endpoint_auth_method:
            method = "none" if self.public else "client_secret_basic"
            object.__setattr__(self, "token_endpoint_auth_method", method)

    @property
    def public(self) -> bool:
        """Whether the client has no secret (RFC 6749 §2.1)."""
        return self.client_secret is None

    def allows_redirect_uri(self, redirect_uri: str, site: str) -> bool:
        """Tell whether an authorization request may name this redirect URI."""
        return any(
            matches_redirect_uri(registered.replace("{site}", site), redirect_uri)
            for registered in self.redirect_uris
        )

    def allows_scope(self, scope: str) -> bool:
        """Tell whether the client may ask for all of this scope; both words for ``offline`` are one."""
        allowed = set(self.scope.split())
        if allowed & {"offline", "offline_access"}:
            allowed |= {"offline", "offline_access"}
        return allowed.issuperset(scope.split())


SHIPPED_CLIENTS = (
    Client(
        "cells-client",
        ("http://localhost:3000/servers/callback", "{site}/oauth2/oob"),
        name="Pydio Cells Client",
    ),
    Client(
        "cells-sync",
        ("http://localhost:3000/servers/callback", "http://localhost:[3636-3666]/servers/callback"),
        name="Pydio Cells Sync",
    ),
    Client("cells-mobile", ("cellsauth://callback",), name="Pydio Cells Mobile"),
)
"""The clients that every Cells server ships with."""

EXAMPLE_CLIENTS = (
    Client(
        "cells-curl",
        ("http://127.0.0.1/servers/callback", "http://localhost:[3636-3666]/servers/callback"),
        "password",
        name="The confidential client of the Cells documentation",
    ),
    Client(
        "any-port",
        ("http://127.0.0.1/servers/callback", "http://[::1]/servers/callback"),
        name="A public client that may listen on any port",
    ),
)
"""Two clients as an administrator would add them; the embedded server has them unless told otherwise."""

DEFAULT_USERS = (
    User("alice", "open-sesame", admin=True, display_name="Alice Liddell"),
    User("bob", "open-barley", display_name="Bob Dodgson"),
)


def matches_redirect_uri(registered: str, requested: str) -> bool:
    """Tell whether a requested redirect URI is the registered one.

    Exactly, except that a range of ports matches each of its ports, and that a registered loopback
    *address* matches any port (RFC 8252 §7.3). As in fosite, the name ``localhost`` does not.
    """
    if requested == registered:
        return True
    if found := _PORT_RANGE.fullmatch(registered):
        return any(
            requested == f"{found['before']}:{port}{found['after']}"
            for port in range(int(found["first"]), int(found["last"]) + 1)
        )
    return _matches_as_loopback(registered, requested)


def _matches_as_loopback(registered: str, requested: str) -> bool:
    try:
        ours, theirs = urllib.parse.urlsplit(registered), urllib.parse.urlsplit(requested)
        theirs.port  # noqa: B018  a port that is no number raises
    except ValueError:
        return False
    return (
        ours.scheme == theirs.scheme == "http"
        and ours.hostname in _LOOPBACK_LITERALS
        and (ours.hostname, ours.path, ours.query) == (theirs.hostname, theirs.path, theirs.query)
        and not (theirs.username or theirs.password or theirs.fragment)
    )
