"""What may be written to a person's terminal, and how.

A server's words, a file name or a pasted line can hold escape sequences that move the cursor, rename
the window or hide text. Whatever was not written by this package goes through `safe` first.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ESC = "\x1b"

# Terminals that draw OSC 8 hyperlinks, by a variable that each sets in its children.
# Others mostly ignore the sequence, but a few print it: when in doubt the plain address is better.
_LINKING_PROGRAMS = frozenset({"iTerm.app", "WezTerm", "vscode", "Hyper", "ghostty", "rio", "Tabby", "zed"})
_LINKING_TERMS = ("xterm-kitty", "xterm-ghostty", "alacritty", "foot", "contour", "wezterm")
_LINKING_VARIABLES = ("WT_SESSION", "KONSOLE_VERSION", "KITTY_WINDOW_ID", "DOMTERM")
_LINKING_VTE = 5000  # VTE 0.50, the library of GNOME Terminal and its relatives


def safe(text: str, *, lines: bool = False) -> str:
    r"""Return ``text`` with everything that a terminal would obey, or not show, spelled out.

    Control characters (C0, DEL, C1), bidirectional overrides and isolates, zero-width and other
    format characters, lone surrogates and unassigned code points become escapes such as ``\x1b`` or
    ``\u202e``, so they stay visible. With ``lines`` newlines and tabs are kept; without it a text from
    elsewhere can never look like a line of ours. The result can be encoded in UTF-8.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(char if char.isprintable() or char in kept else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    # Of the spaces only U+0020 counts as printable; a no-break or a thin one does no harm as that.
    if char.isspace() and char >= "\xa0" and char not in "\u2028\u2029":
        return " "
    return char.encode("unicode_escape").decode("ascii")


def hyperlink(url: str, stream_is_tty: bool, environ: Mapping[str, str]) -> str:
    """Return the text that shows ``url``: the unbroken address, clickable as a whole where supported.

    A terminal folds a long address, and many then take only its first row as the link. An OSC 8
    hyperlink around the same text mends that. Do not pass the result through `safe`.
    """
    # The sequence may hold only the characters 32 to 126 (the OSC 8 specification); what else an
    # address holds is no address of ours.
    if not (stream_is_tty and url.isascii() and url.isprintable() and draws_hyperlinks(environ)):
        return safe(url)
    return f"{ESC}]8;;{url}{ESC}\\{url}{ESC}]8;;{ESC}\\"


def draws_hyperlinks(environ: Mapping[str, str]) -> bool:
    """Whether the terminal that these variables describe is known to support OSC 8."""
    forced = environ.get("FORCE_HYPERLINK")
    if forced is not None:
        return forced not in {"", "0"}
    term = environ.get("TERM", "")
    if term == "dumb" or term.startswith(("screen", "tmux")):  # a multiplexer may pass it on, or not
        return False
    vte = environ.get("VTE_VERSION", "")
    return (
        environ.get("TERM_PROGRAM") in _LINKING_PROGRAMS
        or term.startswith(_LINKING_TERMS)
        or any(environ.get(name) for name in _LINKING_VARIABLES)
        or (vte.isdecimal() and int(vte) >= _LINKING_VTE)
    )
