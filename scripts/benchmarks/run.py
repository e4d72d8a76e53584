"""The bench from its options to its tables."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import inside
from .commands import Command, time_commands, timer
from .desk import Desk
from .herd import SIZE, Herd
from .peers import base_python, prepare_peers
from .report import Row, describe_machine, print_ratios, print_table
from .resident_agent import resident_agent
from .samples import EMPTY, Samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUNDS, QUICK_ROUNDS = 25, 5
HERDS, QUICK_HERDS = 7, 2
PEERS = Path(__file__).resolve().parent.parent.parent / ".venv-bench-peers"
MANY = 1000
_QUICK_SECONDS = 75.0
"""Seconds after which a quick run begins nothing new that is repeated."""

_EVERY = 8
"""An empty process is timed after as many commands, so that each has one beside it."""

_CLIENT = ("--client-id", "cells-sync")
"""The client whose 31 ports are least likely to be taken."""

_PYTHON = sys.executable
_HTTPX = 'python -c "import httpx"'
_NOTHING = Command(EMPTY, (_PYTHON, "-c", "pass"))
_IMPORT_HTTPX = Command(_HTTPX, (_PYTHON, "-c", "import httpx"))
_WARM, _AT_EXPIRY = "herd, valid", "herd, at expiry"

ROWS = (
    Row("`token`", "token", "1.5 P"),
    Row("`token --format json`", "token, json", "1.5 P"),
    Row("`token`, one of 1,000 profiles", "token, many", "as with 1"),
    Row("`token`, secrets in the keyring", "token, keyring"),
    Row("`s3 credentials`", "s3"),
    Row('`python -c "import cells_loopback"`', "import"),
    Row(f"`{_HTTPX}`", _HTTPX),
    Row("first login, start to browser", "first, to browser"),
    Row("the same beside `import httpx`", "first, to browser", "1 time", _HTTPX),
    Row("login again, start to browser", "again, to browser", "3 P"),
    Row("first login, callback to end", "first, to end", "2.5 P"),
    Row("login again, callback to end", "again, to end", "2.5 P"),
    Row(f"{SIZE} processes at expiry beside {SIZE} with a valid token", _AT_EXPIRY, "2 times", _WARM),
    Row("`exec -- true`", "exec"),
    Row("`status`, 1,000 profiles", "status, many", "500 ms"),
    Row("`token --refresh`, without the server's time", "refresh, http"),
    Row("the same over TLS", "refresh, https"),
)


def main(arguments: Sequence[str], description: str) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=description.partition("\n\n")[2])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, for CI")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--no-peers", action="store_true", help="leave out what others have written")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cells-bench-") as directory:
        places = [os.path.join(directory, name) for name in ("http", "https")]
        for place in places:
            os.mkdir(place)
        with Desk(places[0]) as plain, Desk(places[1], tls=True) as tls, resident_agent(tls) as agent:
            _Bench(plain, tls, agent, options).run()
    return 0


class _Bench:
    def __init__(self, plain: Desk, tls: Desk, agent: Command | str, options: argparse.Namespace) -> None:
        self._desk = plain
        self._tls = tls
        self._agent = agent
        self._quick = options.quick
        self._rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        self._samples = Samples()
        self._left_out: list[str] = []
        self._peers: list[Command] = []
        self._with_peers = not options.no_peers
        self._logins = 0
        self._deadline = time.monotonic() + _QUICK_SECONDS

    def run(self) -> None:
        """Prepare, measure, print."""
        timing = timer()
        _tell("preparing")
        self._prepare()
        print(f"\n{describe_machine(timing)}; P is `{EMPTY}`, {self._rounds} rounds")
        commands = list(_with_empty(self._commands()))
        for number in range(self._rounds):
            if self._is_late():
                break
            _tell(f"round {number + 1} of {self._rounds}")
            for probe in (lambda: time_commands(commands), self._log_in, self._refresh):
                self._samples.run_round(probe)
        herd = Herd(self._desk, "herd", self._desk.command("token", "herd", "token"))
        for number in range(QUICK_HERDS if self._quick else HERDS):
            if number and self._is_late():
                break
            _tell(f"herd {number + 1}")
            self._samples.run_round(herd)
        print_ratios(self._samples, ROWS)
        print(f"\nrefreshes for {SIZE} processes at expiry: {', '.join(map(str, herd.refreshes))}")
        if self._peers:
            print_ratios(self._samples, [Row(peer.name, peer.name) for peer in self._peers])
        self._look_inside()
        for reason in self._left_out:
            print(f"\nleft out: {reason}")
        print(f"\nload at the end: {os.getloadavg()[0]:.1f}")

    def _is_late(self) -> bool:
        return self._quick and time.monotonic() > self._deadline and self._samples.has_rounds

    def _prepare(self) -> None:
        # Each has a session of its own: a login again ends the one before it, a refresh token works once.
        for config in ("one", "herd", "again", "refreshed"):
            self._desk.log_in(config, *_CLIENT)
        for config in ("one", "refreshed"):
            self._tls.log_in(config, *_CLIENT)
        self._desk.copy_profiles("one", "many", MANY)
        if os.environ.get("CELLS_BENCH_KEYRING"):
            self._desk.log_in("keyring", *_CLIENT, "--store", "keyring")
        else:
            self._left_out.append("keyring: dbus-run-session or gnome-keyring-daemon is not installed")
        if self._with_peers:
            place = os.path.join(self._desk.directory, "peers")
            os.mkdir(place)
            self._peers, missing = prepare_peers(place, str(PEERS), self._agent)
            self._left_out += missing

    def _commands(self) -> Iterator[Command]:
        command = self._desk.command
        yield command("token", "one", "token")
        yield command("token, json", "one", "token", "--format", "json")
        yield command("token, many", "many", "token")
        yield command("s3", "one", "s3", "credentials")
        yield Command("import", (_PYTHON, "-c", "import cells_loopback"))
        yield _IMPORT_HTTPX
        yield command("exec", "one", "exec", "--", "true")
        yield command("status, many", "many", "status")
        if os.environ.get("CELLS_BENCH_KEYRING"):
            yield command("token, keyring", "keyring", "token")
        if self._peers:
            yield base_python(str(PEERS))
        yield from self._peers

    def _log_in(self) -> Iterator[tuple[str, float]]:
        self._logins += 1
        for name, config, options in (
            ("first", f"first-{self._logins}", _CLIENT),
            ("again", "again", ("--force",)),
        ):
            yield from time_commands([_NOTHING, _IMPORT_HTTPX, _NOTHING])
            login = self._desk.log_in(config, *options)
            yield f"{name}, to browser", login.to_browser
            yield f"{name}, to end", login.to_end
            yield from time_commands([_NOTHING])

    def _refresh(self) -> Iterator[tuple[str, float]]:
        for name, desk in (("http", self._desk), ("https", self._tls)):
            yield from time_commands([_NOTHING])
            before = len(desk.server.requests)
            ((_, seconds),) = time_commands([desk.command("refresh", "refreshed", "token", "--refresh")])
            by_server = sum(one.seconds or 0.0 for one in desk.server.requests[before:])
            yield f"refresh, {name}", seconds - by_server

    def _look_inside(self) -> None:
        alone, one, many = inside.call_in_process(self._desk, "one")
        print(
            f"\n`session.access_token()`: {alone:.0f} ns (promised: 2000);"
            f" in a thread {one:.0f} ns, among 32 threads {many:.0f} ns a call"
        )
        self._print_commands()
        print_table(
            ("a first request of a process, ms", "http", "https"),
            _stages(
                dict(inside.stages_of_a_request(self._desk, "one")),
                dict(inside.stages_of_a_request(self._tls, "one")),
            ),
        )
        self._print_imports()
        self._look_at_keep_alive(self._desk.command("keepalive", "many", "keepalive", "run"))

    def _look_at_keep_alive(self, command: Command) -> None:
        settle, seconds = (4.0, 8.0) if self._quick else (8.0, 60.0)
        memory, cpu, _ = inside.keep_alive(command, settle)
        print(
            f"\n`keepalive run`, {MANY:,} profiles: {memory:.0f} MiB at most (promised: 60),"
            f" {cpu:.2f} s of CPU until it sleeps"
        )
        rest = inside.asleep(command, settle, seconds)
        if rest is not None:
            a_day = 86400 / seconds
            print(
                f"asleep it was woken {rest[1]} times in {seconds:.0f} s; at that rate {rest[1] * a_day:.0f}"
                f" wake-ups and {rest[0] * a_day:.2f} s of CPU a day, beside the renewals"
            )

    def _print_commands(self) -> None:
        looked_at = [_NOTHING, *self._commands()]
        if inside.count_system_calls(_NOTHING) is None:
            self._left_out.append("system calls: strace is not installed")
        rows = []
        for command in looked_at:
            counts = inside.count_system_calls(command) or {}
            in_all, opened = (str(count or "") for count in (sum(counts.values()), counts.get("openat")))
            modules = str(len(inside.modules_of(command)) or "")
            rows.append((command.name, f"{inside.peak_memory(command):.0f}", in_all, opened, modules))
        print_table(("", "peak MiB", "system calls", "files opened", "modules"), rows)

    def _print_imports(self) -> None:
        listing = self._desk.log_in("listed", *_CLIENT, PYTHONPROFILEIMPORTTIME="1").imports
        sums: dict[str, float] = {}
        for module, milliseconds in inside.read_imports(listing):
            package = module.partition(".")[0]
            sums[package] = sums.get(package, 0.0) + milliseconds
        largest = sorted(sums.items(), key=lambda item: -item[1])[:12]
        print_table(
            ("imported before the browser of a first login", "ms by `-X importtime`"),
            [(f"`{package}`", f"{milliseconds:.1f}") for package, milliseconds in largest],
        )


def _with_empty(commands: Iterator[Command]) -> Iterator[Command]:
    yield _NOTHING
    for number, command in enumerate(commands, 1):
        yield command
        if number % _EVERY == 0:
            yield _NOTHING
    yield _NOTHING


def _stages(http: dict[str, float], https: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    for name, seconds in https.items():
        yield name, f"{http[name] * 1000:.1f}" if name in http else "", f"{seconds * 1000:.1f}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
