"""Settings merged into a configuration file of ``key = value`` lines, every other byte left as it is.

All functions take a text and return one, and applied twice they change nothing more. What is in
JSON is `config_json`'s part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Value: TypeAlias = str | Mapping[str, str]
"""A value, or a value of indented lines as ``s3`` has in the files of aws."""

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_HEADER = re.compile(r"\[(.+)\]")
_SETTING = re.compile(
    r"(?P<indent>[ \t]*)(?P<key>[^\s=:#;\[][^=:]*?)(?P<separator>[ \t]*[=:][ \t]*)(?P<value>.*)"
)
_BOM = "\ufeff"


def render_section(header: str, settings: Mapping[str, Value], comments: Sequence[str] = ()) -> str:
    """Return a section as text, its comments first."""
    lines = [f"[{header}]", *(f"# {comment}" for comment in comments)]
    for key, value in settings.items():
        lines += _render_setting(key, value)
    return "".join(line + "\n" for line in lines)


def read_section(text: str, is_header: Callable[[str], bool]) -> dict[str, str] | None:
    """Return the settings of the last section whose header fits, or None when there is none.

    Keys are in lower case; the lines of a nested value count as settings of their own.
    """
    lines = _LINE.findall(text.removeprefix(_BOM))
    span = _find_section(lines, is_header)
    return None if span is None else _read_settings(lines[slice(*span)])


def read_flat(text: str) -> dict[str, str]:
    """Return the settings of a text whose sections mean nothing. Keys are in lower case."""
    return _read_settings(_LINE.findall(text.removeprefix(_BOM)))


def merge_section(
    text: str,
    settings: Mapping[str, Value],
    *,
    header: str,
    is_header: Callable[[str], bool],
    nested: bool,
    comments: Sequence[str] = (),
) -> str:
    """Set values in the section whose header fits, or append a section of this header.

    In a section that is there, other keys and all comments stay, and so does a value of ours that is
    already right, however it is written. ``nested`` says that an indented line continues the one before.
    """
    bom, lines, newline = _take_apart(text)
    span = _find_section(lines, is_header)
    if span is not None:
        start, end = span
        lines[start:end] = _merge_lines(lines[start:end], settings, newline, nested=nested)
        return bom + "".join(lines)
    if lines:
        lines[-1] = _end_line(lines[-1], newline)
        if lines[-1].strip():
            lines.append(newline)
    section = render_section(header, settings, comments)
    return bom + "".join(lines) + section.replace("\n", newline)


def merge_flat(text: str, settings: Mapping[str, str], *, header: str, comments: Sequence[str] = ()) -> str:
    """Set values in a text whose sections mean nothing; an empty one gets the header and the comments."""
    bom, lines, newline = _take_apart(text)
    if not "".join(lines).strip():
        return text + render_section(header, settings, comments)
    return bom + "".join(_merge_lines(lines, settings, newline, nested=False))


def _take_apart(text: str) -> tuple[str, list[str], str]:
    """Return byte order mark, lines with their endings, and the ending that new lines get."""
    bom = _BOM if text.startswith(_BOM) else ""
    newline = re.search(r"\r\n|\n|\r", text)
    return bom, _LINE.findall(text.removeprefix(bom)), newline.group() if newline else "\n"


def _find_section(lines: Sequence[str], is_header: Callable[[str], bool]) -> tuple[int, int] | None:
    """Return the span of the last section that fits: where headers repeat, the last one counts."""
    headers = [
        (index, match[1].strip()) for index, line in enumerate(lines) if (match := _HEADER.match(line))
    ]
    ends = [*(index for index, _ in headers[1:]), len(lines)]
    spans = [
        (start, end) for (start, name), end in zip(headers, ends, strict=bool(headers)) if is_header(name)
    ]
    return spans[-1] if spans else None


def _read_settings(lines: Sequence[str]) -> dict[str, str]:
    matches = (_parse(line) for line in lines)
    return {match["key"].lower(): match["value"].strip() for match in matches if match}


def _merge_lines(
    lines: Sequence[str], settings: Mapping[str, Value], newline: str, *, nested: bool
) -> list[str]:
    """Return lines with the values set; what is missing comes behind the last setting there is."""
    merged: list[str] = []
    missing = dict(settings)
    end_of_settings = 0
    for block in _split_blocks(lines, nested=nested):
        match = _parse(block[0])
        key = match["key"].lower() if match else ""
        if match and key in settings:
            merged += _set_value(block, match, settings[key], newline)
            missing.pop(key, None)
        else:
            merged += block
        if match or _HEADER.match(block[0]):
            end_of_settings = len(merged)
    added = [line + newline for key, value in missing.items() for line in _render_setting(key, value)]
    if added and end_of_settings:
        merged[end_of_settings - 1] = _end_line(merged[end_of_settings - 1], newline)
    return merged[:end_of_settings] + added + merged[end_of_settings:]


def _split_blocks(lines: Sequence[str], *, nested: bool) -> Iterator[list[str]]:
    """Yield each line, together with the lines that continue it where such lines are known.

    As configparser has it, they are indented deeper than the key, and neither a comment nor an empty line
    parts them from it.
    """
    start = 0
    while start < len(lines):
        end = start + 1
        if nested and _parse(lines[start]):
            for index in range(end, len(lines)):
                if not _is_content(lines[index]):
                    continue
                if _depth(lines[index]) <= _depth(lines[start]):
                    break
                end = index + 1
        yield list(lines[start:end])
        start = end


def _set_value(block: list[str], match: re.Match[str], value: Value, newline: str) -> list[str]:
    first, continuation = block[0], block[1:]
    if isinstance(value, str):
        if match["value"].strip() == value and not any(map(_is_content, continuation)):
            return block
        kept = [line for line in continuation if not _is_content(line)]
        return [_replace_value(first, match, value), *kept]
    head = _replace_value(first, match, "") if match["value"].strip() else first
    return [_end_line(head, newline), *_merge_nested(continuation, value, newline)]


def _merge_nested(lines: Sequence[str], values: Mapping[str, str], newline: str) -> list[str]:
    merged: list[str] = []
    missing = dict(values)
    indent = "  "
    for line in lines:
        match = _parse(line)
        key = match["key"].lower() if match else ""
        if match:
            indent = match["indent"]
        if match and key in values:
            merged += _set_value([line], match, values[key], newline)
            missing.pop(key, None)
        else:
            merged.append(line)
    if missing and merged:
        merged[-1] = _end_line(merged[-1], newline)
    return merged + [f"{indent}{key} = {value}{newline}" for key, value in missing.items()]


def _replace_value(line: str, match: re.Match[str], value: str) -> str:
    separator = match["separator"]
    if value and separator[0] in " \t" and separator[-1] in "=:":
        separator += " "
    ending = line[len(line.rstrip("\r\n")) :]
    return f"{match['indent']}{match['key']}{separator}{value}".rstrip() + ending


def _render_setting(key: str, value: Value) -> list[str]:
    if isinstance(value, str):
        return [f"{key} = {value}".rstrip()]
    return [f"{key} =", *(f"  {name} = {inner}" for name, inner in value.items())]


def _parse(line: str) -> re.Match[str] | None:
    return _SETTING.match(line.rstrip("\r\n"))


def _is_content(line: str) -> bool:
    return not line.lstrip().startswith(("#", ";")) and bool(line.strip())


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _end_line(line: str, newline: str) -> str:
    return line if line.endswith(("\n", "\r")) else line + newline
