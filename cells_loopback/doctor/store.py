"""The disk: may sessions be written where they belong, and does each of them still serve."""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import stat
import sys
import time
from typing import TYPE_CHECKING

from cells_loopback.clock import format_time, uptime, wall
from cells_loopback.doctor.finding import ok, problem, warning
from cells_loopback.errors import CellsLoopbackError, LoginRequiredError, NotLoggedInError, StoreError
from cells_loopback.session.forecast import forecast
from cells_loopback.session.renewal import check_renewable
from cells_loopback.session.renewal_note import read_note
from cells_loopback.store.lock import STALE_AFTER, STAND_IN, has_kernel_locks
from cells_loopback.store.preferences import read_default_profile, read_login_options
from cells_loopback.store.private_file import check_private_directory, temporary_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells_loopback.doctor.finding import Finding
    from cells_loopback.store.profiles import Profile, ProfileStore, StoreKind

NEEDED_SPACE = 64 * 1024
"""Bytes that a login may need: the session, and as much again while it takes the old one's place."""

SCARCE_SPACE = 16 * 1024 * 1024
"""Bytes below which a disk will soon be full."""


def check_directory(config_dir: str, profiles_dir: str) -> Iterator[Finding]:
    """Look at the config directory: owner, modes, links, free space, locks, what a crash left behind."""
    # The config directory may be a link to where a person keeps their configuration, profiles may not.
    there = [path for path in (os.path.realpath(config_dir), profiles_dir) if os.path.lexists(path)]
    try:
        for path in there:
            check_private_directory(path)
        place = there[-1] if there else _nearest(config_dir)
        _check_writable(place)
    except FileNotFoundError:  # removed this very moment
        return
    except StoreError as error:
        yield problem("directory", error)
        return
    if not there:
        yield ok("directory", f"{config_dir} is not there yet; the first login makes it")
    for path in there:
        yield from _judge_mode(path)
    yield judge_space(place, *_free(place))
    yield from _check_locks(config_dir, profiles_dir)
    yield from _find_leftovers(config_dir, profiles_dir)


def _nearest(path: str) -> str:
    """Return the nearest directory above ``path`` that is there. Raises `StoreError` for anything else."""
    parent = os.path.dirname(path)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent):
        raise StoreError(
            f"{path} cannot be made: {parent} is not a directory", hint="use another place: --config-dir DIR"
        )
    return parent


def _check_writable(path: str) -> None:
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StoreError(
            f"{path} cannot be written by this user",
            hint=f"check its owner, its mode and its file system: ls -ld {shlex.quote(path)}",
        )


def _judge_mode(path: str) -> Iterator[Finding]:
    if sys.platform == "win32":  # the ACL, which this user's own profile directory has too
        yield ok("directory", f"{path} is there")
        return
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(
            "directory",
            f"{path} can be listed by others (mode {mode:04o})",
            f"close it: chmod 700 {shlex.quote(path)}",
        )
    else:
        yield ok("directory", f"{path} is yours alone (mode {mode:04o})")


def _free(path: str) -> tuple[int, int]:
    """Return the free bytes for this user and the free files, -1 where the file system counts none."""
    if sys.platform == "win32":
        return shutil.disk_usage(path).free, -1
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else -1


def judge_space(path: str, free_bytes: int, free_files: int) -> Finding:
    """Say whether there is room for a session in ``path``; -1 free files stand for no limit."""
    if free_bytes < NEEDED_SPACE or free_files == 0:
        what = "no file more" if free_bytes >= NEEDED_SPACE else f"only {free_bytes // 1024} KiB free"
        hint = "free some space on that disk, or use another place: --config-dir DIR"
        return problem("space", StoreError(f"{path} has room for {what}", hint=hint))
    if free_bytes < SCARCE_SPACE:
        return warning(
            "space",
            f"{free_bytes / 2**20:.1f} MiB free in {path}",
            "free some space: a session that cannot be stored cannot be renewed",
        )
    return ok("space", f"{free_bytes / 2**30:.1f} GiB free")


def _check_locks(config_dir: str, profiles_dir: str) -> Iterator[Finding]:
    """Try the kernel's locks on a file that nobody locks; without any file yet, nothing can be told."""
    files = [os.path.join(config_dir, "config.toml"), *sorted(glob.glob(_inside(profiles_dir, "*.json")))]
    for path in files:
        try:
            works = has_kernel_locks(path)
        except OSError:
            continue
        if works:
            yield ok("locks", "the file system has locks")
        else:
            yield warning(
                "locks",
                "the file system has no locks: lock files stand in, and a crash blocks renewals for"
                f" up to {STALE_AFTER:.0f} s",
                "use a directory on a local disk: --config-dir DIR",
            )
        return


def _find_leftovers(config_dir: str, profiles_dir: str) -> Iterator[Finding]:
    patterns = [_inside(place, "*") for place in (config_dir, profiles_dir)]
    files = [path for pattern in patterns for path in glob.glob(pattern)]
    # The next writer of a file clears up, and a session that was written but not put in place is not lost.
    cleared_up = {temporary_path(path) for path in files} | {path + STAND_IN for path in files}
    leftovers = [path for pattern in patterns for path in glob.glob(temporary_path(pattern))]
    leftovers += [path for pattern in patterns for path in glob.glob(pattern + STAND_IN)]
    for path in sorted(filter(_is_stale, leftovers)):
        yield warning(
            "leftovers",
            f"{path} was left by a process that did not end well",
            "none is needed: whoever writes there next clears it up"
            if path in cleared_up
            else f"nothing uses it: rm {shlex.quote(path)}",
        )


def _inside(directory: str, pattern: str) -> str:
    return os.path.join(glob.escape(directory), pattern)


def _is_stale(path: str) -> bool:
    """Whether a file is older than any renewal takes."""
    try:
        return time.time() - os.lstat(path).st_mtime > STALE_AFTER
    except OSError:
        return False


def check_preferences(store: ProfileStore) -> Iterator[Finding]:
    """Look at config.toml: can it be read, and is the default profile it names there."""
    try:
        read_login_options(store.config_dir)
        default = read_default_profile(store.config_dir)
        missing = default is not None and not store.exists(default)
    except CellsLoopbackError as error:
        yield problem("config", error)
        return
    if default is not None and missing:
        yield warning(
            "config",
            f"config.toml names {default} as the default profile, and there is no such profile",
            "choose another: cells-loopback use NAME; or log in: cells-loopback login SITE",
        )


def check_profile(store: ProfileStore, name: str) -> tuple[list[Finding], StoreKind | None]:
    """Look at one profile: can it be read and renewed, when will it need a person, where are its secrets."""
    try:
        profile = store.read(name)
    except NotLoggedInError:  # removed this very moment
        return [], None
    except CellsLoopbackError as error:
        return [problem("profile", error)], None
    return [judge_session(profile, wall()), *_check_cut_off(store, name)], profile.settings.store


def judge_session(profile: Profile, now: float) -> Finding:
    """Say whether a session still serves, and until when: it never stops a login, which replaces it."""
    name, tokens = profile.name, profile.tokens
    if not tokens.renewable and tokens.seconds_left(now, uptime()) > 0:
        end = "its end is known to the server only" if tokens.expires_at is None else "it ends at "
        until = "" if tokens.expires_at is None else format_time(tokens.expires_at)
        return ok("profile", f"{_describe(profile)}; it cannot be renewed, and {end}{until}")
    try:
        check_renewable(profile)
    except LoginRequiredError as error:
        return warning("profile", error.message, error.hint)
    outlook = forecast(profile, now)
    unused = f"unused, it ends about {format_time(outlook.needs_person_at or now)}"
    if outlook.needs_person:
        mend = f"renew it: cells-loopback token --refresh --profile {name}; and see keepalive install"
        return warning("profile", f"{_describe(profile)}; {unused}", mend)
    return ok("profile", f"{_describe(profile)}; {unused}")


def _describe(profile: Profile) -> str:
    renewals = profile.renewals
    done = "renewed" if renewals.refresh_token_at > renewals.logged_in_at else "logged in"
    who = profile.user.name or "somebody"
    return f"{profile.name}: {who} at {profile.site.url}, {done} {format_time(renewals.refresh_token_at)}"


def _check_cut_off(store: ProfileStore, name: str) -> Iterator[Finding]:
    """Tell of a renewal whose answer was never stored; one that is still at work is younger."""
    lock = store.lock(name)
    open_end = read_note(lock).open_end if _is_stale(lock.path) else ""
    if open_end:
        yield warning(
            "profile",
            f"{name}: a renewal was cut off, and the session may be lost ({open_end})",
            f"the next renewal tells: cells-loopback token --refresh --profile {name}",
        )
