"""What any answer means before its content is read: a failing server, a redirect, a discovery document."""

from __future__ import annotations

import email.utils
import json
import time

import pytest
from examples import METADATA, NOW, SITE, UPTIME
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import CellsLoopbackError, LoginFailedError, ServerUnavailableError
from cells_loopback.http.answers import (
    Answer,
    judge_metadata,
    parse_date,
    parse_retry_after,
    raise_if_failing,
)
from cells_loopback.protocol.tokens import RequestTime

DOCUMENT = {
    "issuer": METADATA.issuer,
    "authorization_endpoint": METADATA.authorization_endpoint,
    "token_endpoint": METADATA.token_endpoint,
}


def answered(status: int, body: bytes = b"", server_date: float | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body, RequestTime(NOW, UPTIME, server_date))


def judged(answer: Answer) -> CellsLoopbackError:
    with pytest.raises(CellsLoopbackError) as caught:
        judge_metadata(SITE, answer)
    return caught.value


# The body


NO_OBJECTS = {
    "nothing": b"",
    "HTML": b"<html><body>502 Bad Gateway</body></html>",
    "a list": b"[{}]",
    "a text": b'"x"',
    "a number": b"7",
    "null": b"null",
    "half an object": b'{"a": ',
    "an object and more": b"{} {}",
    "not UTF-8": b'{"a": "\xff"}',
    "deeply nested lists": b"[" * 200_000 + b"]" * 200_000,
    "deeply nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "zeros": b"\x00" * 1000,
}


@pytest.mark.parametrize("body", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_a_body_that_is_no_json_object_is_none(body: bytes) -> None:
    assert answered(200, body).json_object() is None


def test_a_number_of_a_million_digits_is_none_and_costs_nothing_else() -> None:
    body = b'{"a": ' + b"9" * 900_000 + b', "b": 1}'
    assert answered(200, body).json_object() == {"a": None, "b": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_a_body_in_any_encoding_of_json_is_read(encoding: str) -> None:
    assert answered(200, '{"a": "ü"}'.encode(encoding)).json_object() == {"a": "ü"}


def test_an_answer_shows_neither_its_body_nor_its_headers() -> None:
    shown = repr(answered(200, b"the-secret-body", location="/?code=the-secret-code"))
    assert "200" in shown
    assert "secret" not in shown


# A server that is failing


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_passes_by_itself_is_a_server_that_is_failing(status: int) -> None:
    error = judged(answered(status))
    assert isinstance(error, ServerUnavailableError)
    assert error.code == f"status_{status}"
    assert error.message == f"https://files.example.com is failing: it answers {status}"
    assert error.hint == "nothing is lost: try again later"
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("status", "lost"), [(500, True), (502, True), (504, True), (503, False), (429, False)]
)
def test_only_a_gateway_may_have_passed_the_request_on(status: int, lost: bool) -> None:
    with pytest.raises(ServerUnavailableError) as caught:
        raise_if_failing(SITE, answered(status))
    assert caught.value.answer_lost is lost


@pytest.mark.parametrize("status", [200, 201, 204, 302, 400, 401, 403, 404, 409, 418])
def test_any_other_status_is_for_others_to_judge(status: int) -> None:
    raise_if_failing(SITE, answered(status, retry_after="7"))


def test_what_a_failing_server_asks_for_is_told() -> None:
    error = judged(answered(503, retry_after="7"))
    assert isinstance(error, ServerUnavailableError)
    assert error.retry_after == 7.0
    assert error.message.endswith("it answers 503 and asks to wait 7 s")


def test_a_wait_of_no_seconds_is_none_to_tell() -> None:
    error = judged(answered(503, retry_after="0"))
    assert isinstance(error, ServerUnavailableError)
    assert error.retry_after == 0.0
    assert error.message.endswith("it answers 503")


@pytest.mark.parametrize(("server_date", "wait"), [(None, 60.0), (NOW + 40, 20.0)])
def test_a_date_to_come_back_at_is_by_the_servers_clock_where_that_is_known(
    server_date: float | None, wait: float
) -> None:
    date = email.utils.formatdate(NOW + 60, usegmt=True)
    error = judged(answered(503, server_date=server_date, retry_after=date))
    assert isinstance(error, ServerUnavailableError)
    assert error.retry_after == wait


RETRY_AFTER = {
    "seconds": ("7", 7.0),
    "no seconds": ("0", 0.0),
    "spaces": (" 7 ", 7.0),
    "very many": ("9" * 50, 999_999_999.0),
    "a date": (email.utils.formatdate(NOW + 30, usegmt=True), 30.0),
    "a date just now": (email.utils.formatdate(NOW, usegmt=True), 0.0),
    "a date gone by": (email.utils.formatdate(NOW - 30, usegmt=True), 0.0),
    "nothing": (None, None),
    "an empty text": ("", None),
    "negative": ("-7", None),
    "a fraction": ("1.5", None),
    "words": ("soon", None),
    "other digits": ("²", None),
    "Arabic digits": ("\u0667", None),
    "a date that cannot be": ("Fri, 99 Jan 2027 99:00:00 GMT", None),
}


@pytest.mark.parametrize(("value", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
def test_a_server_may_say_when_to_come_back(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


def test_a_date_is_an_instant_or_nothing() -> None:
    assert parse_date("Fri, 15 Jan 2027 08:00:00 GMT") == NOW
    assert parse_date(None) is None
    assert parse_date("yesterday") is None


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows takes its zone from elsewhere")
@pytest.mark.parametrize(
    "value",
    ["Fri, 15 Jan 2027 08:00:00 GMT", "Friday, 15-Jan-27 08:00:00 GMT", "Fri Jan 15 08:00:00 2027"],
    ids=["IMF-fixdate", "RFC 850", "asctime"],
)
def test_each_form_of_a_date_is_in_utc_wherever_we_are(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "XXX-5")
        time.tzset()
        date = parse_date(value)
    time.tzset()
    assert date == NOW


@given(st.text(max_size=40))
def test_any_date_is_a_date_or_none(value: str) -> None:
    date = parse_date(value)
    assert date is None or isinstance(date, float)
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or seconds >= 0


# The discovery document


def test_a_discovery_document_is_read() -> None:
    metadata = judge_metadata(SITE, answered(200, json.dumps(DOCUMENT).encode()))
    assert metadata.issuer == METADATA.issuer
    assert metadata.token_endpoint == METADATA.token_endpoint


NOT_CELLS: dict[str, tuple[Answer, str]] = {
    "another page": (answered(200, b"<html>Welcome</html>"), "it answers, but not with a discovery document"),
    "no page": (answered(404), "it answers 404 where its discovery document should be"),
    "a page for somebody": (answered(401), "it answers 401 where"),
    "nothing": (answered(204), "it answers 204 where"),
    "an informational status": (answered(199), "it answers 199 where"),
    "the first error": (answered(400, location="https://cells.example.com/"), "it answers 400 where"),
    "a redirect within": (answered(301, location="https://files.example.com/x"), "it redirects where"),
    "a relative redirect": (answered(302, location="/login"), "it redirects where"),
    "a redirect to nowhere": (answered(307), "it redirects where"),
    "a choice": (answered(300), "it redirects where"),
}


@pytest.mark.parametrize(("answer", "told"), NOT_CELLS.values(), ids=NOT_CELLS)
def test_anything_else_is_no_cells_server(answer: Answer, told: str) -> None:
    error = judged(answer)
    assert isinstance(error, LoginFailedError)
    assert error.code == "not_a_cells_server"
    assert error.message.startswith(f"https://files.example.com is not a Cells server: {told}")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_a_redirect_to_another_site_names_it(status: int) -> None:
    error = judged(answered(status, location="https://Cells.example.com:8443/login?x"))
    assert isinstance(error, LoginFailedError)
    assert error.code == "redirected"
    assert error.message == "https://files.example.com redirects to https://cells.example.com:8443"
    assert "cells-loopback login https://cells.example.com:8443" in (error.hint or "")
