"""The disk: one JSON file for each profile, with its lock beside it.

What a file holds is `profile_document`'s part. The secrets in it (tokens, client secret) lie in the
file or, with ``store = "keyring"``, in the system keyring.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cells_loopback.errors import (
    CellsLoopbackError,
    NotLoggedInError,
    StoreError,
    UsageError,
    without_frames,
)
from cells_loopback.store.lock import FileLock
from cells_loopback.store.private_file import (
    MAX_BYTES,
    Replacement,
    adopt_leftover,
    cannot_read,
    cannot_write,
    check_private_directory,
    make_private_directory,
    move_away,
    read_private_file,
    remove_temporary,
)
from cells_loopback.store.profile_document import (
    FORMAT_VERSION,
    Profile,
    ReloginPolicy,
    Renewals,
    Settings,
    StoreKind,
    User,
    decode_profile,
    encode_profile,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    ReadSecrets = Callable[[str, str], dict[str, Any]]

__all__ = [
    "Profile",
    "ProfileStore",
    "ReloginPolicy",
    "Renewals",
    "Settings",
    "StoreKind",
    "User",
    "check_profile_name",
    "damaged",
    "file_name",
    "no_such_profile",
]

_MAX_NAME = 100
_NAME = re.compile(r"(?:[A-Za-z0-9]|\[[0-9a-f:]+\])[A-Za-z0-9._@+:-]*")
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_ROOM = 16384
_SECRETS_ID = "secrets_id"  # in the file and beside the secrets in the keyring: what belongs together
_NO_SECRETS = frozenset({"keyring", "secrets_gone"})  # the codes of the keyring's errors
_WRITING_TIMEOUT, _WRITING_PAUSE = 2.0, 0.02  # between the writing of the secrets and that of the file
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, CellsLoopbackError)


def check_profile_name(name: str) -> str:
    """Return ``name`` if it can be a profile's name and a file's name on every platform.

    Raises `UsageError` otherwise: for paths, empty, overlong and reserved names.
    """
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME or name.endswith("."):
        raise UsageError(
            f"{name[:_MAX_NAME]!r} cannot be a profile's name",
            hint=f"use letters, digits and . _ - @ + :, at most {_MAX_NAME} of them, e.g. -p work",
        )
    if _RESERVED_ON_WINDOWS.fullmatch(name):
        raise UsageError(f"{name!r} is a reserved file name on Windows", hint="choose another, e.g. -p work")
    return name


def file_name(name: str) -> str:
    """Return the file name of a profile without its ending; a colon is encoded where Windows forbids it."""
    return name.replace(":", "%3A") if os.name == "nt" else name


def _read_keyring(config_dir: str, name: str) -> dict[str, Any]:
    from cells_loopback.store.keyring_store import read_secrets

    return read_secrets(config_dir, name)


class ProfileStore:
    """The profiles of one config directory.

    ``read_secrets`` is for those who must not wake the system keyring: it is asked in its place.
    """

    def __init__(self, config_dir: str, read_secrets: ReadSecrets = _read_keyring) -> None:
        self.config_dir = config_dir
        self._read_secrets = read_secrets
        self.directory = os.path.join(config_dir, "profiles")

    def path(self, name: str) -> str:
        """Return the path of a profile's file."""
        return os.path.join(self.directory, file_name(check_profile_name(name)) + ".json")

    def lock(self, name: str) -> FileLock:
        """Return a new lock of the profile; its directory must be there."""
        return FileLock(os.path.join(self.directory, file_name(check_profile_name(name)) + ".lock"))

    def names(self) -> list[str]:
        """Return the names of all profiles, sorted. Raises `StoreError` for an unsafe directory."""
        try:
            check_private_directory(self.directory)
            entries = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise cannot_read(self.directory, error) from error
        stems = (entry[:-5].replace("%3A", ":") for entry in entries if entry.endswith(".json"))
        return sorted(stem for stem in stems if _NAME.fullmatch(stem))

    def exists(self, name: str) -> bool:
        """Whether there is a file for the profile, readable or not."""
        return os.path.lexists(self.path(name))

    def stamp(self, name: str) -> tuple[int, int, int]:
        """Return what changes whenever the file is replaced; zeros when it is not there."""
        try:
            status = os.stat(self.path(name))
        except OSError:
            return (0, 0, 0)
        return (status.st_ino, status.st_mtime_ns, status.st_size)

    def read(self, name: str) -> Profile:
        """Read one profile, its secrets included.

        Raises `NotLoggedInError` when there is none, and `StoreError`, with the path and the mend, when
        it cannot be read or understood; the file is left as it is.
        """
        return without_frames(lambda: self._read(name))

    def _read(self, name: str) -> Profile:
        document = self._read_document(name)
        if document["settings"].get("store") == "keyring":
            document = self._with_secrets(name, document)
        document.pop(_SECRETS_ID, None)
        try:
            return decode_profile(name, document)
        except _DAMAGED:
            raise damaged(self.path(name)) from None

    def _read_document(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        try:
            check_private_directory(self.directory)
            content, _ = read_private_file(path)
        except FileNotFoundError:
            raise no_such_profile(name) from None
        return _parse_document(path, content)

    def _with_secrets(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        """Put the secrets in that were written together with the document.

        They are written first. A reader who comes in between waits for the file; where a process was
        killed in between, the newer secrets count: the older refresh token is spent.
        """
        deadline = time.monotonic() + _WRITING_TIMEOUT
        while True:
            secrets = self._read_secrets(self.config_dir, name)
            belongs = secrets.get(_SECRETS_ID) in {None, document.get(_SECRETS_ID)}
            if belongs or time.monotonic() > deadline:
                return _merged(document, secrets, newer=not belongs)
            time.sleep(_WRITING_PAUSE)
            document = self._read_document(name)
            if document["settings"].get("store") != "keyring":  # moved to the file meanwhile
                return document

    def read_for_login(self, name: str) -> Profile:
        """Read a profile that a login may replace: as ended where the keyring does not give its secrets.

        Raises what `read` raises for any other reason.
        """
        try:
            return self.read(name)
        except StoreError as error:
            if error.code not in _NO_SECRETS:
                raise
        from cells_loopback.store.keyring_store import withhold_secrets

        profile = ProfileStore(self.config_dir, withhold_secrets).read(name)
        return replace(
            profile,
            client=replace(profile.client, client_secret=None),
            tokens=replace(profile.tokens, refresh_token=None),
            renewals=replace(profile.renewals, rejected_at=time.time()),
        )

    def prepare(self) -> None:
        """Create the directories if they are not there. Raises `StoreError`."""
        make_private_directory(self.directory)

    def replacement(self, name: str) -> Replacement:
        """Reserve room for the profile's next content; only for the holder of its lock.

        A renewed session that its process could not put in place before it was killed is put in place
        first: look at the profile again. Raises `StoreError`.
        """
        path = self.path(name)
        adopt_leftover(path, lambda content: self._is_renewed(name, content))
        try:
            room = os.stat(path).st_size
        except OSError:
            room = 0
        return Replacement(path, room + _ROOM)

    def _is_renewed(self, name: str, content: bytes) -> bool:
        """Whether ``content`` is the stored session with newer tokens: the stored ones are spent then."""
        path = self.path(name)
        try:
            stored = self.read(name)
            left = decode_profile(name, _parse_document(path, content))
        except _DAMAGED:  # not written to its end, or nothing to compare it with
            return False
        same_login = (left.site, left.client, left.renewals.logged_in_at) == (
            stored.site, stored.client, stored.renewals.logged_in_at,
        )  # fmt: skip
        return same_login and left.tokens.refresh_token != stored.tokens.refresh_token

    def write(self, profile: Profile, replacement: Replacement) -> None:
        """Put ``profile`` in place through ``replacement``; only for the holder of its lock.

        Raises `StoreError`.
        """
        without_frames(lambda: self._write(profile, replacement))

    def _write(self, profile: Profile, replacement: Replacement) -> None:
        document, secrets = encode_profile(profile), None
        if profile.settings.store == "keyring":
            from cells_loopback.store.keyring_store import split_secrets, write_secrets

            document, secrets = split_secrets(document)
            document[_SECRETS_ID] = secrets[_SECRETS_ID] = os.urandom(8).hex()
        # ASCII, because a lone surrogate in something that the server said cannot be encoded.
        content = json.dumps(document, indent=2).encode("ascii") + b"\n"
        if len(content) >= MAX_BYTES:  # which no reader would take
            raise StoreError(
                f"the session of {profile.site.url} is too large to be stored: {len(content) >> 10} KiB",
                hint="ask the server's administrator for smaller tokens and claims",
                code="too_large",
            )
        if secrets is not None:
            write_secrets(self.config_dir, profile.name, secrets)
        replacement.commit(content)

    def remove(self, profile_name: str, lock: FileLock) -> None:
        """Forget a profile; ``lock`` is its lock, held. Raises `StoreError`."""
        path = self.path(profile_name)
        remove_temporary(path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise cannot_write(path, error) from error
        lock.remove()


def no_such_profile(name: str) -> NotLoggedInError:
    """Return the error for a profile that is not there."""
    return NotLoggedInError(
        f"there is no profile {name!r}", hint="log in: cells-loopback login SITE; or see cells-loopback list"
    )


def damaged(path: str) -> StoreError:
    """Return the error for a file that cannot be understood."""
    return StoreError(
        f"{path} is damaged",
        hint=f"restore it from a backup, or move it away and log in again: {move_away(path)}",
        code="damaged",
    )


def _parse_document(path: str, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise damaged(path) from None
    if not isinstance(document, dict) or not isinstance(document.get("version"), int):
        raise damaged(path)
    if document["version"] < 1:
        raise damaged(path)
    if document["version"] > FORMAT_VERSION:
        raise StoreError(
            f"{path} was written by a newer cells-loopback (format {document['version']})",
            hint="upgrade this one: pip install --upgrade cells-loopback",
            code="newer_format",
        )
    if not isinstance(document.setdefault("settings", {}), dict):
        raise damaged(path)
    return document


def _merged(document: dict[str, Any], secrets: dict[str, Any], *, newer: bool) -> dict[str, Any]:
    """Put the secrets in; only ``newer`` ones stand against a secret that the file says there is none of."""
    merged = dict(document)
    for section, members in document.items():
        inner = secrets.get(section)
        if isinstance(members, dict) and isinstance(inner, dict):
            merged[section] = {**members, **inner} if newer else {**inner, **members}
    return merged
