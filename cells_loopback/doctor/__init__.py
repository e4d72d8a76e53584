"""What would stop a login, and the mend: the login's own steps, up to where it would open a browser.

Nothing is changed, created or asked of a person. Each kind of check has a module of its own; together
they return `Finding` records in the order in which a login would meet them, so that the first problem
is the one it would end with.
"""

from __future__ import annotations

import os
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cells_loopback.doctor.background import check_keepalive, check_keyring
from cells_loopback.doctor.desktop import check_desktop
from cells_loopback.doctor.finding import Check, Finding, problem, run_checks, start, warning
from cells_loopback.doctor.site import check_site
from cells_loopback.doctor.store import check_directory, check_preferences, check_profile
from cells_loopback.errors import (
    CellsLoopbackError,
    LoginFailedError,
    NotLoggedInError,
    ServerUnavailableError,
    StoreError,
    UsageError,
)
from cells_loopback.loopback_login.options import plan_login
from cells_loopback.session.session import TOKEN_VARIABLE
from cells_loopback.store.keyring_store import withhold_secrets
from cells_loopback.store.profiles import ProfileStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cells_loopback.loopback_login.options import LoginOptions, LoginPlan

__all__ = ["Finding", "examine", "exit_code"]

TIMEOUT = 30.0
"""Seconds for everything that other machines and programs have to answer."""

DISK_TIMEOUT = 15.0
"""Seconds for what lies on the disk, which may be a network's."""


def exit_code(findings: list[Finding]) -> int:
    """Return what a login would end with: 0, or the code of the first problem."""
    return next((finding.exit_code for finding in findings if finding.level == "problem"), 0)


def examine(
    choose: Callable[[], LoginOptions], config_dir: str, environ: Mapping[str, str] = os.environ
) -> list[Finding]:
    """Find what would stop the login whose options ``choose`` returns; it may read the disk for them.

    Without a site and a profile the default one is meant, and all profiles are looked at. Raises
    `UsageError` for a site or a name that cannot be meant.
    """
    store = ProfileStore(config_dir, withhold_secrets)
    try:
        disk = start(lambda: _look_at_disk(choose(), store)).result(DISK_TIMEOUT)
    except NotInTime:
        disk = _Disk((problem("directory", _late(config_dir, DISK_TIMEOUT, StoreError)),))
    findings = [*_check_environment(environ), *disk.findings]
    return findings + run_checks(list(_remaining_checks(disk, store, environ)), TIMEOUT)


def _check_environment(environ: Mapping[str, str]) -> Iterator[Finding]:
    if environ.get(TOKEN_VARIABLE):
        yield warning(
            "environment",
            f"{TOKEN_VARIABLE} is set: commands use that token and no stored session",
            f"unset {TOKEN_VARIABLE} to use the sessions",
        )


@dataclass(frozen=True)
class _Disk:
    """What the disk told: findings, the login that is meant (None if none is), who uses the keyring."""

    findings: tuple[Finding, ...]
    plan: LoginPlan | None = None
    keyring_users: tuple[str, ...] = ()


def _look_at_disk(options: LoginOptions, store: ProfileStore) -> _Disk:
    findings = [*check_directory(store.config_dir, store.directory), *check_preferences(store)]
    plan, why_none = _plan(options, store)
    keyring_users = []
    for name in _profiles_meant(options, plan, store):
        found, store_kind = check_profile(store, name)
        findings += found
        if store_kind == "keyring":
            keyring_users.append(name)
    # A damaged profile or directory has been told of by its own check.
    if why_none is not None and all(why_none.message != finding.message for finding in findings):
        findings.append(why_none)
    return _Disk(tuple(findings), plan or _plan_afresh(options), tuple(keyring_users))


def _plan(options: LoginOptions, store: ProfileStore) -> tuple[LoginPlan | None, Finding | None]:
    """Decide on a login as `login` does, or say why that is not to be decided."""
    try:
        return plan_login(options, store), None
    except UsageError as error:
        if not isinstance(error.__cause__, NotLoggedInError):
            raise
        message = f"no server was looked at: {error.__cause__.message}"
        return None, warning("site", message, "name one: cells-loopback doctor SITE")
    except CellsLoopbackError as error:
        return None, problem("profile", error)


class _NoProfiles(ProfileStore):
    def exists(self, name: str) -> bool:
        del name
        return False


def _plan_afresh(options: LoginOptions) -> LoginPlan | None:
    """Decide as if nothing was stored, to look at the network although the stored profile is in the way."""
    return None if options.site is None else plan_login(options, _NoProfiles(""))


def _profiles_meant(options: LoginOptions, plan: LoginPlan | None, store: ProfileStore) -> list[str]:
    if options.site is None and options.profile is None:
        try:
            return store.names()
        except StoreError:  # told of by the directory's own check
            return []
    return [plan.name] if plan is not None and plan.known is not None else []


def _remaining_checks(disk: _Disk, store: ProfileStore, environ: Mapping[str, str]) -> Iterator[Check]:
    plan, users = disk.plan, disk.keyring_users
    if users or (plan is not None and plan.settings.store == "keyring"):
        yield Check(
            lambda: check_keyring(store.config_dir, users),
            problem("keyring", _late("the keyring", TIMEOUT, StoreError)),
        )
    yield Check(
        lambda: check_desktop(plan, environ),
        problem("port", _late("this machine's network", TIMEOUT, LoginFailedError)),
    )
    if plan is not None:
        yield Check(
            lambda: check_site(plan),
            problem("connection", _late(plan.site.url, TIMEOUT, ServerUnavailableError)),
        )
    late = _late("the scheduler", TIMEOUT, CellsLoopbackError)
    yield Check(lambda: check_keepalive(store), warning("keepalive", late.message, late.hint))


def _late(what: str, seconds: float, kind: type[CellsLoopbackError]) -> CellsLoopbackError:
    return kind(f"{what} has not answered for {seconds:.0f} s", hint="try again, and see what it waits for")
