"""JSON from elsewhere holds no number that could not be written out again as JSON."""

from __future__ import annotations

import json

import pytest

from cells_loopback.protocol.json_decoder import FiniteJSONDecoder

NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", pytest.param("1" * 5000, id="5000-digits")]


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_no_number_or_none_that_can_be_held_is_null(number: str) -> None:
    assert json.loads(f'[{number}, {{"a": {number}}}]', cls=FiniteJSONDecoder) == [None, {"a": None}]


def test_everything_else_is_read_as_ever() -> None:
    text = '{"a": [1, -2.5, 1e3, "NaN", null, true], "b": 12345678901234567890}'
    assert json.loads(text, cls=FiniteJSONDecoder) == json.loads(text)
