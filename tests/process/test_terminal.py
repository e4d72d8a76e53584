"""Nothing that somebody else wrote can steer the terminal."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.process.terminal import hyperlink, safe

ANYTHING = st.text(alphabet=st.characters(exclude_categories=()))


@given(ANYTHING)
def test_safe_text_holds_no_character_that_a_terminal_would_obey(text: str) -> None:
    assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in safe(text))


@given(ANYTHING)
def test_safe_text_can_always_be_written(text: str) -> None:
    safe(text).encode()


@given(ANYTHING)
def test_safe_text_is_one_line_unless_lines_are_asked_for(text: str) -> None:
    assert len(safe(text).splitlines()) <= 1
    assert set(safe(text, lines=True)) & set("\r\x1b\x7f\x9b\x00") == set()


@given(ANYTHING)
def test_making_safe_twice_changes_nothing_more(text: str) -> None:
    assert safe(safe(text)) == safe(text)
    assert safe(safe(text, lines=True), lines=True) == safe(text, lines=True)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        pytest.param("refusé 拒绝 🙂", "refusé 拒绝 🙂", id="words of any language"),
        pytest.param("\x1b[2Jgone", r"\x1b[2Jgone", id="clear the screen"),
        pytest.param("\x1b]0;title\x07", r"\x1b]0;title\x07", id="set the window's title"),
        pytest.param("\x9b31mred", r"\x9b31mred", id="a one-character CSI"),
        pytest.param("\x9d52;c;eA==\x9c", r"\x9d52;c;eA==\x9c", id="write the clipboard"),
        pytest.param("over\x08\x08written\x7f", r"over\x08\x08written\x7f", id="backspace and delete"),
        pytest.param("user\u202egnp.exe", r"user\u202egnp.exe", id="right-to-left override"),
        pytest.param("\u2066a\u2069", r"\u2066a\u2069", id="isolates"),
        pytest.param("pay\u200bpal\ufeff", r"pay\u200bpal\ufeff", id="zero width"),
        pytest.param("a\nerror: forged\r", r"a\nerror: forged\r", id="line breaks"),
        pytest.param("a\u2028b", r"a\u2028b", id="line separator"),
        pytest.param("\ud800", r"\ud800", id="half a surrogate pair"),
        pytest.param("\U000e0041", r"\U000e0041", id="tag characters"),
        pytest.param("12\u202f000\xa0files", "12 000 files", id="no-break spaces"),
    ],
)
def test_an_escape_becomes_visible(raw: str, shown: str) -> None:
    assert safe(raw) == shown


def test_lines_and_tabs_stay_when_asked_for() -> None:
    assert safe("a\tb\nc\r\n", lines=True) == "a\tb\nc\\r\n"


URL = "https://files.example.com/oidc/oauth2/auth?client_id=cells-client&state=abc"


@pytest.mark.parametrize(
    "environ",
    [
        {"TERM_PROGRAM": "iTerm.app"},
        {"TERM": "xterm-256color", "VTE_VERSION": "6800"},
        {"TERM": "xterm-kitty"},
        {"TERM": "foot"},
        {"WT_SESSION": "x"},
        {"KONSOLE_VERSION": "220401"},
        {"TERM": "tmux-256color", "FORCE_HYPERLINK": "1"},
    ],
    ids=str,
)
def test_the_address_is_a_link_where_the_terminal_draws_links(environ: dict[str, str]) -> None:
    assert hyperlink(URL, True, environ) == f"\x1b]8;;{URL}\x1b\\{URL}\x1b]8;;\x1b\\"


@pytest.mark.parametrize(
    ("is_tty", "environ"),
    [
        (False, {"TERM_PROGRAM": "iTerm.app"}),
        (True, {}),
        (True, {"TERM": "dumb", "VTE_VERSION": "6800"}),
        (True, {"TERM": "screen.xterm-256color", "TERM_PROGRAM": "vscode"}),
        (True, {"TERM": "xterm", "VTE_VERSION": "4800"}),
        (True, {"TERM": "xterm", "VTE_VERSION": "new"}),
        (True, {"TERM": "xterm-kitty", "FORCE_HYPERLINK": "0"}),
    ],
    ids=str,
)
def test_the_address_is_plain_text_elsewhere(is_tty: bool, environ: dict[str, str]) -> None:
    assert hyperlink(URL, is_tty, environ) == URL


@given(ANYTHING)
def test_no_address_ends_its_own_hyperlink(tail: str) -> None:
    drawn = hyperlink(URL + tail, True, {"FORCE_HYPERLINK": "1"})
    assert drawn.count("\x1b") in {0, 4}


def test_importing_it_loads_nothing_else() -> None:
    code = (
        "import sys, __future__, cells_loopback.process; before = set(sys.modules)\n"
        "import cells_loopback.process.terminal; print(sorted(set(sys.modules) - before))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout == "['cells_loopback.process.terminal']\n"
