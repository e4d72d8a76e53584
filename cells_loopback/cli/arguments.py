"""Kinds of arguments that several commands take."""

from __future__ import annotations

from cells_loopback.errors import CellsLoopbackError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def parse_seconds(text: str) -> float:
    """Read a whole number of seconds, 0 or more. Raises `UsageError`."""
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"{text[:40]!r} is not a number of seconds", hint="give a whole number, e.g. 120")
    return float(text)


def parse_port(text: str) -> int:
    """Read a TCP port, 0 for any free one. Raises `UsageError`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < 65536):
        raise UsageError(f"{text[:40]!r} is not a port", hint="give a number from 0 to 65535")
    return int(text)


def complete_profiles(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Return the profile names, for shell completion."""
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.profiles import ProfileStore

    try:
        return ProfileStore(find_config_dir(getattr(parsed_args, "config_dir", None))).names()
    except CellsLoopbackError:
        return []
