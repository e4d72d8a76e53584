"""The one page a person sees in the browser: how the login ended, and what to do next.

A page is a value, `ResultPage`, made by the function named after its kind and turned into bytes by
`render_page`. It is a single document: no script, no form, nothing loaded from anywhere, so the
headers of `security_headers` can forbid all of that. Every text in it is treated as hostile,
whoever wrote it. When a page is shown, and whether what it says is true, is for others to decide.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["success", "failure", "rejected", "waiting"]


@dataclass(frozen=True)
class ResultPage:
    """What one page says.

    ``message`` and ``hint`` are sentences of ours; in them `` `code` `` is set as code. ``error`` is
    the server's own words, in whatever language. ``user`` and ``site`` tell who logged in where.
    ``app_name`` is the program to return to; empty means the terminal.
    """

    outcome: Outcome
    title: str
    message: str = ""
    hint: str = ""
    user: str = ""
    site: str = ""
    app_name: str = ""
    error: str = ""


def success(site: str, user: str = "", *, app_name: str = "", hint: str = "") -> ResultPage:
    """Return the page for a login whose session is on disk; ``hint`` is a warning to go with it."""
    return ResultPage("success", "You are logged in", hint=hint, user=user, site=site, app_name=app_name)


def failure(
    message: str, hint: str = "", *, error: str = "", site: str = "", app_name: str = ""
) -> ResultPage:
    """Return the page for a login that has ended without a session."""
    return ResultPage("failure", "The login failed", message, hint, site=site, app_name=app_name, error=error)


def rejected(reason: str) -> ResultPage:
    """Return the page for a request that is not this login's answer; the login itself goes on.

    ``reason`` is a word of the ``callback_rejected`` event, or a sentence.
    """
    hint = "The login is still waiting. Go on in the tab that it opened, or start it again in your terminal."
    return ResultPage("rejected", "This is not the login", _REJECTIONS.get(reason, reason), hint)


def already_used() -> ResultPage:
    """Return the page for an address that has done its work: a second opening, a page reloaded late."""
    message = "This address was good for one login, and that has been used."
    return ResultPage("rejected", "Nothing left to do here", message, "Your terminal tells how it ended.")


def waiting(site: str) -> ResultPage:
    """Return the page for a login that is not decided yet."""
    message = "This takes a moment. Reload the page to see how it went."
    return ResultPage("waiting", "Still logging in", message, site=site)


def render_page(page: ResultPage) -> bytes:
    """Return the whole document in UTF-8, to be sent with `security_headers`."""
    role = "alert" if page.outcome in {"failure", "rejected"} else "status"
    body = "\n".join(
        filter(None, (_announcement(page), _server_words(page), _next_step(page), _return(page)))
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="theme-color" content="#f4f3f0" media="(prefers-color-scheme: light)">
<meta name="theme-color" content="#121214" media="(prefers-color-scheme: dark)">
<link rel="icon" href="{_icon(page.outcome)}">
<title>{_document_title(page)}</title>
<style>{STYLE}</style>
</head>
<body class="{page.outcome}">
<main tabindex="-1" autofocus>
{_MARK.format(sign=_SIGNS[page.outcome])}
<div class="news" role="{role}">
{body}
</div>
</main>
<footer>This page comes from cells-loopback, not from the web</footer>
</body>
</html>
""".encode()


def security_headers(document: bytes = b"") -> dict[str, str]:
    """Return the headers that a page is sent with: it may style itself and nothing else.

    ``document`` is a page that another program has rendered, whose own styles are then the ones allowed.

    The page follows a URL that held a code, so it is neither stored nor named to others
    (RFC 9700 section 4.2.4); no other page may frame, open or embed it.
    """
    styles = " ".join(_hash_source(style) for style in _STYLE_ELEMENT.findall(document)) or _STYLE_HASH
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": (
            # img-src is for the icon in the page itself: without one Chromium asks for /favicon.ico.
            f"default-src 'none'; style-src {styles}; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), usb=()",
    }


def _icon(outcome: Outcome) -> str:
    svg = _ICON.format(colour=_ICON_COLOURS[outcome], sign=_SIGNS[outcome])
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _announcement(page: ResultPage) -> str:
    who = f'<p class="who">{_who(page)}</p>' if page.user or page.site else ""
    message = _paragraph(page.message) if page.message else ""
    return "\n".join(filter(None, (f"<h1>{_text(page.title)}</h1>", who, message)))


def _who(page: ResultPage) -> str:
    site = f"<bdi>{_text(page.site)}</bdi>" if page.site else ""
    if not page.user:
        return site
    user = f"<bdi><b>{_text(page.user)}</b></bdi>"
    return f"{user} at {site}" if site else user


def _server_words(page: ResultPage) -> str:
    if not page.error:
        return ""
    return f'<h2>The server said</h2>\n<blockquote dir="auto">{_text(page.error)}</blockquote>'


def _next_step(page: ResultPage) -> str:
    if not page.hint:
        return ""
    heading = "<h2>What to do</h2>\n" if page.outcome == "failure" else ""
    return heading + _paragraph(page.hint)


def _return(page: ResultPage) -> str:
    if page.outcome not in {"success", "failure"}:
        return ""
    place = f"<bdi>{_text(page.app_name)}</bdi>" if page.app_name else "your terminal"
    return f'<p class="return">You can close this tab and return to {place}.</p>'


def _document_title(page: ResultPage) -> str:
    return _text(f"{page.title} - {page.site}" if page.site else page.title)


def _paragraph(text: str) -> str:
    # In a terminal our sentences begin as git's do, here with a capital, which an address has not.
    word = text.partition(" ")[0].rstrip(",:;")
    kind = ' class="sentence"' if word.isalpha() else ""
    return f"<p{kind}>{_prose(text)}</p>"


def _prose(text: str) -> str:
    """Escape one of our sentences and set what stands between backticks as code."""
    parts = _text(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is only a backtick
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))


def _text(text: str) -> str:
    """Return ``text`` as one line that is only text in HTML, element or attribute.

    Control, format, bidirectional and unassigned characters and lone surrogates are not printable,
    and are dropped: none of them is needed to read a message, and each has been used to forge one.
    """
    spaced = "".join(" " if char.isspace() else char for char in text[: 4 * _LONGEST_TEXT])
    line = " ".join("".join(char for char in spaced if char.isprintable()).split())
    return html.escape(line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 1] + "…")


_LONGEST_TEXT = 1_000  # characters: what a person may read, whatever a server sends

_REJECTIONS = {
    "state_mismatch": "The address belongs to another login than the one that is waiting here.",
    "state_missing": "The address does not tell which login it belongs to.",
    "not_found": "There is no such page: all that is awaited here is the end of a login.",
    "method_not_allowed": "This address can only be opened, not sent to.",
    "wrong_host": "The request names another host than the one that listens here.",
    "malformed": "The address is not one that a login ends at.",
    "internal_error": "This request could not be answered.",
    "not_a_navigation": "This address is to be opened by a person, not used by a page.",
    "prefetch": "This address is to be opened by a person, not loaded in advance.",
    "repeated_parameter": "The address says the same thing twice.",
    "request_timeout": "The request took too long.",
    "too_large": "The request is too large.",
}

# A hexagonal cell with a sign in it. Decoration: what it means is said in the heading.
_MARK = """<svg class="mark" viewBox="0 0 64 64" width="72" height="72" aria-hidden="true" focusable="false">
<path class="cell" d="M32 6 54.5 19v26L32 58 9.5 45V19z"/>
<path class="sign" pathLength="1" d="{sign}"/>
</svg>"""
_ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" stroke-linejoin="round">
<path fill="{colour}" stroke="{colour}" stroke-width="8" d="M32 6 54.5 19v26L32 58 9.5 45V19z"/>
<path fill="none" stroke="#fff" stroke-width="7" stroke-linecap="round" d="{sign}"/></svg>"""
_ICON_COLOURS: dict[Outcome, str] = {
    "success": "#1a9160",
    "failure": "#d1443b",
    "rejected": "#a86a10",
    "waiting": "#a86a10",
}
_SIGNS: dict[Outcome, str] = {
    "success": "m21.5 33 7.5 7.5 14-16",
    "failure": "m24 24 16 16M40 24 24 40",
    "rejected": "M32 20v15M32 43.2v.1",
    "waiting": "M22 32h.1M32 32h.1M42 32h.1",
}

STYLE = """
:root{color-scheme:light dark;--paper:#f4f3f0;--card:#fff;--ink:#1c1b1a;--soft:#5e5a55;--line:#e4e1dc;
--good:#12754a;--bad:#b3261e;--odd:#8a5300}
@media (prefers-color-scheme:dark){:root{--paper:#121214;--card:#1b1b1f;--ink:#f1efec;--soft:#aaa5a0;
--line:#303036;--good:#5ed39b;--bad:#ff8f85;--odd:#f2bd62}}
*{box-sizing:border-box;margin:0}
body{--accent:var(--good);min-height:100vh;min-height:100svh;display:grid;grid-template-rows:1fr auto 1.4fr;
justify-items:center;padding:1.25rem;background:var(--paper);color:var(--ink);
font:1.0625rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
-webkit-text-size-adjust:100%;overflow-wrap:anywhere}
.failure{--accent:var(--bad)}
.rejected,.waiting{--accent:var(--odd)}
main{grid-row:2;width:100%;max-width:32rem;padding:2.75rem 3rem;background:var(--card);
border:1px solid var(--line);border-radius:1.5rem;outline:0;scroll-margin-top:5rem;
box-shadow:0 1px 2px rgb(0 0 0/.04),0 1.5rem 3rem -1.5rem rgb(0 0 0/.14)}
.mark{display:block;margin:0 0 1.5rem -.35rem;color:var(--accent);overflow:visible}
.cell{fill:currentColor;stroke:currentColor;stroke-width:8;stroke-linejoin:round;opacity:.13}
.sign{fill:none;stroke:currentColor;stroke-width:4.5;stroke-linecap:round;stroke-linejoin:round}
h1{font-size:1.75rem;line-height:1.2;font-weight:650;letter-spacing:-.015em;text-wrap:balance}
h2{margin-top:1.75rem;font-size:.875rem;line-height:1.4;font-weight:600;color:var(--soft)}
p{margin-top:.75rem;text-wrap:pretty}
h2+p{margin-top:.25rem}
.sentence::first-letter{text-transform:uppercase}
.who{color:var(--soft)}
.who b{font-weight:600;color:var(--ink)}
.return{margin-top:1.75rem;padding-top:1.5rem;border-top:1px solid var(--line)}
blockquote{margin-top:.5rem;padding:.125rem 0 .125rem 1rem;border-inline-start:3px solid var(--accent);
text-align:start}
code{display:inline-block;max-width:100%;padding:0 .4em;border-radius:.35em;background:var(--paper);
font:.9em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
footer{grid-row:3;align-self:end;padding-top:2rem;font-size:.875rem;color:var(--soft);
text-align:center;text-wrap:balance}
@media (max-width:34rem){body{padding:0 0 1.25rem;background:var(--card);grid-template-rows:auto auto 1fr}
main{padding:3.5rem 1.5rem 0;border:0;border-radius:0;box-shadow:none}
footer{padding:2rem 1.5rem 0}}
@media (prefers-reduced-motion:no-preference){
main{animation:rise .5s cubic-bezier(.2,.7,.2,1) both}
.success .sign{stroke-dasharray:1;animation:draw .45s .3s ease-out both}
@keyframes rise{from{opacity:0;transform:translateY(.5rem)}}
@keyframes draw{from{stroke-dashoffset:1}}}
@media (forced-colors:active){.mark{color:CanvasText}}
"""

_STYLE_ELEMENT = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


def _hash_source(style: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(style).digest()).decode()}'"


_STYLE_HASH = _hash_source(STYLE.encode())
