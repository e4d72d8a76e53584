"""The secrets of a profile in the system keyring (``login --store keyring``, extra ``keyring``).

The keyring may be locked, absent or slow to say so: each call is bounded in time. Entries may be
small (Windows holds 2,560 bytes), so a long secret is stored in numbered parts.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future, wait
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from cells_loopback.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

SERVICE = "cells-loopback"

SECRETS = {
    "token": ("access_token", "refresh_token"),
    "client": ("client_secret",),
}
"""The members of a profile's document that are secret."""

GONE = "secrets_gone"
"""The code of the error for secrets that an answering keyring does not hold."""

WITHHELD = "not-looked-at"
"""What stands in for a secret that nobody has asked the keyring for."""

CALL_TIMEOUT = 15.0
"""Seconds for one call to the keyring: a person may have to unlock it, a broken one must not hang."""

_PART = 1200  # characters; Windows stores UTF-16 and refuses more than 2,560 bytes
_MAX_PARTS = 64
_USE_FILE = "unlock it, or log in with --store file to keep the session in a file"


def split_secrets(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a profile's document in what goes to the file and what goes to the keyring.

    That there is no such secret stays in the file, for those who look without the keyring.
    """
    public, secrets = dict(document), {}
    for section, names in SECRETS.items():
        members = document[section]
        secrets[section] = {name: members[name] for name in names if members.get(name) is not None}
        public[section] = {name: value for name, value in members.items() if name not in secrets[section]}
    return public, secrets


def withhold_secrets(_config_dir: str, _profile_name: str) -> dict[str, Any]:
    """Stand in for `read_secrets` where a profile is looked at and no keyring may be woken for that."""
    return {section: dict.fromkeys(names, WITHHELD) for section, names in SECRETS.items()}


def write_secrets(config_dir: str, profile_name: str, secrets: dict[str, Any]) -> None:
    """Put a profile's secrets into the keyring and read them back. Raises `StoreError`."""
    text = json.dumps(secrets)
    parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    backend = _backend()
    # The head goes last and names the parts: until it is written, the old ones are what it names.
    generation = str(1 - _generation(backend, config_dir, profile_name))
    for index, part in enumerate(parts):
        _bounded(backend.set_password, SERVICE, _entry(config_dir, profile_name, generation, index), part)
    _bounded(backend.set_password, SERVICE, _entry(config_dir, profile_name), f"{generation} {len(parts)}")
    if read_secrets(config_dir, profile_name) != secrets:
        raise StoreError(
            "the keyring did not give back what was written to it",
            hint="keep the session in a file: --store file",
            code="keyring",
        )


def read_secrets(config_dir: str, profile_name: str) -> dict[str, Any]:
    """Return a profile's secrets from the keyring. Raises `StoreError` when they are not there."""
    backend = _backend()
    head = _bounded(backend.get_password, SERVICE, _entry(config_dir, profile_name))
    if not head:
        raise _missing(profile_name)
    generation, _, count = head.partition(" ")
    if not (count.isdecimal() and len(count) <= len(str(_MAX_PARTS))):
        raise _missing(profile_name)
    parts = [
        _bounded(backend.get_password, SERVICE, _entry(config_dir, profile_name, generation, index))
        for index in range(int(count))
    ]
    if None in parts:
        raise _missing(profile_name)
    try:
        secrets = json.loads("".join(parts))
    except ValueError:
        raise _missing(profile_name) from None
    if not isinstance(secrets, dict):
        raise _missing(profile_name)
    return secrets


def delete_secrets(config_dir: str, profile_name: str) -> None:
    """Remove a profile's secrets from the keyring, as far as they are there. Raises `StoreError`."""
    backend = _backend()
    _delete(backend, _entry(config_dir, profile_name))
    for generation in "01":
        for index in range(_MAX_PARTS):
            if not _delete(backend, _entry(config_dir, profile_name, generation, index)):
                break


def _delete(backend: Any, entry: str) -> bool:
    """Delete an entry; False when there is none."""
    if _bounded(backend.get_password, SERVICE, entry) is None:
        return False
    _bounded(backend.delete_password, SERVICE, entry)
    return True


def check_keyring(config_dir: str) -> str:
    """Return the name of a keyring that keeps what it is given. Raises `StoreError` when there is none."""
    probe = {section: dict.fromkeys(names, "probe") for section, names in SECRETS.items()}
    write_secrets(config_dir, "-probe", probe)
    delete_secrets(config_dir, "-probe")
    return keyring_name()


def keyring_name() -> str:
    """Return what the keyring calls itself. Raises `StoreError` when there is none."""
    return str(_backend().name)


def is_open() -> bool | None:
    """Whether the keyring can be asked without a person being asked; None where only asking would tell.

    Raises `StoreError` when there is no keyring.
    """
    backend = _backend()
    # Where several keyrings are installed, keyring asks one after the other.
    kinds = {type(one).__module__ for one in getattr(backend, "backends", [backend])}
    if kinds == {"keyring.backends.Windows"}:
        return True
    if kinds == {"keyring.backends.SecretService"}:
        return _bounded(_secret_service_is_open)
    return None


def _secret_service_is_open() -> bool | None:
    # keyring itself would unlock the collection, with a dialog, before it lets us look.
    import secretstorage

    with closing(secretstorage.dbus_init()) as connection:
        try:
            collection = secretstorage.get_collection_by_alias(connection, "default")
        except secretstorage.ItemNotFoundException:  # none was made yet: its first use asks for a password
            return False
        return not collection.is_locked()


def _generation(backend: Any, config_dir: str, profile_name: str) -> int:
    head = _bounded(backend.get_password, SERVICE, _entry(config_dir, profile_name))
    return 1 if head and head.startswith("1") else 0


def _entry(config_dir: str, profile_name: str, *parts: object) -> str:
    return "/".join([config_dir, profile_name, *(str(part) for part in parts)])


def _missing(profile_name: str) -> StoreError:
    return StoreError(
        f"the keyring does not hold the secrets of profile {profile_name!r}",
        hint=f"log in again: cells-loopback login --profile {profile_name}",
        code=GONE,
    )


def _backend() -> Any:
    try:
        import keyring
        from keyring.backends import fail
    except ImportError:
        raise StoreError(
            "the keyring library is not installed",
            hint='install it: pip install "cells-loopback[keyring]", or use --store file',
            code="keyring",
        ) from None
    backend = _bounded(keyring.get_keyring)
    if isinstance(backend, fail.Keyring):
        raise StoreError(
            "no keyring answers on this machine",
            hint="start one (GNOME Keyring, KWallet), or keep the session in a file: --store file",
            code="keyring",
        )
    return backend


def _bounded(call: Callable[..., Result], *arguments: str) -> Result:
    """Call the keyring in a thread that may be left behind: a locked keyring can wait for ever."""
    answer: Future[Result] = Future()

    def ask() -> None:
        try:
            answer.set_result(call(*arguments))
        except Exception as error:  # noqa: BLE001 - each backend raises its own kinds
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True, name="keyring").start()
    if not wait((answer,), timeout=CALL_TIMEOUT).done:
        raise StoreError(
            f"the keyring has not answered for {CALL_TIMEOUT:.0f} s", hint=_USE_FILE, code="keyring"
        )
    error = answer.exception()
    if error is not None:
        # The kind alone: a backend's message may repeat what it was given.
        raise StoreError(f"the keyring refuses ({type(error).__name__})", hint=_USE_FILE, code="keyring")
    return answer.result()
