"""A browser without a screen: it keeps cookies, follows redirects and fills in forms, over real HTTP.

It understands what the embedded server's pages need, redirects by script included, and no other
JavaScript. One object is one browser: two of them do not share a login.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPResponse

_MAX_REDIRECTS = 20
_MAX_PAGE = 1_000_000
# What a browser leaves alone in an address that somebody else has written (WHATWG URL, "query state").
_LEFT_ALONE = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True)
class Page:
    """Where the browser ended: the address bar, the status, the text, and the addresses before it.

    An address that is not HTTP, such as ``cellsauth://callback``, has the status 0 and no text.
    """

    url: str = field(repr=False)
    status: int
    text: str = field(repr=False)
    history: tuple[str, ...] = field(default=(), repr=False)


class Browser:
    """One browser, with its own cookies; proxies are never used."""

    def __init__(self, ca_file: str | None = None, *, timeout: float = 30) -> None:
        self._timeout = timeout
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            _HTTPSHandler(ca_file),
            urllib.request.HTTPCookieProcessor(self.cookies),
            _AnswerAsItIs(),
        )
        self._opener.addheaders = [
            ("User-Agent", "Mozilla/5.0 (an embedded browser)"),
            ("Accept", "text/html"),
        ]

    def open(self, url: str, form: Mapping[str, str] | None = None) -> Page:
        """Open an address, or submit a form to it, and follow redirects to their end."""
        page = self._fetch(url, form)
        while True:
            location = _find_redirect(page)
            if location is None:
                return page.page
            if len(page.page.history) >= _MAX_REDIRECTS:
                raise RuntimeError(f"more than {_MAX_REDIRECTS} redirects")
            target = urllib.parse.urljoin(page.page.url, location)
            page = self._fetch(target, None, (*page.page.history, page.page.url))

    def sign_in(self, url: str, username: str, password: str, *, consent: str = "allow") -> Page:
        """Open an address and, where there are forms, log in and allow (or ``deny``) the client.

        A browser that is logged in already sees no form. A wrong password ends on the login page.
        """
        page = self.open(url)
        if form := find_form(page, "password"):
            page = self.open(form.action, {**form.fields, "username": username, "password": password})
        if form := find_form(page, "consent"):
            page = self.open(form.action, {**form.fields, "consent": consent})
        return page

    def forget(self) -> None:
        """Forget every cookie."""
        self.cookies.clear()

    def _fetch(self, url: str, form: Mapping[str, str] | None, history: tuple[str, ...] = ()) -> _Fetched:
        # The fragment stays in the browser.
        address, _, _ = urllib.parse.quote(url, safe=_LEFT_ALONE).partition("#")
        if urllib.parse.urlsplit(address).scheme not in {"http", "https"}:
            return _Fetched(Page(url, 0, "", history), "")
        data = None if form is None else urllib.parse.urlencode(form).encode("ascii")
        with self._opener.open(address, data, self._timeout) as answer:
            text = answer.read(_MAX_PAGE).decode(errors="replace")
            redirects = 300 <= answer.status < 400
            location = answer.headers.get("Location", "") if redirects else ""
            return _Fetched(Page(url, answer.status, text, history), location)


@dataclass(frozen=True)
class Form:
    """A form of a page: where it goes, and the fields that have a value."""

    action: str
    fields: dict[str, str]
    names: frozenset[str]


def find_form(page: Page, name: str) -> Form | None:
    """Return the form that has a field or button of this name."""
    reader = _PageReader()
    reader.feed(page.text)
    for action, fields, names in reader.forms:
        if name in names:
            return Form(urllib.parse.urljoin(page.url, action), fields, frozenset(names))
    return None


@dataclass(frozen=True)
class _Fetched:
    page: Page
    location: str


class _HTTPSHandler(urllib.request.HTTPSHandler):
    """Reads the authorities to trust for the first https address: that takes as long as a whole server."""

    def __init__(self, ca_file: str | None) -> None:
        super().__init__(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # which trusts nobody
        self._ca_file = ca_file
        self._trusting: ssl.SSLContext | None = None

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        if self._trusting is None:
            self._trusting = ssl.create_default_context(cafile=self._ca_file)
        return self.do_open(http.client.HTTPSConnection, request, context=self._trusting)


class _AnswerAsItIs(urllib.request.HTTPErrorProcessor):
    """Neither follow redirects nor raise for an error: both are pages."""

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        del request
        return response

    https_response = http_response


class _PageReader(HTMLParser):
    """Finds forms, and the address that a redirect by script goes to."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str], set[str]]] = []
        self.redirect = ""
        self._in_redirect = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append((attributes.get("action", ""), {}, set()))
        elif tag in {"input", "button"} and self.forms and (name := attributes.get("name")):
            self.forms[-1][2].add(name)
            if tag == "input":
                self.forms[-1][1][name] = attributes.get("value", "")
        self._in_redirect = tag == "script" and attributes.get("id") == "redirect"

    def handle_data(self, data: str) -> None:
        if self._in_redirect:
            self.redirect += data


def _find_redirect(fetched: _Fetched) -> str | None:
    if fetched.location:
        return fetched.location
    reader = _PageReader()
    reader.feed(fetched.page.text)
    return str(json.loads(reader.redirect)) if reader.redirect else None
