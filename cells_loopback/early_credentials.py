"""``s3 credentials`` for a session that needs nothing done, answered before anything else is imported.

aws and boto3 run it before each of their requests, as `integrations.expiration` tells, so its time is
theirs. Only the plain call that ``s3 setup`` writes is answered here; a test holds the answer to that of
the ordinary command.
"""

from __future__ import annotations

import os

from cells_loopback.clock import attainable, measure_age, uptime, wall
from cells_loopback.integrations.expiration import SDK_WINDOW, end_of_credentials, format_expiration
from cells_loopback.store.config_dir import find_config_dir
from cells_loopback.store.snapshot import NOT_PLAIN, Unusual, find_profile_path, read_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_OPTIONS = {"--profile": "profile", "-p": "profile", "--config-dir": "config_dir"}


def answer_credentials(arguments: Sequence[str]) -> str | None:
    """Return what ``s3 credentials`` prints, given the arguments before it; None for an unusual call."""
    try:
        options = _read_options(arguments)
        path = find_profile_path(find_config_dir(options.get("config_dir")), options.get("profile"))
        return _render(read_snapshot(path)["token"])
    except NOT_PLAIN:
        return None


def _read_options(arguments: Sequence[str]) -> dict[str, str]:
    if "CELLS_LOOPBACK_TOKEN" in os.environ:
        raise Unusual
    options = {_OPTIONS[name]: value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}
    if "" in options.values():
        raise Unusual
    return options


def _render(tokens: dict[str, Any]) -> str:
    token, lifetime = tokens["access_token"], tokens["lifetime"]
    if not token.isascii() or not token.isprintable() or '"' in token or "\\" in token:
        raise Unusual
    expiration = ""
    if lifetime is not None:
        now = wall()
        left = lifetime - measure_age(tokens["obtained_at"], tokens["obtained_uptime"], now, uptime())
        if left <= attainable(SDK_WINDOW, lifetime):
            raise Unusual
        expiration = f', "Expiration": "{format_expiration(end_of_credentials(now, left))}"'
    return f'{{"Version": 1, "AccessKeyId": "{token}", "SecretAccessKey": "gatewaysecret"{expiration}}}\n'
