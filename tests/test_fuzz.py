"""A few inputs for everything that reads what others have written; `scripts/fuzz` tries many more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from fuzz_targets import TARGETS, TOO_LONG
from hypothesis import HealthCheck, given, settings

if TYPE_CHECKING:
    from fuzz_targets import Target

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_ends_in_a_traceback_a_hang_or_an_accepted_login(target: Target) -> None:
    with target.opened() as check:

        @FEW
        @given(target.inputs)
        def try_one(value: Any) -> None:
            began = time.monotonic()
            check(value)
            assert time.monotonic() - began < TOO_LONG

        try_one()
