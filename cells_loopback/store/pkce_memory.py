"""Sites that have bound PKCE and have no session any more: a logout forgets the tokens, not that.

While there is a session its profile tells (``pkce_binding``). Otherwise whoever makes a person log out
and in again could put in a code of their own, as if the site had never bound any.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from cells_loopback.store.lock import FileLock
from cells_loopback.store.private_file import Replacement, make_private_directory, read_private_file
from cells_loopback.store.profiles import damaged

if TYPE_CHECKING:
    from cells_loopback.protocol.site import Site


def has_bound(config_dir: str, site: Site) -> bool:
    """Whether ``site`` is remembered. Raises `StoreError` when the file cannot be read or understood."""
    return site.url in _read(_path(config_dir))


def remember_bound(config_dir: str, site: Site) -> None:
    """Remember ``site`` for good. Raises `StoreError`."""
    make_private_directory(config_dir)
    path = _path(config_dir)
    with FileLock(path + ".lock"):
        known = _read(path)
        if site.url in known:
            return
        content = json.dumps({"version": 1, "bound": [*known, site.url]}, indent=1).encode("ascii") + b"\n"
        with Replacement(path, len(content)) as replacement:
            replacement.commit(content)


def _path(config_dir: str) -> str:
    return os.path.join(config_dir, "pkce.json")


def _read(path: str) -> list[str]:
    try:
        content, _ = read_private_file(path)
    except FileNotFoundError:
        return []
    try:
        bound = json.loads(content)["bound"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise damaged(path) from None
    if not isinstance(bound, list) or not all(isinstance(url, str) for url in bound):
        raise damaged(path)
    return bound
