"""What a person pastes is taken only as the answer to this login, and shown to nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from examples import REQUEST, SITE
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.errors import LoginFailedError
from cells_loopback.loopback_login.pasted import parse_callback_address, wait_for_address, wait_for_code
from cells_loopback.protocol.client import out_of_band_redirect_uri

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URI = REQUEST.redirect_uri
STATE = REQUEST.state.reveal()
ANSWER = f"{URI}?code=c&state={STATE}"
BY_PAGE = replace(REQUEST, redirect_uri=out_of_band_redirect_uri(SITE))

ADDRESSES = {
    "as the browser shows it": (ANSWER, {"code": "c", "state": STATE}),
    "with spaces and a line break": (f"  {ANSWER}\r\n", {"code": "c", "state": STATE}),
    "without its scheme": (ANSWER.removeprefix("http://"), {"code": "c", "state": STATE}),
    "in quotes": (f'"{ANSWER}"', {"code": "c", "state": STATE}),
    "in angle brackets": (f"<{ANSWER}>", {"code": "c", "state": STATE}),
    "with a fragment": (f"{ANSWER}#_=_", {"code": "c", "state": STATE}),
    "an error": (
        f"{URI}?error=access_denied&error_description=no+thanks",
        {
            "error": "access_denied",
            "error_description": "no thanks",
        },
    ),
    "an empty value": (f"{URI}?code=&state=x", {"code": "", "state": "x"}),
    "percent-encoded": (f"{URI}?code=a%2Bb&state=x", {"code": "a+b", "state": "x"}),
    "a question mark in a value": (f"{URI}?code=a?b&state=x", {"code": "a?b", "state": "x"}),
}


@pytest.mark.parametrize(("line", "parameters"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_is_read(line: str, parameters: dict[str, str]) -> None:
    assert parse_callback_address(line, URI) == parameters


NO_ANSWERS = {
    "nothing": "",
    "a word": "hello",
    "the redirect URI alone": URI,
    "an empty query": f"{URI}?",
    "another scheme": ANSWER.replace("http:", "https:"),
    "another host": ANSWER.replace("localhost", "evil.example"),
    "another port": ANSWER.replace("3000", "3001"),
    "another path": ANSWER.replace("/servers/callback", "/callback"),
    "a longer path": ANSWER.replace("/servers/callback", "/servers/callback/x"),
    "a user before the host": ANSWER.replace("//", "//user@"),
    "two codes": f"{ANSWER}&code=d",
    "two states": f"{ANSWER}&state={STATE}",
    "very many parameters": ANSWER + "&a=b" * 50,
    "something in front": f"open {ANSWER}",
    "the query alone": f"?code=c&state={STATE}",
    "the authorization URL": REQUEST.url,
}


@pytest.mark.parametrize("line", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_anything_else_is_none(line: str) -> None:
    assert parse_callback_address(line, URI) is None


@given(st.text(max_size=80) | st.text(max_size=40).map(lambda tail: f"{URI}?{tail}"))
def test_any_line_is_an_address_of_this_login_or_none(line: str) -> None:
    parameters = parse_callback_address(line, URI)
    if parameters is not None:
        assert line.strip().startswith(f"{URI}?")
        assert all(isinstance(value, str) for value in parameters.values())


@given(st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=20), min_size=1, max_size=9))
def test_every_answer_that_a_server_can_write_is_read_back(parameters: dict[str, str]) -> None:
    encodable = {
        name: value
        for name, value in parameters.items()
        if not any("\ud800" <= character <= "\udfff" for character in name + value)
    }
    line = f"{URI}?{urlencode(encodable)}"
    assert parse_callback_address(line, URI) == (encodable or None)


def test_what_was_pasted_does_not_print_itself() -> None:
    parameters = parse_callback_address(ANSWER, URI)
    assert STATE not in repr(parameters) + str(parameters)


async def typed(*lines: str) -> AsyncIterator[str]:
    for line in lines:
        yield line


def test_the_person_is_waited_for_until_the_right_address_comes() -> None:
    rejected: list[int] = []
    lines = ("", "what now?", ANSWER.replace(STATE, "x" * 43), f"{URI}?error=access_denied", ANSWER, "more")
    found = asyncio.run(wait_for_address(REQUEST, typed(*lines), lambda: rejected.append(1)))
    assert found == {"code": "c", "state": STATE}
    assert len(rejected) == 3


def test_when_nobody_types_any_more_the_browser_is_still_waited_for() -> None:
    async def wait() -> None:
        await asyncio.wait_for(wait_for_address(REQUEST, typed("x"), lambda: None), 0.05)

    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        asyncio.run(wait())


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (("ory_ac_the-code\n",), "ory_ac_the-code"),
        (("\n", "  \n", " ory_ac_the-code "), "ory_ac_the-code"),
        ((f"{BY_PAGE.redirect_uri}?code=a-code&state={STATE}",), "a-code"),
    ],
)
def test_the_code_of_the_servers_own_page_belongs_to_the_person_who_asked(
    lines: tuple[str, ...], code: str
) -> None:
    found = asyncio.run(wait_for_code(BY_PAGE, typed(*lines)))
    assert BY_PAGE.validate_response(found).code.reveal() == code
    assert code not in repr(found)


def test_the_address_of_the_servers_own_page_is_judged_by_its_state() -> None:
    line = f"{BY_PAGE.redirect_uri}?code=c&state={'x' * 43}"
    found = asyncio.run(wait_for_code(BY_PAGE, typed(line)))
    assert found["state"] == "x" * 43


@pytest.mark.parametrize("line", ["\udcff\udcfe", "c\x1bode", "cöde"], ids=ascii)
def test_what_no_code_may_hold_is_not_sent(line: str) -> None:
    with pytest.raises(LoginFailedError, match="not a code"):
        asyncio.run(wait_for_code(BY_PAGE, typed(line)))


def test_nobody_pastes_anything() -> None:
    with pytest.raises(LoginFailedError) as caught:
        asyncio.run(wait_for_code(BY_PAGE, typed("", "\n")))
    assert caught.value.exit_code == 5
