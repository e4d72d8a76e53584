"""What is looked at once, not timed in rounds: inside one process, its memory, its calls of the system."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .commands import Command
    from .desk import Desk

_IN_PROCESS = """
import json, sys, threading, time, timeit
from cells_loopback import Session
session = Session.load()
session.access_token()
def run(count):
    for _ in range(count):
        session.access_token()
def nanoseconds(threads, count):
    workers = [threading.Thread(target=run, args=(count,)) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    return (time.perf_counter() - began) / (threads * count) * 1e9
alone = min(timeit.repeat(session.access_token, number=20000, repeat=9)) / 20000 * 1e9
one, many = (min(nanoseconds(threads, 160000 // threads) for _ in range(5)) for threads in (1, 32))
print(json.dumps([alone, one, many]))
"""

_CONNECTION = """
import json, sys, time
began = time.perf_counter()
from cells_loopback.session.session import Session
from cells_loopback.http.endpoints import fetch_metadata
from cells_loopback.http.transport import SiteClient
from cells_loopback.http.trust import Trust
marks = [("imports", time.perf_counter() - began)]
session = Session.load()
times = {}
def note(name, info):
    stage, _, step = name.rpartition(".")
    if step == "started":
        times[stage] = -time.perf_counter()
    elif step == "complete" and stage in times:
        times[stage] += time.perf_counter()
began = time.perf_counter()
settings = session.stored.settings
with SiteClient(session.stored.site, Trust(settings.ca_bundle, settings.insecure), note) as client:
    marks.append(("client and trust", time.perf_counter() - began))
    fetch_metadata(client)
for stage, name in (("connection.connect_tcp", "connection"), ("connection.start_tls", "TLS handshake"),
                    ("http11.receive_response_headers", "waiting for the answer")):
    if stage in times:
        marks.append((name, times[stage]))
print(json.dumps(marks))
"""


# A small process in between: the system counts the memory of whoever starts a program to that program.
_LAUNCHER = """
import os, signal, sys, time
seconds, argv = float(sys.argv[1]), sys.argv[2:]
quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=quiet)
if seconds:
    time.sleep(seconds)
    os.kill(pid, signal.SIGTERM)
usage = os.wait4(pid, 0)[2]
print([usage.ru_maxrss, usage.ru_utime + usage.ru_stime, usage.ru_nvcsw])
"""


def call_in_process(desk: Desk, config: str) -> tuple[float, float, float]:
    """Return the nanoseconds of `Session.access_token`: alone, in a thread, among 32 threads."""
    alone, one, many = json.loads(_python(desk, config, _IN_PROCESS))
    return alone, one, many


def stages_of_a_request(desk: Desk, config: str) -> list[tuple[str, float]]:
    """Return what a first request of a process takes its time for, in seconds."""
    return [(name, seconds) for name, seconds in json.loads(_python(desk, config, _CONNECTION))]


def _python(desk: Desk, config: str, code: str) -> str:
    environment = {**os.environ, "CELLS_LOOPBACK_CONFIG_DIR": desk.config_dir(config)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def peak_memory(command: Command) -> float:
    """Return the most memory that a command holds at a time, in MiB."""
    return _usage(command, 0)[0]


def keep_alive(command: Command, seconds: float) -> tuple[float, float, int]:
    """Let the keep-alive run, and return its peak memory in MiB, its CPU seconds and its wake-ups."""
    return _usage(command, seconds)


def asleep(command: Command, settle: float, seconds: float) -> tuple[float, int] | None:
    """Let a command settle, then return its CPU seconds and wake-ups in a while; None but on Linux."""
    if sys.platform != "linux":
        return None
    environment = {**os.environ, **command.environment}
    with subprocess.Popen(command.argv, env=environment, stdout=subprocess.DEVNULL) as process:
        time.sleep(settle)
        before = _scheduled(process.pid)
        time.sleep(seconds)
        after = _scheduled(process.pid)
        process.terminate()
    return after[0] - before[0], after[1] - before[1]


def _scheduled(pid: int) -> tuple[float, int]:
    """Return for how many seconds a process has run so far, and how often it was given the CPU."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        running, _, times = file.read().split()
    return int(running) / 1e9, int(times)


def _usage(command: Command, seconds: float) -> tuple[float, float, int]:
    environment = {**os.environ, **command.environment}
    call = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(seconds), *command.argv]
    done = subprocess.run(call, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    memory, cpu, wakeups = json.loads(done.stdout)
    return memory / (1 << 20 if sys.platform == "darwin" else 1 << 10), cpu, wakeups


def count_system_calls(command: Command) -> dict[str, int] | None:
    """Return how often a command calls the system, in all and by the calls that look at files."""
    if shutil.which("strace") is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "calls")
        call = ["strace", "--follow-forks", "--summary-only", f"--output={path}", *command.argv]
        environment = {**os.environ, **command.environment}
        subprocess.run(call, env=environment, stdout=subprocess.DEVNULL, check=True)
        with open(path, encoding="utf-8") as file:
            table = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", file.read(), re.MULTILINE)
    return {name: int(count) for count, name in table if name != "total"}


def modules_of(command: Command) -> list[tuple[str, float]]:
    """Return what a command imports, with the milliseconds of each module alone."""
    environment = {**os.environ, **command.environment, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command.argv, env=environment, capture_output=True, text=True, check=True)
    return list(read_imports(done.stderr))


def read_imports(listing: str) -> Iterator[tuple[str, float]]:
    """Read the listing of ``-X importtime``."""
    for microseconds, name in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", listing, re.MULTILINE):
        yield name, int(microseconds) / 1000
