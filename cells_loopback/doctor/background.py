"""What works out of sight: the system keyring, and the scheduler of the keep-alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cells_loopback.clock import format_time, wall
from cells_loopback.doctor.finding import ok, problem, warning
from cells_loopback.errors import CellsLoopbackError
from cells_loopback.keepalive.schedulers import system_scheduler
from cells_loopback.keepalive.state import State, StateFile, combine_runs
from cells_loopback.store.keyring_store import GONE, is_open, keyring_name, read_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cells_loopback.doctor.finding import Finding
    from cells_loopback.keepalive.schedulers import Schedule
    from cells_loopback.store.profiles import ProfileStore


def check_keyring(config_dir: str, profile_names: Sequence[str]) -> Iterator[Finding]:
    """Ask the keyring for the secrets of these profiles, if it can be asked without a person being asked."""
    try:
        name, opened = keyring_name(), is_open()
        lost = [*_lost_secrets(config_dir, profile_names)] if opened else []
    except CellsLoopbackError as error:
        yield problem("keyring", error)
        return
    for loss in lost:
        yield warning("keyring", loss.message, loss.hint)
    if opened is False:
        yield warning("keyring", f"{name} is locked", "it asks for its password when a session is used")
    elif opened is None:
        yield ok("keyring", f"{name} was not asked: it might want a password")
    else:
        yield ok("keyring", f"{name} is open")


def _lost_secrets(config_dir: str, profile_names: Sequence[str]) -> Iterator[CellsLoopbackError]:
    for name in profile_names:
        try:
            read_secrets(config_dir, name)
        except CellsLoopbackError as error:
            if error.code != GONE:
                raise
            yield error


def check_keepalive(store: ProfileStore) -> Iterator[Finding]:
    """Ask the system's scheduler and the keep-alive's own records; they have no part in a login."""
    schedule = system_scheduler().query()
    try:
        state, names = StateFile(store.config_dir).read(), store.names()
    except CellsLoopbackError as error:
        yield warning("keepalive", error.message, error.hint)
        state, names = State(), []
    yield judge_schedule(schedule, state, wall())
    for name in names:
        try:
            profile = store.read(name)
        except CellsLoopbackError:  # told of by the profile's own check
            continue
        record = state.record(name).about(profile.renewals.refresh_token_at)
        if record.failures and not profile.needs_login:
            times = "once" if record.failures == 1 else f"{record.failures} times in a row"
            message = f"{name}: renewing it failed {times}: {record.message}"
            yield warning("keepalive", message, "see when it is tried again: cells-loopback keepalive status")


def judge_schedule(schedule: Schedule, state: State, now: float) -> Finding:
    """Say how the keep-alive's job stands, or the run that somebody started without the scheduler."""
    runs = combine_runs(schedule, state, now)
    times = [("last run", runs.last), ("next run", runs.next)]
    told = "".join(f", {label} {format_time(at)}" for label, at in times if at is not None)
    if not schedule.installed:
        if runs.is_resident:
            return ok("keepalive", f"run without a scheduler{told}")
        return ok("keepalive", "not installed: a session that nobody uses for weeks will need a person")
    message = f"installed ({schedule.scheduler}){told}"
    if not schedule.active:
        return warning(
            "keepalive",
            f"{message}, but it is not active",
            "put it in place again: cells-loopback keepalive install",
        )
    if schedule.last_exit_code:
        return warning(
            "keepalive",
            f"{message}, which ended with {schedule.last_exit_code}",
            "see why: cells-loopback keepalive run --once",
        )
    return ok("keepalive", message)
