"""Members set in a JSON file, with every other byte of it left as it is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SPACE = re.compile(r"[ \t\r\n]*")
_FIRST_INDENT = re.compile(r"(\r\n|\n)([ \t]+)[^ \t\r\n]")
_BOM = "\ufeff"


@dataclass(frozen=True)
class _Style:
    """How the document is written: both are empty where it stands on one line."""

    newline: str
    indent: str

    def line_break(self, depth: int) -> str:
        return self.newline + self.indent * depth

    def render(self, value: object, depth: int) -> str:
        return json.dumps(value, indent=self.indent or None).replace("\n", self.line_break(depth) or "\n")


def read_json(text: str, path: Sequence[str]) -> object:
    """Return the value at a path of keys, None where there is none. Raises ``ValueError`` for no JSON."""
    value: object = json.loads(text.removeprefix(_BOM))
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def merge_json(text: str, path: Sequence[str], members: Mapping[str, Any]) -> str:
    """Set members of the object at a path of keys, creating the objects that are missing.

    Raises ``ValueError`` when the text is not JSON, or something on the path is not an object.
    """
    if not text.strip(_BOM + " \t\r\n"):
        return text + _Style("\n", "\t").render(_nest(path, members), 0) + "\n"
    json.loads(text.removeprefix(_BOM))
    start = _skip_space(text, len(_BOM) if text.startswith(_BOM) else 0)
    first = _FIRST_INDENT.search(text)
    return _merge_object(text, start, path, members, _Style(*first.groups()) if first else _Style("", ""), 1)


def _merge_object(
    text: str, start: int, path: Sequence[str], members: Mapping[str, Any], style: _Style, depth: int
) -> str:
    if text[start] != "{":
        raise ValueError("not an object")
    if not path:
        for key, value in members.items():
            text = _set_member(text, start, key, value, style, depth)
        return text
    # Of a key that repeats the last one counts, to JSON readers as to us.
    inner = {key: begin for key, begin, _ in _scan_members(text, start)}.get(path[0])
    if inner is None:
        return _set_member(text, start, path[0], _nest(path[1:], members), style, depth)
    return _merge_object(text, inner, path[1:], members, style, depth + 1)


def _set_member(text: str, start: int, key: str, value: object, style: _Style, depth: int) -> str:
    members = list(_scan_members(text, start))
    rendered = style.render(value, depth)
    for name, begin, end in reversed(members):
        if name == key:
            return text if json.loads(text[begin:end]) == value else text[:begin] + rendered + text[end:]
    member = f"{style.line_break(depth)}{json.dumps(key)}: {rendered}"
    if members:
        end = members[-1][2]
        return f"{text[:end]},{'' if style.indent else ' '}{member}{text[end:]}"
    closing = _skip_space(text, start + 1)
    space = text[start + 1 : closing] or style.line_break(depth - 1)
    return text[: start + 1] + member + space + text[closing:]


def _nest(path: Sequence[str], members: Mapping[str, Any]) -> dict[str, Any]:
    document = dict(members)
    for key in reversed(path):
        document = {key: document}
    return document


def _scan_members(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yield the key of each member of an object, and where its value begins and ends."""
    decoder = json.JSONDecoder()
    position = _skip_space(text, start + 1)
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        begin = _skip_space(text, _skip_space(text, position) + 1)
        _, end = decoder.raw_decode(text, begin)
        yield key, begin, end
        position = _skip_space(text, end)
        if text[position] == ",":
            position = _skip_space(text, position + 1)


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
