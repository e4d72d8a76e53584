"""A person in a real headless Chromium: opens the address, logs in, agrees, and reads the last page.

For ``--browser``: ``python tests/browser/chromium_login.py --user alice --password PASSWORD %s``. What
the person saw goes as JSON to ``--report`` or ``CELLS_LOOPBACK_TEST_BROWSER_REPORT``, once Chromium is
gone. Nothing here knows the pages of one server: a password field is a login page, a page with a button
to agree asks for consent, and what the redirect URI's address shows is the last page.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Locator, Page

# As root in a container; and no look-ups or downloads of Chromium's own, nor of the pages it shows.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE [::1]",
)
AGREE = re.compile(r"allow|authori[sz]e|continue|accept|agree|approve|\byes\b", re.IGNORECASE)
REFUSE = re.compile(r"cancel|deny|refuse|decline|\bno\b", re.IGNORECASE)


@dataclass
class Report:
    """What the person saw and did; times are Unix seconds."""

    finished: bool = False
    url: str = ""
    title: str = ""
    text: str = ""
    history: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    clicks: list[str] = field(default_factory=list)
    last_click_at: float | None = None
    result_at: float | None = None
    console_errors: list[str] = field(default_factory=list)
    screenshot: str = ""


class Person:
    """Goes from page to page as a person does, and remembers it in a `Report`."""

    def __init__(self, page: Page, options: argparse.Namespace) -> None:
        self.page = page
        self.options = options
        self.report = Report()
        # Either the authorization URL itself, or an address of the waiting program that leads there.
        redirect_uri = parse_qs(urlsplit(options.url).query).get("redirect_uri", [options.url])[0]
        self.callback = urlsplit(redirect_uri).netloc
        page.context.on("request", lambda request: self.report.requests.append(request.url))
        page.on("console", self.note_console)

    def note_console(self, message: object) -> None:
        if getattr(message, "type", "") == "error":
            self.report.console_errors.append(str(getattr(message, "text", "")))

    def log_in(self) -> None:
        deadline = time.monotonic() + self.options.timeout
        self.page.goto(self.options.url, wait_until="load")
        while time.monotonic() < deadline and not self.is_refused():
            if self.sees_result():
                self.report.finished = True
                self.report.result_at = time.time()
                return
            if not self.take_step():
                self.page.wait_for_timeout(20)

    def sees_result(self) -> bool:
        self.page.wait_for_load_state("load")
        arrived = urlsplit(self.page.url).netloc == self.callback
        return arrived and self.page.locator("meta[http-equiv=refresh i]").count() == 0

    def take_step(self) -> bool:
        """Do what this page asks for; False where it asks for nothing that a person could do."""
        if self.password_field().count():
            self.fill_form()
            return True
        wanted = REFUSE if self.options.decline else AGREE
        choice = self.page.get_by_role("button", name=wanted).or_(self.page.get_by_role("link", name=wanted))
        if choice.count():
            self.click(choice.first, "refuse" if self.options.decline else "agree")
            return True
        return False

    def password_field(self) -> Locator:
        return self.page.locator("input[type=password]:visible").first

    def is_refused(self) -> bool:
        """Whether the login page is back after the form was sent: a person would ask for help now."""
        return "log in" in self.report.clicks and self.password_field().count() > 0

    def fill_form(self) -> None:
        form = self.page.locator("form", has=self.page.locator("input[type=password]")).first
        name = form.locator("input[type=text], input[type=email], input:not([type])").first
        name.fill(self.options.user)
        self.password_field().fill(self.options.password)
        self.click(form.locator("button:not([type=button]), input[type=submit]").first, "log in")

    def click(self, target: Locator, name: str) -> None:
        self.report.clicks.append(name)
        self.report.last_click_at = time.time()
        with self.page.expect_navigation(wait_until="load"):
            target.click()

    def look_around(self) -> None:
        """Note the page, its address and the browser's history as they are in the end."""
        page, report = self.page, self.report
        report.url = page.url
        report.title = page.title()
        report.text = page.locator("body").inner_text()
        history = page.context.new_cdp_session(page).send("Page.getNavigationHistory")
        report.history = [entry["url"] for entry in history["entries"]]
        if self.options.report:
            report.screenshot = os.path.splitext(self.options.report)[0] + ".png"
            page.screenshot(path=report.screenshot, full_page=True)


@contextmanager
def chromium(options: argparse.Namespace) -> Iterator[BrowserContext]:
    executable = shutil.which("chromium")
    if executable is None:
        sys.exit("chromium is not installed")
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            options.user_data_dir or directory,
            executable_path=executable,
            args=FLAGS,
            ignore_https_errors=options.insecure,
        )
        context.set_default_timeout(options.timeout * 1000)
        try:
            with kept_session(context, options.user_data_dir):
                yield context
        finally:
            context.close()


@contextmanager
def kept_session(context: BrowserContext, directory: str | None) -> Iterator[None]:
    """Carry over the cookies that last as long as the browser: the person's was never closed."""
    path = os.path.join(directory, "session-cookies.json") if directory else os.devnull
    if directory and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            context.add_cookies(json.load(file))
    yield
    with open(path, "w", encoding="utf-8") as file:
        json.dump([cookie for cookie in context.cookies() if cookie.get("expires") == -1], file)


def write_report(report: Report, path: str) -> None:
    text = json.dumps(asdict(report), indent=2)
    if not path:
        print(text)
        return
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--report", default=os.environ.get("CELLS_LOOPBACK_TEST_BROWSER_REPORT", ""))
    parser.add_argument(
        "--user-data-dir", help="the browser goes on from here; without it each run is a new one"
    )
    parser.add_argument("--decline", action="store_true", help="refuse consent")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for each page and for the whole")
    parser.add_argument("url")
    return parser.parse_args(argv)


def main() -> int:
    options = parse_options()
    with chromium(options) as context:
        person = Person(context.pages[0] if context.pages else context.new_page(), options)
        try:
            person.log_in()
        except PlaywrightError as error:
            print(error, file=sys.stderr)
        person.look_around()
    write_report(person.report, options.report)
    return 0 if person.report.finished else 1


if __name__ == "__main__":
    sys.exit(main())
