"""One page of a bucket's listing, as a computation on keys."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .answers import S3Error

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_KEYS = 1000


@dataclass(frozen=True)
class Page:
    """Keys and common prefixes, and where the next page begins."""

    keys: tuple[str, ...]
    prefixes: tuple[str, ...]
    next_marker: str | None
    """The last key or prefix of this page when there are more."""


def list_page(keys: Iterable[str], *, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """Return the page that follows `after`, from sorted keys.

    Keys that share what stands up to the first delimiter behind the prefix are one common prefix,
    which counts as one entry; `after` may be such a prefix ("ListObjects", API Reference).
    """
    found: list[str] = []
    prefixes: list[str] = []
    last = ""
    for key in keys:
        if not key.startswith(prefix) or not _is_after(key, after):
            continue
        common = _common_prefix(key, prefix, delimiter)
        if common is not None and common in (last, after):
            continue
        if len(found) + len(prefixes) == limit:
            return Page(tuple(found), tuple(prefixes), last if limit else None)
        last = key if common is None else common
        (found if common is None else prefixes).append(last)
    return Page(tuple(found), tuple(prefixes), None)


def parse_limit(text: str, default: int = MAX_KEYS) -> int:
    """Read ``max-keys`` and its kin: never more than a thousand."""
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise S3Error("InvalidArgument", f"Provided limit {text!r} is not an integer of at least 0.")
    return min(int(text), MAX_KEYS)


def encode_token(key: str) -> str:
    """Make a continuation token, which is opaque to clients."""
    return base64.urlsafe_b64encode(key.encode(errors="surrogateescape")).decode()


def decode_token(token: str) -> str:
    """Return the key in a continuation token."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode(errors="surrogateescape")
    except (binascii.Error, ValueError):
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect") from None


def _is_after(key: str, after: str) -> bool:
    return key.encode(errors="surrogateescape") > after.encode(errors="surrogateescape")


def _common_prefix(key: str, prefix: str, delimiter: str) -> str | None:
    if not delimiter:
        return None
    head, found, _ = key[len(prefix) :].partition(delimiter)
    return prefix + head + delimiter if found else None
