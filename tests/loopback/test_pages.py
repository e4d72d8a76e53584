"""The result page tells its text and nothing else, loads nothing, and is readable by everybody."""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requires import require_program, thorough

from cells_loopback.loopback.pages import (
    ResultPage,
    already_used,
    failure,
    rejected,
    render_page,
    security_headers,
    success,
    waiting,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

ANYTHING = st.text(alphabet=st.characters(exclude_categories=()))
PAGES = {
    "success": success("files.example.com", "alice"),
    "success for an app": success(
        "files.example.com", "alice", app_name="Importer", hint="This server does not bind PKCE."
    ),
    "failure": failure("No code came back.", "Run `cells-loopback login` again."),
    "failure in the server's words": failure(
        "The server refused.",
        "Accept it.",
        error="رفض مالك المورد الطلب. " + "x" * 600,
        site="files.example.com",
    ),
    "rejected": rejected("state_mismatch"),
    "already used": already_used(),
    "waiting": waiting("files.example.com"),
}
every_page = pytest.mark.parametrize("page", [pytest.param(page, id=name) for name, page in PAGES.items()])


class Document(HTMLParser):
    """The elements of a page and its text, by the standard library's parser."""

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(document.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._inside:
            self.text += data

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def style_of(document: bytes) -> bytes:
    found = re.search(rb"<style>(.*?)</style>", document, re.DOTALL)
    assert found is not None
    return found[1]


# --- what it says


def test_success_tells_who_is_logged_in_where_and_what_to_do() -> None:
    text = Document(render_page(success("files.example.com", "alice"))).text
    assert "You are logged in" in text
    assert "alice at files.example.com" in text
    assert "You can close this tab and return to your terminal." in text


def test_success_without_a_name_still_tells_the_site() -> None:
    text = Document(render_page(success("files.example.com"))).text
    assert " at " not in text
    assert "files.example.com" in text


def test_a_name_without_a_site_stands_alone() -> None:
    assert "\nalice\n" in Document(render_page(ResultPage("success", "Logged in", user="alice"))).text


def test_the_application_is_named_when_there_is_one() -> None:
    text = Document(render_page(success("files.example.com", "alice", app_name="Photo Importer"))).text
    assert "You can close this tab and return to Photo Importer." in text


def test_a_failure_tells_what_happened_the_servers_words_and_what_to_do() -> None:
    page = failure("The server refused.", "Run `cells-loopback login` again.", error="access <denied>")
    document = Document(render_page(page))
    for words in (
        "The login failed",
        "The server refused.",
        "access <denied>",
        "Run cells-loopback login again.",
    ):
        assert words in document.text
    assert "code" in document.tags()


def test_a_rejected_request_is_told_that_the_login_goes_on() -> None:
    text = Document(render_page(rejected("state_mismatch"))).text
    assert "The address belongs to another login" in text
    assert "The login is still waiting." in text
    assert "close this tab" not in text


def test_a_reason_without_words_of_its_own_is_shown_as_it_is() -> None:
    assert "The sun was in its eyes." in Document(render_page(rejected("The sun was in its eyes."))).text


def test_only_a_finished_login_sends_the_person_away() -> None:
    assert "close this tab" not in Document(render_page(waiting("files.example.com"))).text
    assert "close this tab" not in Document(render_page(already_used())).text


@pytest.mark.parametrize(
    ("message", "is_sentence"),
    [("the server refused", True), ("refused, it said", True), ("https://files.example.com fails", False)],
)
def test_a_message_begins_with_a_capital_unless_it_begins_with_an_address(
    message: str, is_sentence: bool
) -> None:
    document = Document(render_page(failure(message)))
    assert (("p", {"class": "sentence"}) in document.elements) is is_sentence
    assert message in document.text


def test_a_lone_backtick_is_a_backtick() -> None:
    document = Document(render_page(failure("It said `.")))
    assert "It said `." in document.text
    assert "code" not in document.tags()


# --- hostile texts


@given(ANYTHING, st.sampled_from(["title", "message", "hint", "user", "site", "app_name", "error"]))
def test_no_text_becomes_markup(text: str, field: str) -> None:
    def shape(words: str) -> list[tuple[str, dict[str, str | None]]]:
        elements = Document(render_page(ResultPage("failure", **{"title": "t", field: words}))).elements
        # What begins with a word is shown with a capital; nothing else depends on what is said.
        return [(tag, {k: v for k, v in attrs.items() if v != "sentence"}) for tag, attrs in elements]

    assert shape("x" + text.replace("`", "")) == shape("x")


@given(ANYTHING)
def test_no_control_format_or_direction_character_reaches_the_page(text: str) -> None:
    document = render_page(
        ResultPage("failure", text, message=text, hint=text, user=text, site=text, app_name=text, error=text)
    ).decode()
    assert {unicodedata.category(char) for char in document.replace("\n", "")} & {
        "Cc",
        "Cf",
        "Cs",
        "Co",
    } == set()


def test_text_is_kept_word_for_word_but_for_line_breaks() -> None:
    words = "Refus\u00e9 \u2014 <b>\u201cnon\u201d</b> & 'jamais' \U0001f642"
    assert words in Document(render_page(failure("m", error=words.replace(" ", " \r\n\t")))).text


def test_a_server_cannot_flood_the_page() -> None:
    document = render_page(failure("m", error="<" * 5_000_000))
    assert len(document) < 20_000
    assert "…" in document.decode()


# --- the headers


@every_page
def test_the_policy_allows_the_style_of_every_page_and_nothing_else(page: ResultPage) -> None:
    digest = b64encode(hashlib.sha256(style_of(render_page(page))).digest()).decode()
    assert security_headers()["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def test_the_headers_keep_the_page_from_caches_referrers_frames_and_openers() -> None:
    headers = security_headers()
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Content-Type"] == "text/html; charset=utf-8"


@every_page
def test_there_is_no_script_no_form_no_inline_style_and_no_address_to_load(page: ResultPage) -> None:
    document = Document(render_page(page))
    assert set(document.tags()) & {"script", "form", "iframe", "img", "object", "embed", "base", "a"} == set()
    for tag, attributes in document.elements:
        assert not any(name.startswith("on") or name in {"style", "src"} for name in attributes), tag
    assert [attributes["href"] for tag, attributes in document.elements if "href" in attributes] == [
        icon(document)
    ]


def icon(document: Document) -> str:
    """Return the page's icon, a picture that is whole in itself."""
    [link] = [attributes for tag, attributes in document.elements if tag == "link"]
    href = link["href"] or ""
    assert b"<svg" in b64decode(href.removeprefix("data:image/svg+xml;base64,"))
    return href


# --- in a real browser


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The pages on a real loopback server, with their headers."""
    names = list(PAGES)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = self.path.removeprefix("/")
            document = render_page(PAGES[names[int(number)]]) if number.isdecimal() else b""
            self.send_response(200 if document else 404)
            for header, value in security_headers().items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it so)
            asked.append(self.path)

    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
    assert "/favicon.ico" not in asked


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = require_program("chromium")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=quiet)
        yield browser
        browser.close()


def opened(context: BrowserContext, origin: str, name: str) -> Page:
    page = context.new_page()
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{origin}/{list(PAGES).index(name)}")
    return page


@thorough
def test_chromium_shows_every_page_without_violation_error_or_further_request(
    chromium: Browser, origin: str
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    complaints: list[str] = []
    requests: list[str] = []
    pages = [context.new_page() for _ in PAGES]
    for number, page in enumerate(pages):
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{origin}/{number}")
    for page in pages:
        page.wait_for_load_state("networkidle")
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:image/svg+xml;")] == [
        f"{origin}/{number}" for number in range(len(PAGES))
    ]


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = colour => {
    const [r, g, b] = [...rgb(colour)].slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (rgb(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    if (!text) continue;
    const element = walker.currentNode.parentElement;
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
    found.push([text, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  const sign = document.querySelector(".sign");
  const [a, b] = [luminance(getComputedStyle(sign).stroke), luminance(behind(sign))];
  return {text: found, sign: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)};
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@thorough
def test_every_text_has_the_contrast_of_wcag_aa_or_better(
    chromium: Browser, origin: str, scheme: Any
) -> None:
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
    for name in PAGES:
        measured = opened(context, origin, name).evaluate(CONTRASTS)
        assert measured["text"]
        assert [pair for pair in measured["text"] if pair[1] < 4.5] == []
        assert measured["sign"] > 3
    context.close()


@pytest.mark.parametrize("width", [320, 390, 1280])
@thorough
def test_no_page_is_wider_than_the_screen(chromium: Browser, origin: str, width: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 640}, bypass_csp=True)
    for name in PAGES:
        page = opened(context, origin, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("window.scrollY") == 0
    context.close()


@thorough
def test_a_screen_reader_finds_one_heading_and_the_news_in_a_live_region(
    chromium: Browser, origin: str
) -> None:
    context = chromium.new_context()
    for name, shown in PAGES.items():
        page = opened(context, origin, name)
        role: Any = "status" if shown.outcome in {"success", "waiting"} else "alert"
        main = page.get_by_role("main")
        assert main.get_by_role(role).get_by_role("heading", level=1).inner_text() == shown.title
        assert page.get_by_role("heading", level=1).count() == 1
        assert page.get_by_role("img").count() == 0
        assert page.locator("html").get_attribute("lang") == "en"
        assert main.evaluate("main => main === document.activeElement")
    context.close()


@thorough
def test_words_that_run_from_right_to_left_do_so(chromium: Browser, origin: str) -> None:
    context = chromium.new_context()
    page = opened(context, origin, "failure in the server's words")
    quote = page.locator("blockquote")
    assert quote.evaluate("quote => getComputedStyle(quote).direction") == "rtl"
    context.close()


@thorough
def test_nothing_moves_for_people_who_asked_for_stillness(chromium: Browser, origin: str) -> None:
    context = chromium.new_context()
    page = opened(context, origin, "success")
    assert page.evaluate("document.getAnimations().length") == 0
    context.close()
