"""This machine's side of the browser: a port for the answer, and a browser to open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cells_loopback.desktop.browser import (
    BrowserError,
    describe_browser,
    is_container,
    is_remote,
    this_platform,
    why_no_browser,
)
from cells_loopback.desktop.own_chromium import find_visible_chromium
from cells_loopback.desktop.ssh import host_and_user, ssh_forward_command
from cells_loopback.doctor.finding import ok, problem, warning
from cells_loopback.errors import LoginFailedError
from cells_loopback.loopback.redirect import hold_redirect_uri
from cells_loopback.protocol.client import CELLS_CLIENT
from cells_loopback.store.profiles import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cells_loopback.doctor.finding import Finding
    from cells_loopback.loopback_login.options import LoginPlan


def check_desktop(plan: LoginPlan | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Hold a redirect URI for a moment, exactly as the login does, and see which browser would open.

    Without a plan the login is an ordinary one.
    """
    client = plan.client if plan is not None else CELLS_CLIENT
    preferred = plan.known.redirect_uri if plan is not None and plan.known is not None else None
    settings = plan.settings if plan is not None else Settings()
    port = 0
    try:
        redirect = hold_redirect_uri(client, preferred=preferred)
    except LoginFailedError as error:
        yield problem("port", error)
    else:
        port = redirect.port
        addresses = " and ".join(bound.getsockname()[0] for bound in redirect.sockets)
        redirect.close()
        if redirect.notice:
            yield warning(
                "port",
                f"{redirect.notice} ({redirect.redirect_uri})",
                "none is needed; end that program if the login is to use its port",
            )
        else:
            yield ok("port", f"port {port} is free on {addresses}, for {redirect.redirect_uri}")
    if settings.relogin == "headless":
        yield _judge_chromium(settings.browser, environ)
    else:
        yield _judge_browser(settings.browser, environ, port)


def _judge_chromium(program: str | None, environ: Mapping[str, str]) -> Finding:
    """Say which Chromium would open, in which the keep-alive comes back later."""
    try:
        path = find_visible_chromium(program, environ)
    except BrowserError as error:
        mend = "log in where there is one, or do without: cells-loopback login --relogin notify"
        return warning("browser", f"no Chromium of the profile's own opens here: {error.reason}", mend)
    return ok("browser", f"{path} would open, in a directory of the profile's own")


def _judge_browser(command: str | None, environ: Mapping[str, str], port: int) -> Finding:
    """Say which browser would open, or why none and what to do then; ``port`` is the callback's."""
    reason = why_no_browser(environ, command)
    if reason is not None:
        return warning("browser", f"none opens here: {reason}", _without_browser(environ, port))
    where = _surroundings(environ)
    return ok("browser", f"{describe_browser(command, environ)} would open" + (f" {where}" if where else ""))


def _surroundings(environ: Mapping[str, str]) -> str:
    if is_remote(environ):
        return "on this machine, which you are at over SSH"
    if this_platform(environ) == "wsl":
        return "from WSL"
    return "in this container" if is_container(environ) else ""


def _without_browser(environ: Mapping[str, str], port: int) -> str:
    paste = "cells-loopback login --paste SITE"
    if is_remote(environ) and port:
        forward = ssh_forward_command(port, environ, *host_and_user())
        return f"run this where your browser is, then log in: {forward}; or log in with: {paste}"
    return f"name a graphical one with --browser, or use one on any machine: {paste}"
