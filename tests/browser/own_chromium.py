"""Stands in for the program of a profile's own Chromium: a person at its window, a real one without.

Named on ``--browser``, it is given Chromium's options. With ``--headless=new`` among them it becomes that
Chromium. Otherwise it is the window, in which a person logs in as ``PERSON_NAME`` / ``PERSON_PASSWORD``;
played without a screen, on the same directory.
"""

from __future__ import annotations

import os
import shutil
import sys

from playwright.sync_api import sync_playwright

QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")


def main(options: list[str]) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed")
    if "--headless=new" in options:
        os.execv(chromium, [chromium, *QUIET, *options])
    *options, url = options
    [directory] = [option.partition("=")[2] for option in options if option.startswith("--user-data-dir=")]
    rest = [option for option in options if not option.startswith("--user-data-dir=")]
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            directory, executable_path=chromium, args=[*QUIET, *rest]
        )
        page = context.pages[0]
        page.goto(url, wait_until="load")
        page.locator("input[name=username]").fill(os.environ["PERSON_NAME"])
        page.locator("input[name=password]").fill(os.environ["PERSON_PASSWORD"])
        page.locator("button").first.click()
        page.get_by_text("You are logged in").wait_for()
        context.close()


if __name__ == "__main__":
    main(sys.argv[1:])
