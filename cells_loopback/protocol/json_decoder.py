"""JSON from elsewhere, without the numbers that Python reads and JSON does not have (RFC 8259 §6).

``NaN`` and the infinities compare like no other number, and written out again they are JSON to nobody but
Python: our own files and ``--json`` would carry them on.
"""

from __future__ import annotations

import json
import math


class FiniteJSONDecoder(json.JSONDecoder):
    """A decoder to which a number that is none, or that Python cannot hold, is ``null``."""

    def __init__(self) -> None:
        super().__init__(parse_float=_parse_float, parse_int=_parse_int, parse_constant=_parse_float)


def _parse_int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # thousands of digits (sys.set_int_max_str_digits)
        return None


def _parse_float(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
