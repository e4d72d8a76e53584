"""``token --format json`` for a session that needs nothing done, written without the ``json`` module.

Part of the warm path: what is not exactly as this package writes it is left to the ordinary command, to
whose answer a test holds this one.
"""

from __future__ import annotations

import os

from cells_loopback.clock import format_time
from cells_loopback.store.snapshot import Unusual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def render_token_json(path: str, document: dict[str, Any]) -> str:
    """Return what ``token --format json`` prints for the profile's document at ``path``.

    Raises `store.snapshot.Unusual` and what else a member of another kind may raise.
    """
    from _json import encode_basestring_ascii as quote  # without json and re behind it

    tokens, site, user = document["token"], document["site"], document["user"]["name"]
    if site != site.lower() or site.endswith(("/", ":443", ":80")) or not isinstance(user, str):
        raise Unusual
    profile = os.path.basename(path)[: -len(".json")]
    values = {
        "access_token": quote(tokens["access_token"]),
        "token_type": quote(tokens["token_type"]),
        "expires_at": _format_end(tokens),
        "site": quote(site),
        "profile": quote(profile),
        "user": quote(user),
    }
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}\n"


def _format_end(tokens: dict[str, Any]) -> str:
    parts = (tokens["obtained_at"], tokens["clock_offset"], tokens["lifetime"])
    if parts[-1] is None:
        return "null"
    if any(type(part) not in {int, float} for part in parts):
        raise Unusual
    return f'"{format_time(sum(parts))}"'
