"""A browser without a screen for ``--browser``: notes that it was opened, and perhaps plays the person.

``python tests/browser/link_opener.py --log FILE [--user alice --password PASSWORD] %s``. Without a user
the tab stays as it is: nobody is there to answer.
"""

from __future__ import annotations

import argparse

from cells_loopback.testing.browser import Browser


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("url")
    options = parser.parse_args()
    with open(options.log, "a", encoding="utf-8") as log:
        log.write(options.url + "\n")
    if options.user:
        Browser().sign_in(options.url, options.user, options.password)


if __name__ == "__main__":
    main()
