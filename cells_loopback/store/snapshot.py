"""A stored session read without the machinery, for the two paths that are measured in milliseconds.

Those are the warm path of ``token`` and the start of a login to a known site. Whatever is out of the
ordinary (a keyring, a name that needs thought, a config file with more than the plainest lines) raises
`Unusual` and is left to the ordinary modules, which know everything. What an import costs beside an
empty process (CPython 3.11, one Linux machine): ``json`` 0.7, ``dataclasses`` 1.5 times that process;
``_json``, the C part of ``json``, 0.1.
"""

from __future__ import annotations

import os

from cells_loopback.errors import CellsLoopbackError
from cells_loopback.store.private_file import check_private_directory, read_private_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PLAIN_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:")
_MAX_NAME = 100
_PARTS = ("user", "client", "metadata", "token", "settings", "renewals")
_DEVICES = frozenset({"con", "prn", "aux", "nul", "com", "lpt"})


class Unusual(Exception):  # noqa: N818 - no error: whoever reads a snapshot has the ordinary way as well
    """The call, or what is stored, is for the ordinary modules."""


NOT_PLAIN = (
    Unusual,
    CellsLoopbackError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    StopIteration,
)
"""What reading a snapshot may raise: nothing in it has been looked at, so any member may be of any kind."""


def find_profile_path(config_dir: str, profile: str | None) -> str:
    """Return the path of the named or the default profile's file, which need not exist."""
    name = profile or os.environ.get("CELLS_LOOPBACK_PROFILE") or read_plain_default_profile(config_dir)
    if not _PLAIN_NAME.issuperset(name) or not name[0].isalnum() or len(name) > _MAX_NAME or os.name == "nt":
        raise Unusual
    stem = name.partition(".")[0].lower()
    if name.endswith(".") or (stem[:3] in _DEVICES and len(stem) <= len("com1")):
        raise Unusual  # what `profiles.check_profile_name` refuses, and a few names like it
    return f"{config_dir}/profiles/{name}.json"


def read_plain_default_profile(config_dir: str) -> str:
    """Find ``default_profile = "NAME"`` among the first plain lines of ``config.toml``.

    What follows is not looked at. Raises any of `NOT_PLAIN`.
    """
    with open(f"{config_dir}/config.toml", "rb") as file:
        text = file.read(65536).decode()
    if '"""' in text or "'''" in text:
        raise Unusual  # a string over several lines may hold anything
    for line in text.split("\n"):
        if line.startswith("default_profile = "):
            quoted = line[len("default_profile = ") :].strip()
            name = quoted[1:-1]
            if name and quoted[0] == quoted[-1] == '"' and '"' not in name and "\\" not in name:
                return name
            raise Unusual
        if line.strip() and not line.startswith("#"):
            raise Unusual
    raise Unusual


def check_plain_config(config_dir: str) -> None:
    """Raise any of `NOT_PLAIN` for a ``config.toml`` with more in it than the default profile and comments.

    Preferences, for example, take a TOML library to read, whose import costs more than all else that a
    first login does with its own files before the browser opens.
    """
    try:
        with open(f"{config_dir}/config.toml", "rb") as file:
            text = file.read(65536).decode()
    except FileNotFoundError:
        return
    chosen = 0
    for line in text.replace("\r\n", "\n").split("\n"):
        key, _, value = line.partition(" = ")
        if key == "default_profile" and value == f'"{value[1:-1]}"' and _PLAIN_NAME.issuperset(value[1:-1]):
            chosen += 1
        elif (line and line[0] != "#") or not line.isprintable():
            raise Unusual
    if chosen > 1 or len(text) > 60000:
        raise Unusual


def read_snapshot(path: str) -> dict[str, Any]:
    """Return a profile's document, its file checked like any other; only one whose secrets lie in it.

    Each of its parts is there. What is inside those that the caller does not need is not looked at.
    """
    check_private_directory(os.path.dirname(path))
    content, _ = read_private_file(path)
    document = read_json(content.decode())
    if document["version"] != 1 or document["settings"].get("store") != "file":
        raise Unusual
    if type(document["site"]) is not str or any(type(document[part]) is not dict for part in _PARTS):
        raise Unusual
    snapshot: dict[str, Any] = document
    return snapshot


def read_json(text: str) -> Any:
    """Return what a JSON text holds. Raises any of `NOT_PLAIN`."""
    try:
        document, end = _json_scanner()(text, 0)
    except SystemError:
        # Its JSONDecodeError is in json.decoder; where nobody has imported that, CPython fails without one.
        raise Unusual from None
    if text[end:].strip():
        raise Unusual
    return document


def _json_scanner() -> Callable[[str, int], tuple[Any, int]]:
    """Return the C scanner of the json module, without importing that module and ``re`` behind it."""
    from _json import make_scanner

    class Context:
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = None
        memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own interface

    return make_scanner(Context)  # type: ignore[arg-type]  # any object with these attributes
