from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells_loopback.integrations.config_json import merge_json

ALIAS = {"url": "http://localhost:8080", "api": "S3v4"}
PATH = ("aliases", "cells")

MC = """\
{
\t"version": "10",
\t"aliases": {
\t\t"play": {
\t\t\t"url": "https://play.min.io",   "api":"S3v4"
\t\t}
\t}
}
"""
MC_WITH_OURS = """\
{
\t"version": "10",
\t"aliases": {
\t\t"play": {
\t\t\t"url": "https://play.min.io",   "api":"S3v4"
\t\t},
\t\t"cells": {
\t\t\t"url": "http://localhost:8080",
\t\t\t"api": "S3v4"
\t\t}
\t}
}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (MC, MC_WITH_OURS),
        (MC_WITH_OURS, MC_WITH_OURS),
        (MC.replace("\n", "\r\n"), MC_WITH_OURS.replace("\n", "\r\n")),
        ("\ufeff" + MC, "\ufeff" + MC_WITH_OURS),
        (MC.replace("\t", "  "), MC_WITH_OURS.replace("\t", "  ")),
        (MC_WITH_OURS.replace("localhost:8080", "elsewhere"), MC_WITH_OURS),
        (MC_WITH_OURS.replace('\n\t\t\t"api": "S3v4"', '\n\t\t\t"x": [1],\n\t\t\t"api": "old"'), None),
        ("{}", '{"aliases": {"cells": {"url": "http://localhost:8080", "api": "S3v4"}}}'),
        (
            '{"a": 1, "aliases": {"b": {}}}',
            '{"a": 1, "aliases": {"b": {}, "cells": {"url": "http://localhost:8080", "api": "S3v4"}}}',
        ),
        ('{"aliases": {"cells": {"url": "old"}}, "aliases": {"cells": {"url": "old"}}}', None),
        ("{\n}\n", None),
        ('{\n "aliases": {}\n}\n', None),
        ('{"aliases":\n{ }}', None),
    ],
)
def test_our_members_are_set_and_the_rest_is_kept(before: str, after: str | None) -> None:
    merged = merge_json(before, PATH, ALIAS)
    if after is not None:
        assert merged == after
    assert json.loads(merged.removeprefix("\ufeff"))["aliases"]["cells"].items() >= ALIAS.items()
    assert merge_json(merged, PATH, ALIAS) == merged


@pytest.mark.parametrize("before", ["", "\n", "\ufeff"])
def test_an_empty_file_becomes_a_document(before: str) -> None:
    merged = merge_json(before, PATH, ALIAS)
    assert merged.startswith(before)
    assert json.loads(merged.removeprefix("\ufeff")) == {"aliases": {"cells": ALIAS}}


@pytest.mark.parametrize(
    "before", ["[]", '"text"', "{", "{} {}", '{"aliases": []}', '{"aliases": {"cells": 1}}']
)
def test_what_is_no_object_is_refused(before: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        merge_json(before, PATH, ALIAS)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
STYLES: list[dict[str, Any]] = [
    {},
    {"indent": 2},
    {"indent": "\t"},
    {"indent": 0},
    {"separators": (",", ":")},
    {"ensure_ascii": False},
]


@settings(deadline=None)  # the machine may be busy
@given(
    st.dictionaries(st.text(), VALUES, max_size=4),
    st.none() | st.dictionaries(st.text(), VALUES, max_size=3),
    st.sampled_from(STYLES),
)
def test_a_merged_document_says_what_it_said_and_our_members(
    document: dict[str, Any], aliases: dict[str, Any] | None, style: dict[str, Any]
) -> None:
    document.pop("aliases", None)
    if aliases is not None:
        aliases.pop("cells", None)
        document["aliases"] = aliases
    text = json.dumps(document, **style)
    merged = merge_json(text, PATH, ALIAS)
    expected = {**document, "aliases": {**(aliases or {}), "cells": ALIAS}}
    assert json.loads(merged) == expected
    assert list(json.loads(merged)) == list(expected)
    assert merge_json(merged, PATH, ALIAS) == merged
    inserted = len(merged) - len(text)
    assert any(merged[:cut] + merged[cut + inserted :] == text for cut in range(len(text) + 1))
