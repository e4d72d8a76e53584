"""The pages that the embedded server shows: login, consent, copy-paste, redirect, errors.

Self-contained, in light and dark, usable without JavaScript (but for the redirect by script) and by a
screen reader. Every text from outside is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .accounts import User
    from .answers import ErrorAnswer
    from .grants import AuthorizationRequest

_STYLE = """
:root { color-scheme: light dark; --paper: #f3f5f8; --card: #fff; --ink: #1c2733; --faint: #5a6877;
  --line: #ccd4dd; --accent: #0f6a8b; --on-accent: #fff; --alert: #a3261d; }
@media (prefers-color-scheme: dark) { :root { --paper: #12171d; --card: #1b232c; --ink: #e6ebf0;
  --faint: #9aa8b6; --line: #3a4754; --accent: #6cc3e0; --on-accent: #06212c; --alert: #ff9d92; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 24rem; padding: 2rem; border-radius: 1rem; background: var(--card);
  border: 1px solid var(--line); }
h1 { margin: 0 0 .25rem; font-size: 1.375rem; line-height: 1.25; }
p { margin: 0 0 1.25rem; color: var(--faint); overflow-wrap: anywhere; }
p.alert { color: var(--alert); font-weight: 600; }
label { display: block; margin: 0 0 .25rem; font-weight: 600; }
input, button, code { width: 100%; padding: .625rem .75rem; border-radius: .5rem; font: inherit; }
input { margin: 0 0 1rem; border: 1px solid var(--line); background: transparent; color: inherit; }
button { margin: .5rem 0 0; border: 1px solid var(--accent); background: var(--accent);
  color: var(--on-accent); font-weight: 600; cursor: pointer; }
button.quiet { background: transparent; color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
code { display: block; border: 1px dashed var(--line); font-family: ui-monospace, monospace;
  overflow-wrap: anywhere; user-select: all; }
ul { margin: 0 0 1.25rem; padding-left: 1.25rem; color: var(--faint); }
"""
_SCRIPT = "location.replace(JSON.parse(document.getElementById('redirect').textContent));"


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"


HEADERS = {
    # No form-action: Chromium holds it against the redirect that follows a form, and that one leads away.
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)};"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def render_login(challenge: str, client_name: str, username: str = "", *, failed: bool = False) -> str:
    """Return the login page; a failed login says so and keeps the name."""
    alert = '<p class="alert" role="alert">Wrong user name or password.</p>' if failed else ""
    focus_name, focus_password = ("", " autofocus") if username else (" autofocus", "")
    return _render(
        "Log in",
        f"""<h1>Log in</h1>
<p>{html.escape(client_name)} wants to use your account.</p>
{alert}
<form method="post" action="/login">
<input type="hidden" name="login_challenge" value="{html.escape(challenge)}">
<label for="username">User name</label>
<input id="username" name="username" autocomplete="username" autocapitalize="none" required{focus_name}
 value="{html.escape(username)}">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password"
 required{focus_password}>
<button type="submit">Log in</button>
</form>""",
    )


def render_consent(pending: AuthorizationRequest, client_name: str, user: User) -> str:
    """Return the page on which the person allows or refuses the client."""
    words = "".join(f"<li>{html.escape(word)}</li>" for word in pending.scope.split())
    return _render(
        "Allow access",
        f"""<h1>Allow access?</h1>
<p>{html.escape(client_name)} asks for the account of {html.escape(user.display_name)}, with:</p>
<ul>{words}</ul>
<form method="post" action="/consent">
<input type="hidden" name="login_challenge" value="{html.escape(pending.challenge)}">
<button type="submit" name="consent" value="allow">Allow</button>
<button type="submit" name="consent" value="deny" class="quiet">Deny</button>
</form>""",
    )


def render_oob(code: str, error: str) -> str:
    """Return the page that shows the code, for a program on another machine."""
    if not code:
        reason = html.escape(error or "There is no code here.")
        return _render("No code", f'<h1>No code</h1>\n<p class="alert" role="alert">{reason}</p>')
    return _render(
        "Your code",
        f"""<h1>Your code</h1>
<p>Copy this code and paste it where the program asks for it.</p>
<code id="code">{html.escape(code)}</code>""",
    )


def render_redirect(location: str) -> str:
    """Return a page whose script goes on to an address, as the Cells web page does."""
    data = json.dumps(location).replace("<", "\\u003c")
    return _render(
        "Logging in",
        f"""<h1>Logging in</h1>
<p>One moment, please.</p>
<script type="application/json" id="redirect">{data}</script>
<script>{_SCRIPT}</script>""",
    )


def render_expired() -> str:
    """Return the page for a login request that is unknown, used or older than half an hour."""
    return _render(
        "Too late",
        '<h1>Too late</h1>\n<p class="alert" role="alert">This login request has expired or was already'
        " used. Start again where you came from.</p>",
    )


def render_error(answer: ErrorAnswer) -> str:
    """Return the page for a request that cannot be sent back to its client."""
    return _render(
        "Error",
        f"""<h1>This cannot go on</h1>
<p class="alert" role="alert">{html.escape(answer.error)}</p>
<p>{html.escape(answer.description)} {html.escape(answer.hint)}</p>""",
    )


def render_home(site: str) -> str:
    """Return the page at the root of the server."""
    return _render(
        "Cells-like server",
        f"""<h1>A Cells-like server</h1>
<p>For tests and for trying things out. Nothing here is kept.</p>
<code>cells-loopback login {html.escape(site)}</code>""",
    )


def _render(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
