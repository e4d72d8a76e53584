"""Which program listens on a port of this machine, as far as the system tells us.

Loaded only when a port is busy. Everything here is a courtesy to the person who has to free the port:
it is bounded in time, and whatever goes wrong makes the answer '' and nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from ipaddress import IPv6Address, ip_address

from cells_loopback.process.windows import system_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TIME_LIMIT = 1.0
"""Seconds that finding the holder may take."""

_LISTEN = "0A"  # TCP_LISTEN in the Linux kernel's include/net/tcp_states.h


def find_holder(port: int, platform: str = sys.platform) -> str:
    """Return one line that names the listener, such as ``node (pid 4242)``; '' when nobody can tell."""
    try:
        if platform == "win32":
            return _ask_netstat(port)
        if platform == "linux":
            return _ask_proc(port)
        return read_lsof(_output_of("lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def _named(name: str, pid: int) -> str:
    printable = "".join(char if char.isprintable() else "?" for char in name.strip()[:80])
    return f"{printable or 'a process'} (pid {pid})"


def _ask_proc(port: int) -> str:
    listeners: dict[str, int] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                listeners.update(read_proc_net_tcp(file.read(), port))
        except FileNotFoundError:  # IPv6 switched off
            continue
    pid = _process_with_socket({f"socket:[{inode}]" for inode in listeners})
    if pid:
        return _named(_name_of(pid), pid)
    # The kernel tells whose socket it is, and shows the descriptors of our own processes only.
    return next((_of_user(uid) for uid in listeners.values() if uid != os.getuid()), "")


def _name_of(pid: int) -> str:
    """Return the kernel's name for a process, or its file's where the program has put another name there.

    Newer releases of Node.js name their main thread, and a process is called like that: ``MainThread``.
    """
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        name = file.read().strip()
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return name if name in file.read() else os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return name


def read_proc_net_tcp(table: str, port: int) -> dict[str, int]:
    """Return inode and user id of each socket that listens on ``port`` of a loopback or wildcard address.

    The format is that of proc_pid_net(5): address in host byte order, state, ..., uid, timeout, inode.
    """
    found = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        address, _, hex_port = fields[1].partition(":")
        if int(hex_port, 16) == port and _is_reached_by_loopback(address):
            found[fields[9]] = int(fields[7])
    return found


def _is_reached_by_loopback(hex_address: str) -> bool:
    words = [hex_address[start : start + 8] for start in range(0, len(hex_address), 8)]
    address = ip_address(b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words))
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _process_with_socket(links: set[str]) -> int:
    deadline = time.monotonic() + TIME_LIMIT
    for pid in filter(str.isdigit, os.listdir("/proc") if links else ()):
        if time.monotonic() > deadline:
            break
        if any(link in links for link in _open_files(pid)):
            return int(pid)
    return 0


def _open_files(pid: str) -> Iterator[str]:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # another user's process, or one that has just ended
        return
    for descriptor in descriptors:
        try:
            yield os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:  # closed meanwhile
            continue


def _of_user(uid: int) -> str:
    import pwd

    try:
        return f"a process of user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"a process of user id {uid}"


def read_lsof(output: str) -> str:
    """Read the first process of ``lsof -F pc``: a line ``p`` with its id, then a line ``c`` with its name."""
    found = re.search(r"^p(\d+)\nc(.*)$", output, re.MULTILINE)
    return _named(found[2], int(found[1])) if found else ""


def _ask_netstat(port: int) -> str:
    pid = read_netstat(_output_of(system_program("netstat"), "-ano"), port)
    if not pid:
        return ""
    ask = (system_program("tasklist"), "/FI", f"PID eq {pid}", "/FO", "CSV", "/NH")
    return read_tasklist(_output_of(*ask), pid)


def read_netstat(output: str, port: int) -> int:
    """Return the process id of the listener in what Windows' ``netstat -ano`` prints, 0 without one.

    A listener is told by its remote port 0: the word for its state is translated.
    """
    local = re.escape(str(port))
    found = re.search(rf"^\s*TCP\s+\S+:{local}\s+\S+:0\s+\S+\s+(\d+)\s*$", output, re.MULTILINE)
    return int(found[1]) if found else 0


def read_tasklist(output: str, pid: int) -> str:
    """Read the image name from a line of ``tasklist /FO CSV /NH``: ``"node.exe","4242",...``."""
    found = re.search(rf'^"([^"]+)","{pid}"', output, re.MULTILINE)
    return _named(found[1] if found else "", pid)


def _output_of(*command: str) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=TIME_LIMIT,
        text=True,
        errors="replace",
    )
    return done.stdout
