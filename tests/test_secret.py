"""A secret is taken out in one way only, and every record that holds one keeps it to itself."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import logging
import pickle
import pkgutil
import pprint
import re
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from examples import PROFILE, REQUEST, RESPONSE, TOKENS
from hypothesis import given
from hypothesis import strategies as st

import cells_loopback
from cells_loopback.loopback_login.options import LoginOptions, LoginPlan
from cells_loopback.protocol.client import CELLS_CLIENT, authenticate_client
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT = "ory_at_c0ffee-and-nobody-else"


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        pprint.pformat,
        "{}".format,
        "{!r}".format,
        "{:>40}".format,
        lambda secret: f"{secret} {secret!r} {secret!s}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - as loggers do it
        lambda secret: repr([secret]) + repr({"a": secret}),
    ],
)
def test_no_way_of_printing_shows_it(show: Callable[[Secret], str]) -> None:
    assert TEXT not in show(Secret(TEXT))
    assert "***" in show(Secret(TEXT))


def test_what_is_printed_does_not_depend_on_it() -> None:
    assert repr(Secret("")) == repr(Secret("a")) == repr(Secret("a" * 99))


def test_it_is_taken_out_by_name() -> None:
    assert Secret(TEXT).reveal() == TEXT


def test_a_log_line_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("cells_loopback").debug("token %s of %r", Secret(TEXT), {"token": Secret(TEXT)})
    assert TEXT not in caplog.text


def test_a_traceback_with_the_values_of_variables_does_not_show_it() -> None:
    def fail(secret: Secret) -> None:
        raise ValueError(f"not {secret}")

    try:
        fail(Secret(TEXT))
    except ValueError as error:
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "secret = Secret(***)" in told
    assert TEXT not in told


@pytest.mark.parametrize(
    "carry",
    [pickle.dumps, copy.copy, copy.deepcopy, json.dumps],
    ids=["pickle", "copy", "deepcopy", "json"],
)
def test_it_is_not_carried_away(carry: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError):
        carry(Secret(TEXT))


def test_its_attributes_cannot_be_listed() -> None:
    with pytest.raises(TypeError):
        vars(Secret(TEXT))


@given(st.text(), st.text())
def test_two_are_equal_when_their_texts_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) == (one == other)
    assert (Secret(one) != Secret(other)) == (one != other)
    assert hash(Secret(one)) == hash(Secret(one))


def test_a_text_from_a_damaged_file_can_be_compared() -> None:
    assert Secret("\udcff") == Secret("\udcff")
    assert Secret("\udcff") != Secret("\ud800")


def test_it_is_equal_to_no_plain_text() -> None:
    assert Secret(TEXT) != TEXT
    assert {TEXT}.isdisjoint({Secret(TEXT)})


def test_an_empty_one_counts_as_none() -> None:
    assert not Secret("")
    assert Secret("0")


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(cells_loopback.__path__, "cells_loopback."):
        if not found.name.endswith("__main__") and ".integrations." not in found.name:
            yield importlib.import_module(found.name)


def records() -> list[type[Any]]:
    """Every dataclass of the package, each once."""
    return sorted(
        {
            value
            for module in modules()
            for value in vars(module).values()
            if isinstance(value, type)
            and dataclasses.is_dataclass(value)
            and value.__module__ == module.__name__
        },
        key=lambda kind: kind.__qualname__,
    )


def secret_fields(kind: type[Any]) -> list[str]:
    """The fields whose annotation, a text in this package, names `Secret`."""
    return [field.name for field in dataclasses.fields(kind) if re.search(r"\bSecret\b", str(field.type))]


WITH_SECRETS = [kind for kind in records() if secret_fields(kind)]
EXAMPLES: list[Any] = [
    TOKENS,
    dataclasses.replace(TOKENS, id_token=Secret("the-id-token")),
    REQUEST,
    RESPONSE,
    PROFILE,
    dataclasses.replace(CELLS_CLIENT, client_secret=Secret("the-client-secret")),
    authenticate_client(
        dataclasses.replace(CELLS_CLIENT, client_secret=Secret("the-client-secret")), REQUEST.metadata
    ),
    authenticate_client(
        dataclasses.replace(CELLS_CLIENT, client_secret=Secret("the-client-secret")),
        dataclasses.replace(REQUEST.metadata, token_endpoint_auth_methods_supported=("client_secret_post",)),
    ),
    LoginOptions(client_secret=Secret("the-client-secret")),
    LoginPlan("p", PROFILE.site, False, CELLS_CLIENT, PROFILE.settings, PROFILE),
]


def test_the_records_with_secrets_are_found() -> None:
    assert {"TokenSet", "AuthorizationRequest", "AuthorizationResponse", "ClientRegistration"} <= {
        kind.__name__ for kind in WITH_SECRETS
    }


@pytest.mark.parametrize("kind", WITH_SECRETS, ids=lambda kind: kind.__qualname__)
def test_no_record_prints_the_secrets_it_is_made_with(kind: type[Any]) -> None:
    blank = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(blank, field.name, None)
    for name in secret_fields(kind):
        object.__setattr__(blank, name, Secret(TEXT))
    assert TEXT not in repr(blank)
    assert TEXT not in str(blank)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in records() if ".testing." not in kind.__module__],
    ids=lambda kind: kind.__qualname__,
)
def test_what_is_named_like_a_secret_is_one_or_is_not_printed(kind: type[Any]) -> None:
    telling = ("secret", "verifier", "password", "nonce", "_token", "access_key")
    for field in dataclasses.fields(kind):
        if field.name.endswith(telling):
            assert field.name in secret_fields(kind) or not field.repr, f"{kind.__name__}.{field.name}"


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_no_example_prints_what_it_holds(value: Any) -> None:
    told = repr(value) + str(value) + pprint.pformat(value)
    for secret in _secrets_in(value):
        assert secret not in told


def _secrets_in(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, dict):
        for member in value.values():
            yield from _secrets_in(member)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _secrets_in(getattr(value, field.name))
