"""A network of the test's own, in which every port is free, port 3000 among them.

On Linux, as root, a network namespace (network_namespaces(7)): the thread that enters one takes along
whatever it starts from there, the embedded server's thread and child processes among it, and nobody
else of this machine is in it. Elsewhere the tests share the machine's network: then they run one after
another (``xdist_group``) and wait until the ports are free.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from requires import lacks, require_program

from cells_loopback.loopback.listener import LOOPBACK, is_listening

if TYPE_CHECKING:
    from collections.abc import Iterator

PORTS = (3000, *range(3636, 3667))
"""The registered ports of Cells' own clients."""

_CLONE_NEWNET = 0x40000000  # sched.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1  # netdevice(7)
_PATIENCE = 20.0


def _call(name: str, *arguments: int) -> None:
    # os.unshare and os.setns came with Python 3.12.
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


@contextmanager
def own_network() -> Iterator[None]:
    """Leave this thread's network for an empty one with a loopback interface, and come back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _call("unshare", _CLONE_NEWNET)
        try:
            _switch_loopback_on()
            yield
        finally:
            _call("setns", home, _CLONE_NEWNET)
    finally:
        os.close(home)


def _switch_loopback_on() -> None:
    import fcntl

    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def _may_have_one() -> bool:
    if sys.platform != "linux":
        return False
    try:
        with own_network():
            return True
    except OSError:  # not root, or root of a container without the right to it
        return False


HAS_OWN_NETWORK = _may_have_one()

OWN_NETWORK = [
    pytest.mark.usefixtures("network"),
    *([] if HAS_OWN_NETWORK else [pytest.mark.xdist_group("port 3000")]),
]
"""Marks the tests of a module that need the ports of Cells' own clients."""


@contextmanager
def network_with_free_ports() -> Iterator[None]:
    """Have the ports of Cells' own clients to oneself, or skip the test."""
    if HAS_OWN_NETWORK:
        with own_network():
            yield
        return
    deadline = time.monotonic() + _PATIENCE
    while busy := [port for port in PORTS if any(is_listening(address, port) for address in LOOPBACK)]:
        if time.monotonic() > deadline:
            lacks(f"port {busy[0]}: another program of this machine has it")
        time.sleep(0.1)
    yield


def require_own_network() -> None:
    """Skip a test that would disturb a network shared with others."""
    if not HAS_OWN_NETWORK:
        lacks("a network namespace needs Linux and root")


def add_address(address: str) -> None:
    """Give the machine another address, one that is not loopback's; only in a network of the test's own."""
    subprocess.run([require_program("ip"), "address", "add", f"{address}/32", "dev", "lo"], check=True)
