"""The person is told who has the port, on each system in its own way, or nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest
from requires import require_program

from cells_loopback.loopback import port_holder
from cells_loopback.loopback.port_holder import (
    find_holder,
    read_lsof,
    read_netstat,
    read_proc_net_tcp,
    read_tasklist,
)

PROC_HEADER = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
)
LITTLE_ENDIAN = sys.byteorder == "little"


def proc_line(address: str, state: str = "0A", uid: int = 1000, inode: int = 77) -> str:
    peer = "0" * (len(address) - 5) + ":0000"
    return (
        f"   0: {address} {peer} {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1 0"
    )


@pytest.mark.skipif(not LITTLE_ENDIAN, reason="the tables below are those of a little-endian machine")
@pytest.mark.parametrize(
    ("address", "reached"),
    [
        pytest.param("0100007F:0BB8", True, id="127.0.0.1"),
        pytest.param("00000000:0BB8", True, id="0.0.0.0"),
        pytest.param("00000000000000000000000000000000:0BB8", True, id="::"),
        pytest.param("00000000000000000000000001000000:0BB8", True, id="::1"),
        pytest.param("0000000000000000FFFF00000100007F:0BB8", True, id="::ffff:127.0.0.1"),
        pytest.param("0501A8C0:0BB8", False, id="192.168.1.5"),
        pytest.param("0100007F:0BB9", False, id="another port"),
    ],
)
def test_only_listeners_that_loopback_reaches_count(address: str, reached: bool) -> None:
    table = f"{PROC_HEADER}\n{proc_line(address)}\n"
    assert read_proc_net_tcp(table, 3000) == ({"77": 1000} if reached else {})


@pytest.mark.parametrize("state", ["01", "06"], ids=["established", "time wait"])
def test_connections_are_no_listeners(state: str) -> None:
    assert read_proc_net_tcp(f"{PROC_HEADER}\n{proc_line('0100007F:0BB8', state)}\n", 3000) == {}


LSOF = "p4242\ncnode\nf21\np99\ncother\nf3\n"
NETSTAT = """
Active Connections

  Proto  Local Address          Foreign Address        State           PID
  TCP    127.0.0.1:30001        0.0.0.0:0              LISTENING       7
  TCP    127.0.0.1:3000         127.0.0.1:51234        ESTABLISHED     8
  TCP    [::]:3000              [::]:0                 ABHÖREN         4242
"""
TASKLIST = '"node.exe","4242","Console","1","48,212 K"\n'


def test_macos_names_the_listener_with_lsof() -> None:
    assert read_lsof(LSOF) == "node (pid 4242)"
    assert read_lsof("") == ""


def test_windows_names_the_listener_with_netstat_and_tasklist_in_any_language() -> None:
    assert read_netstat(NETSTAT, 3000) == 4242
    assert read_netstat(NETSTAT, 3001) == 0
    assert read_tasklist(TASKLIST, 4242) == "node.exe (pid 4242)"
    assert read_tasklist("INFO: No tasks are running.\n", 4242) == "a process (pid 4242)"


def test_a_program_cannot_write_to_the_terminal_by_its_name() -> None:
    assert read_lsof("p1\nc\x1b]0;owned\x07\n") == "?]0;owned? (pid 1)"


def test_lsof_really_answers_so() -> None:
    require_program("lsof")
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = find_holder(server.getsockname()[1], "darwin")
    assert holder.endswith(f" (pid {os.getpid()})")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_without_the_systems_tool_nobody_is_named(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert shutil.which("lsof") is None
    assert find_holder(3000, platform) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_listener_of_another_user_is_named_by_its_user() -> None:
    assert port_holder._of_user(0) == "a process of user root"
    assert port_holder._of_user(4_000_000_000) == "a process of user id 4000000000"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_free_port_has_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert find_holder(free) == ""


LISTENER = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    with open("/proc/self/comm", "w") as name:
        name.write("Main" + "Thread")
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_program_that_has_named_its_main_thread_is_named_by_its_file() -> None:
    """As Node.js does: https://github.com/nodejs/node/pull/61307."""
    command = [sys.executable, "-c", LISTENER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        holder = find_holder(int(child.stdout.readline()))
        child.communicate()
    assert holder == f"{os.path.basename(os.path.realpath(sys.executable))} (pid {child.pid})"
