"""The loopback sockets of one login: is the port free, take it on both families, who has it otherwise.

Light on purpose: a login binds its sockets before anything heavy is imported, so that the browser can
connect while the rest is still loading. Which ports are tried, and in which order, is `redirect`'s part.
"""

from __future__ import annotations

import errno
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    NewSocket: TypeAlias = Callable[[socket.AddressFamily, socket.SocketKind], socket.socket]

LOOPBACK = ("127.0.0.1", "::1")
"""The two loopback addresses that a browser may take ``localhost`` for, in the order they are bound."""

BACKLOG = 1024
"""Connections that the system keeps for us until the server is up, or while it is being flooded."""

PROBE_TIMEOUT = 0.25
"""Seconds that a connection to this machine itself may take."""

_FREE_PORT_TRIES = 64
_NO_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENETUNREACH})


class PortUnavailable(Exception):  # noqa: N818 - said as it is, to be turned into an error with an exit code
    """No socket on this port.

    ``reason`` is ``in_use`` (somebody listens on it), ``reserved`` (the system keeps it for itself),
    ``privileged`` (only an administrator may have it) or ``no_such_address`` (this machine has no such
    loopback address).
    """

    def __init__(self, port: int, reason: str, find_holder: Callable[[int], str] | None = None) -> None:
        super().__init__(port, reason)
        self.port = port
        self.reason = reason
        self._find_holder = find_holder
        self._holder: str | None = None

    @property
    def holder(self) -> str:
        """Who has the port, for example ``node (pid 4242)``; '' where the system does not tell.

        Asking takes a moment, and a program on some systems, so nobody is asked before this is read.
        """
        if self._holder is None:
            find = self._find_holder if self.reason == "in_use" else None
            self._holder = find(self.port) if find else ""
        return self._holder

    def __str__(self) -> str:
        if self.reason == "in_use":
            holder = self.holder
            return f"port {self.port} is in use by {holder}" if holder else f"port {self.port} is in use"
        return {
            "reserved": f"port {self.port} is reserved by the system",
            "privileged": f"port {self.port} is only for administrators",
        }.get(self.reason, f"this machine has no loopback address for port {self.port}")


def bind_loopback(
    host: str,
    port: int,
    *,
    platform: str = sys.platform,
    new_socket: NewSocket = socket.socket,
) -> list[socket.socket]:
    """Return listening sockets for ``host`` on ``port``: all that the host stands for, or none.

    ``localhost`` is both 127.0.0.1 and ::1 on one port, or the one of them that this machine has; any
    other host is a loopback address, which on Linux may also be 127.0.0.2 and so on.
    Port 0 is any port that is free on both. A port counts as in use when anybody listens on either
    address, whichever is asked for: a browser that is sent to ``localhost`` chooses the family itself,
    and the code must not reach somebody else. The sockets are not blocking and not inherited.
    Raises `PortUnavailable`.
    """
    addresses = list(LOOPBACK) if host == "localhost" else [host]
    if port:
        return _bind_port(addresses, port, platform, new_socket)
    for _ in range(_FREE_PORT_TRIES):
        try:
            return _bind_port(addresses, _free_port(addresses, new_socket), platform, new_socket)
        except PortUnavailable as error:
            if error.reason not in {"in_use", "reserved"}:
                raise
    raise PortUnavailable(0, "in_use")


def _bind_port(addresses: list[str], port: int, platform: str, new_socket: NewSocket) -> list[socket.socket]:
    # Asked first: on some systems a bind to 127.0.0.1 succeeds beside a listener on 0.0.0.0, and the
    # port of ::1 alone belongs to somebody else on every system.
    if any(is_listening(address, port, platform=platform) for address in {*LOOPBACK, *addresses}):
        raise _unavailable(port, "in_use", platform)
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            bound = _bind(address, port, platform, new_socket)
            if bound is not None:
                sockets.append(bound)
        for bound in sockets:
            bound.listen(BACKLOG)
    except OSError as error:
        _close_all(sockets)
        raise _unavailable(port, _reason(error, platform), platform) from error
    except BaseException:
        _close_all(sockets)
        raise
    if not sockets:
        raise _unavailable(port, "no_such_address", platform)
    return sockets


def _bind(address: str, port: int, platform: str, new_socket: NewSocket) -> socket.socket | None:
    """Return a bound socket, None when this machine does not have the address (IPv6 switched off)."""
    family = _family(address)
    try:
        bound = new_socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno in _NO_ADDRESS:
            return None
        raise
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, *_sharing_option(platform))
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        if error.errno in _NO_ADDRESS:
            return None
        raise
    return bound


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _sharing_option(platform: str) -> tuple[int, int]:
    """Return the option that gives the port to us and only to us.

    On POSIX ``SO_REUSEADDR`` takes over what our last login left in TIME_WAIT, never a listener. On
    Windows it would take over a listener too, and let others do that to us: there it is the contrary,
    ``SO_EXCLUSIVEADDRUSE``, whose value Windows defines as ``~SO_REUSEADDR``.
    """
    if platform == "win32":
        return getattr(socket, "SO_EXCLUSIVEADDRUSE", ~4), 1
    return socket.SO_REUSEADDR, 1


def _reason(error: OSError, platform: str) -> str:
    if error.errno == errno.EACCES:
        # Windows answers WSAEACCES for the ranges that Hyper-V and WSL have excluded.
        return "reserved" if platform == "win32" else "privileged"
    if error.errno == errno.EPERM:
        return "privileged"
    return "in_use" if error.errno == errno.EADDRINUSE else "no_such_address"


def _unavailable(port: int, reason: str, platform: str) -> PortUnavailable:
    def find(port: int) -> str:
        from cells_loopback.loopback.port_holder import find_holder

        return find_holder(port, platform)

    return PortUnavailable(port, reason, find)


def _close_all(sockets: list[socket.socket]) -> None:
    for bound in sockets:
        bound.close()


def _free_port(addresses: list[str], new_socket: NewSocket) -> int:
    """Return a port that the system had free on the first address that exists."""
    for address in addresses:
        try:
            with new_socket(_family(address), socket.SOCK_STREAM) as chosen:
                chosen.bind((address, 0))
                return int(chosen.getsockname()[1])
        except OSError as error:
            if error.errno not in _NO_ADDRESS:
                raise
    raise PortUnavailable(0, "no_such_address")


def is_listening(address: str, port: int, *, platform: str = sys.platform) -> bool:
    """Whether anybody answers on a loopback address, by the address itself or by a wildcard."""
    try:
        with socket.socket(_family(address), socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_TIMEOUT)
            probe.connect((address, port))
            # A port among those for outgoing connections may be given to the probe itself, which is
            # then connected to itself (TCP simultaneous open, RFC 9293 §3.5).
            return bool(probe.getsockname() != probe.getpeername())
    except TimeoutError:
        # POSIX refuses at once, so silence is a listener whose backlog is full. Windows repeats the
        # connection for two seconds before it believes the refusal.
        return platform != "win32"
    except OSError:
        return False
