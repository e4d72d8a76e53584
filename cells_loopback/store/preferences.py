"""``CONFIG_DIR/config.toml``: the default profile and preferences, no secret.

A person edits this file too, so it is changed with tomlkit, which keeps comments and order.
"""

from __future__ import annotations

import math
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from cells_loopback.errors import NotLoggedInError, StoreError, UsageError
from cells_loopback.store.lock import FileLock
from cells_loopback.store.private_file import Replacement, cannot_read, make_private_directory
from cells_loopback.store.profile_document import LOGIN_CHOICES
from cells_loopback.store.profiles import check_profile_name
from cells_loopback.store.snapshot import NOT_PLAIN, check_plain_config, read_plain_default_profile

if TYPE_CHECKING:
    import tomlkit

    from cells_loopback.store.profiles import ProfileStore

DEFAULT_PROFILE = "default_profile"

LOGIN_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "browser": str,
    "timeout": (int, float),
    "store": str,
    "relogin": str,
    "pkce": str,
}
"""Options of ``login`` that the table ``[login]`` may preset, and the kinds of their values."""


def find_default_profile(store: ProfileStore) -> str:
    """Return the name of the default profile: the chosen one, or the only one there is.

    ``CELLS_LOOPBACK_PROFILE`` comes first, and `UsageError` is for what stands there. Raises
    `NotLoggedInError` when nothing tells and `StoreError` for a ``config.toml`` that cannot be understood.
    """
    named = os.environ.get("CELLS_LOOPBACK_PROFILE")
    if named:
        return check_profile_name(named)
    chosen = read_default_profile(store.config_dir)
    if chosen:
        return _check_chosen(store.config_dir, chosen)
    names = store.names()
    if len(names) == 1:
        return names[0]
    if names:
        raise NotLoggedInError(
            "there are several profiles and none is the default",
            hint=f"name one: -p {names[0]}; or choose the default: cells-loopback use {names[0]}",
        )
    raise nobody_has_logged_in()


def nobody_has_logged_in() -> NotLoggedInError:
    """Return what is to be raised where there is no profile at all."""
    return NotLoggedInError("nobody has logged in yet", hint="log in: cells-loopback login SITE")


def _check_chosen(config_dir: str, name: str) -> str:
    try:
        return check_profile_name(name)
    except UsageError as error:  # of the file, not of the call
        raise _invalid(config_dir, error.message) from None


def read_default_profile(config_dir: str) -> str | None:
    """Return the chosen default profile, None when none is. Raises `StoreError`."""
    try:
        # The same plain case that the warm path reads, so that the two never differ.
        return read_plain_default_profile(config_dir)
    except FileNotFoundError:
        return None
    except NOT_PLAIN:
        pass
    name = _read(config_dir).get(DEFAULT_PROFILE)
    if name is None:
        return None
    if not isinstance(name, str):
        raise _invalid(config_dir, f"{DEFAULT_PROFILE} is not a name")
    return str(name)


def read_login_options(config_dir: str) -> dict[str, Any]:
    """Return the preset options of ``login``.

    Raises `StoreError` for unknown ones and wrong kinds, and for a file that others can write.
    """
    try:
        check_plain_config(config_dir)
    except NOT_PLAIN:
        pass
    else:
        return {}
    table: Any = _read(config_dir).get("login", {})
    if not isinstance(table, dict):
        raise _invalid(config_dir, "login is not a table")
    if table:
        _refuse_foreign(_path(config_dir))
    for name, value in table.items():
        kind = LOGIN_OPTIONS.get(name)
        if kind is None or isinstance(value, bool) or not isinstance(value, kind):
            raise _invalid(config_dir, f"login.{name} is unknown or of the wrong kind")
        if name in LOGIN_CHOICES and value not in LOGIN_CHOICES[name]:
            raise _invalid(config_dir, f"login.{name} is none of {', '.join(LOGIN_CHOICES[name])}")
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            raise _invalid(config_dir, "login.timeout is not a number of seconds")
    return {name: value.unwrap() for name, value in table.items()}


def write_default_profile(config_dir: str, name: str | None) -> None:
    """Choose the default profile; None removes the choice. Raises `StoreError`."""
    # A person may keep their configuration elsewhere and link to it; only `profiles` must not be a link.
    config_dir = os.path.realpath(config_dir)
    make_private_directory(config_dir)
    path = _path(config_dir)
    with FileLock(path + ".lock"):
        document = _read(config_dir)
        has_windows_lines = _has_windows_lines(document.as_string())
        if name is None:
            document.pop(DEFAULT_PROFILE, None)
        else:
            document[DEFAULT_PROFILE] = name
        text: str = document.as_string()
        if has_windows_lines:  # tomlkit ends its own line with the other ending
            text = text.replace("\r\n", "\n").replace("\n", "\r\n")
        content = text.encode()
        with Replacement(os.path.realpath(path), len(content)) as replacement:
            replacement.commit(content)


def _path(config_dir: str) -> str:
    return os.path.join(config_dir, "config.toml")


def _read(config_dir: str) -> tomlkit.TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = _path(config_dir)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # Windows' editors put a mark in front
            return tomlkit.parse(file.read())
    except FileNotFoundError:
        return tomlkit.document()
    except OSError as error:
        raise cannot_read(path, error) from error
    except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(config_dir, str(error)) from None


def _refuse_foreign(path: str) -> None:
    """Refuse a file that names a program, the browser, when somebody else may have written it."""
    if sys.platform == "win32":
        return
    status = os.stat(path)
    if status.st_uid not in {os.geteuid(), 0}:
        raise StoreError(
            f"{path} belongs to another user (uid {status.st_uid})",
            hint="move it away, or use a place of your own: --config-dir DIR",
        )
    if status.st_mode & stat.S_IWOTH:
        import shlex

        raise StoreError(f"{path} can be written by others", hint=f"close it: chmod o-w {shlex.quote(path)}")


def _has_windows_lines(text: str) -> bool:
    return 0 < text.count("\n") == text.count("\r\n")


def _invalid(config_dir: str, reason: str) -> StoreError:
    path = _path(config_dir)
    return StoreError(
        f"{path} is not valid: {reason}", hint="mend that line, or move the file away", code="config"
    )
