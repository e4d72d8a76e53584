"""Renew the sessions in the background, so that nobody has to log in again.

run         renew what is due, and go on until a signal ends it
run --once  renew what is due in the next hours, then end: for cron
install     let the system do that: a systemd user timer, a launchd agent,
            a task of the Windows Task Scheduler
uninstall   take that away again
status      the last run, the next one, and how each session fares

exit codes of status and of run --once: 0 all is well; 4 a session needs a
person; otherwise what a renewal ended with.

examples:
  cells-loopback keepalive install
  cells-loopback keepalive status
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cells_loopback.errors import LoginRequiredError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from cells_loopback.keepalive.schedulers import Schedule
    from cells_loopback.keepalive.state import State
    from cells_loopback.store.profiles import Profile


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.usage = "cells-loopback keepalive run | install | uninstall | status [options]"
    parser.add_argument("what", choices=("run", "install", "uninstall", "status"), help="what to do")
    parser.add_argument("--once", action="store_true", help="for run: do what is due and end")
    parser.add_argument("--json", action="store_true", help="for status: print a JSON object")


def run(args: argparse.Namespace) -> int:
    """Do what is asked for."""
    if args.once and args.what != "run":
        raise UsageError(f"--once is for run, not for {args.what}", hint="see keepalive --help")
    if args.json and args.what != "status":
        raise UsageError(f"--json is for status, not for {args.what}", hint="see keepalive --help")
    commands = {"run": _run, "install": _install, "uninstall": _uninstall, "status": _status}
    return commands[args.what](args)


def _run(args: argparse.Namespace) -> int:
    from cells_loopback.keepalive.keepalive import Keepalive
    from cells_loopback.keepalive.relogin import Relogin
    from cells_loopback.keepalive.state import StateFile
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.profiles import ProfileStore, no_such_profile

    store = ProfileStore(find_config_dir(args.config_dir))
    store.prepare()
    if args.profile is not None and not store.exists(args.profile):
        raise no_such_profile(args.profile)
    state = StateFile(store.config_dir)
    relogin = Relogin(store.config_dir, state)
    console = args.console
    keepalive = Keepalive(store, state, relogin, say=console.info, complain=console.error, only=args.profile)
    if args.once:
        return keepalive.run_once()
    from cells_loopback.keepalive.wakeup import make_sleeper

    sleeper = make_sleeper(store.directory)
    console.info("keeping the sessions alive (Ctrl-C ends it)")
    try:
        keepalive.run(sleeper)
    finally:
        sleeper.close()


def _install(args: argparse.Namespace) -> int:
    import random

    from cells_loopback.keepalive.schedulers import system_scheduler
    from cells_loopback.keepalive.services import build_job
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.private_file import make_private_directory

    config_dir = find_config_dir(args.config_dir)
    make_private_directory(config_dir)
    scheduler = system_scheduler()
    for path in scheduler.install(build_job(config_dir, minute=random.randrange(60))):
        args.console.result(path)
    args.console.info(f"{scheduler.name} keeps the sessions alive from now on; see keepalive status")
    return 0


def _uninstall(args: argparse.Namespace) -> int:
    from cells_loopback.keepalive.schedulers import system_scheduler

    scheduler = system_scheduler()
    removed = scheduler.uninstall()
    args.console.info(
        f"{scheduler.name} no longer keeps the sessions alive" if removed else "it was not installed"
    )
    return 0


def _status(args: argparse.Namespace) -> int:
    from cells_loopback.errors import CellsLoopbackError
    from cells_loopback.keepalive.schedulers import system_scheduler
    from cells_loopback.keepalive.state import StateFile
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.keyring_store import withhold_secrets
    from cells_loopback.store.profiles import ProfileStore

    store = ProfileStore(find_config_dir(args.config_dir), withhold_secrets)
    state = StateFile(store.config_dir).read()
    sessions: list[dict[str, Any]] = []
    failure: CellsLoopbackError | None = None
    for name in store.names() if args.profile is None else [args.profile]:
        try:
            sessions.append(describe_session(store.read(name), state))
        except CellsLoopbackError as error:
            args.console.error(error)
            failure = error
    report = {**describe_runs(system_scheduler().query(), state), "sessions": sessions}
    if args.json:
        args.console.result(json.dumps(report, indent=2))
    else:
        for line in render_report(report):
            args.console.result(line)
    if failure is not None:
        return failure.exit_code
    return LoginRequiredError.exit_code if any(one["needs_person"] for one in sessions) else 0


def describe_runs(schedule: Schedule, state: State) -> dict[str, Any]:
    """Return what is known of the runs: the scheduler's, and those that somebody started otherwise."""
    from cells_loopback.clock import wall
    from cells_loopback.events import format_optional_time
    from cells_loopback.keepalive.state import combine_runs

    runs = combine_runs(schedule, state, wall())
    return {
        "scheduler": schedule.scheduler,
        "installed": schedule.installed,
        "active": schedule.active,
        "last_run": format_optional_time(runs.last),
        "last_exit_code": schedule.last_exit_code,
        "next_run": format_optional_time(runs.next),
    }


def describe_session(profile: Profile, state: State) -> dict[str, Any]:
    """Return how one session fares: its last try, when it is due, and when it will need a person."""
    from cells_loopback.clock import uptime, wall
    from cells_loopback.events import format_optional_time
    from cells_loopback.keepalive.policy import next_try_at, watch
    from cells_loopback.session.forecast import forecast

    now = wall()
    record = state.record(profile.name).about(profile.renewals.refresh_token_at)
    outlook = forecast(profile, now)
    due = None if profile.needs_login else next_try_at(watch(profile), record, now, uptime())
    return {
        "profile": profile.name,
        "site": profile.site.url,
        "renewed_at": format_optional_time(profile.renewals.refresh_token_at),
        "due_at": format_optional_time(due),
        "last_try_at": format_optional_time(record.tried_at),
        "last_exit_code": None if record.tried_at is None else record.exit_code,
        "last_message": record.message,
        "relogin": profile.settings.relogin,
        "notified_at": format_optional_time(record.notified_at),
        "needs_person": outlook.needs_person,
        "needs_person_at": format_optional_time(outlook.needs_person_at),
    }


def render_report(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    from cells_loopback.process.terminal import safe

    yield from _labelled(
        ("keep-alive", _describe_installation(report)),
        ("last run", _with_exit_code(report["last_run"] or "never", report["last_exit_code"])),
        ("next run", report["next_run"] or "none is planned"),
    )
    for session in report["sessions"]:
        yield f"  {session['profile']}"
        for line in _labelled(*_session_lines(session)):
            yield f"    {safe(line)}"


def _describe_installation(report: dict[str, Any]) -> str:
    if not report["installed"]:
        return "not installed (cells-loopback keepalive install)"
    if not report["active"]:
        return f"installed ({report['scheduler']}), but not active: cells-loopback keepalive install"
    return f"installed ({report['scheduler']})"


def _session_lines(session: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "site", session["site"]
    if session["last_try_at"]:
        result = session["last_message"] or "well"
        yield "last result", f"{session['last_try_at']} {_with_exit_code(result, session['last_exit_code'])}"
    if session["due_at"]:
        yield "due", session["due_at"]
    if session["needs_person"]:
        yield "log in", f"cells-loopback login --profile {session['profile']}"
    elif session["needs_person_at"]:
        yield "log in by", f"{session['needs_person_at']} (unless it is renewed before)"


def _with_exit_code(text: str, exit_code: int | None) -> str:
    return f"{text} (exit code {exit_code})" if exit_code else text


def _labelled(*lines: tuple[str, str]) -> Iterator[str]:
    for label, text in lines:
        yield f"{label:<12} {text}"
