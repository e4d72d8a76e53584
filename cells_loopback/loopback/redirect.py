"""Choose among the registered redirect URIs the first whose address is ours to hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cells_loopback.errors import LoginFailedError
from cells_loopback.loopback.listener import PortUnavailable, bind_loopback
from cells_loopback.protocol.client import CELLS_CLIENT, CELLS_SYNC

if TYPE_CHECKING:
    import socket

    from cells_loopback.protocol.client import ClientRegistration


@dataclass(frozen=True)
class LoopbackRedirect:
    """A redirect URI with its address held: ``sockets`` listen already. ``notice`` tells of a detour."""

    client: ClientRegistration
    redirect_uri: str
    sockets: tuple[socket.socket, ...]
    notice: str = ""

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self.sockets[0].getsockname()[1])

    @property
    def origin(self) -> str:
        """The origin of the redirect URI: ``http://localhost:3000``."""
        return "/".join(self.redirect_uri.split("/", 3)[:3])

    def close(self) -> None:
        """Stop listening."""
        for sock in self.sockets:
            sock.close()


def hold_redirect_uri(client: ClientRegistration, *, preferred: str | None = None) -> LoopbackRedirect:
    """Bind the first free address among the client's redirect URIs, ``preferred`` tried before all.

    When the port of `CELLS_CLIENT` is taken, the login goes on with `CELLS_SYNC` and its ports, which
    every server knows as well. Raises `LoginFailedError` when all are taken.
    """
    failures: list[PortUnavailable] = []
    held = _hold(client, preferred, failures)
    if held is None and (client.client_id, client.redirect_uris) == (
        CELLS_CLIENT.client_id,
        CELLS_CLIENT.redirect_uris,
    ):
        held = _hold(_as_sync(client), None, failures)
    if held is None:
        raise _all_taken(failures)
    if not failures:
        return held
    first = failures[0]
    notice = f"{first}; going on with port {held.port}"
    if held.client.client_id != client.client_id:
        notice += f" and the client {held.client.client_id}"
    return LoopbackRedirect(held.client, held.redirect_uri, held.sockets, notice)


def _as_sync(client: ClientRegistration) -> ClientRegistration:
    return replace(CELLS_SYNC, scope=client.scope)


def _hold(
    client: ClientRegistration, preferred: str | None, failures: list[PortUnavailable]
) -> LoopbackRedirect | None:
    candidates = list(client.candidates())
    # Stable: the one that worked last time first, then the registered order.
    candidates.sort(key=lambda candidate: candidate[0].on_port(candidate[1]) != preferred)
    tried = {failure.port for failure in failures}
    for redirect_uri, port in candidates:
        if port in tried and port != 0:
            continue
        try:
            sockets = bind_loopback(redirect_uri.host, port)
        except PortUnavailable as failure:
            failures.append(failure)
            continue
        bound = int(sockets[0].getsockname()[1])
        return LoopbackRedirect(client, redirect_uri.on_port(bound), tuple(sockets))
    return None


def _all_taken(failures: list[PortUnavailable]) -> LoginFailedError:
    if not failures:
        return LoginFailedError(
            "this client has no loopback redirect URI", hint="name one: --redirect-uri URI"
        )
    ports = [str(failure.port) for failure in failures]
    which = ports[0] if len(ports) == 1 else f"{ports[0]} and {len(ports) - 1} more"
    mend = f"free port {ports[0]}" if failures[0].reason == "in_use" else "name another: --redirect-uri URI"
    return LoginFailedError(
        f"no free port for the callback: {failures[0]}"
        + ("" if len(ports) == 1 else f" (tried port {which})"),
        hint=f"{mend}, or log in without a port: cells-loopback login --paste",
        code="no_free_port",
    )
