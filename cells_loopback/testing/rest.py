"""A little of the Cells REST API, and some endpoints that only exist to test clients with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from aiohttp import web

from .oidc import read_bearer

if TYPE_CHECKING:
    from .accounts import User
    from .provider import Provider

_WORDS = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


class RestEndpoints:
    """``/a/...``: bearer tokens of both kinds, errors in JSON.

    ``/a/test/echo`` answers any method with what it received, ``/a/test/status/CODE`` with that status,
    and ``/a/test/redirect?to=URL`` with a redirect to anywhere.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these endpoints."""
        return [
            web.get("/a/config/ctl", self.config_ctl),
            web.get("/a/frontend/state", self.frontend_state),
            web.get("/a/user/{login}", self.user),
            web.route("*", "/a/test/echo", self.echo),
            web.route("*", "/a/test/status/{code:[2-5][0-9][0-9]}", self.status),
            web.route("*", "/a/test/redirect", self.redirect),
            web.route("*", "/a/{path:.*}", self.not_found),
        ]

    async def config_ctl(self, request: web.Request) -> web.Response:
        """List the server's services; for administrators."""
        if not self._authorize(request).admin:
            raise _refuse(403, "You are not allowed to access this resource")
        service = {"Name": "pydio.rest.config", "Tag": "frontend", "Status": "STARTED"}
        return web.json_response({"Services": [service]})

    async def frontend_state(self, request: web.Request) -> web.Response:
        """Answer with the registry of the web page, XML as on Cells; without a token nobody's."""
        if "Authorization" not in request.headers:
            return _xml("<pydio_registry/>")
        user = self._authorize(request)
        profile = quoteattr("admin" if user.admin else "standard")
        return _xml(
            f"<pydio_registry><user id={quoteattr(user.name)} uuid={quoteattr(user.uuid)}"
            f" displayName={quoteattr(user.display_name)} profile={profile}/></pydio_registry>"
        )

    async def user(self, request: web.Request) -> web.Response:
        """Answer with one user."""
        self._authorize(request)
        user = self._provider.users.get(request.match_info["login"])
        if user is None:
            raise _refuse(404, "User not found")
        return web.json_response(
            {
                "Uuid": user.uuid,
                "Login": user.name,
                "GroupPath": "/",
                "Attributes": {
                    "displayName": user.display_name,
                    "email": user.email,
                    "profile": "admin" if user.admin else "standard",
                },
            }
        )

    async def echo(self, request: web.Request) -> web.Response:
        """Answer with the request itself, the Authorization header masked."""
        user = self._authorize(request)
        headers = {name.title(): value for name, value in request.headers.items()}
        headers["Authorization"] = "Bearer ***"
        return web.json_response(
            {
                "method": request.method,
                "path": request.path,
                "query": dict(request.query),
                "headers": headers,
                "body": (await request.read()).decode(errors="replace"),
                "user": user.name,
            }
        )

    async def status(self, request: web.Request) -> web.Response:
        """Answer with a status of the client's choice."""
        self._authorize(request)
        code = int(request.match_info["code"])
        return web.json_response({"status": code}, status=code)

    async def redirect(self, request: web.Request) -> web.Response:
        """Redirect to an address of the client's choice."""
        self._authorize(request)
        return web.Response(status=302, headers={"Location": request.query.get("to", "/")})

    async def not_found(self, request: web.Request) -> web.Response:
        """Answer for the rest of the API."""
        self._authorize(request)
        raise _refuse(404, f"No route for {request.method} {request.path}")

    def _authorize(self, request: web.Request) -> User:
        if user := self._provider.grants.find_bearer(read_bearer(request)):
            return user
        raise _refuse(401, "token is not valid or has expired")


def _refuse(status: int, detail: str) -> web.HTTPException:
    body = json.dumps({"Code": status, "Status": _WORDS[status], "Detail": detail})
    kinds = {401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound}
    return kinds[status](text=body, content_type="application/json")


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")
