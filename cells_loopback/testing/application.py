"""The aiohttp application: every route, and around them the request log, the faults and the clock."""

from __future__ import annotations

from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from .faults import serve_with_fault
from .login import LoginEndpoints
from .oidc import OidcEndpoints
from .rest import RestEndpoints
from .s3 import add_s3_gateway
from .token_endpoint import TokenEndpoints
from .traffic import describe_request, parse_form

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp.typedefs import Handler, Middleware

    from .faults import FaultBook
    from .provider import Provider
    from .traffic import RequestLog

_FORM = "application/x-www-form-urlencoded"


def build_application(
    provider: Provider, log: RequestLog, faults: FaultBook, s3_root: Path | None
) -> web.Application:
    """Return the application of a server."""

    async def set_date(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(provider.clock.now(), usegmt=True)

    app = web.Application(middlewares=[_observe(log, faults)])
    app.on_response_prepare.append(set_date)
    for endpoints in (OidcEndpoints, TokenEndpoints, LoginEndpoints, RestEndpoints):
        app.add_routes(endpoints(provider).routes())
    add_s3_gateway(app, lambda token: provider.grants.find_bearer(token) is not None, s3_root)
    return app


def _observe(log: RequestLog, faults: FaultBook) -> Middleware:
    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        recorded = describe_request(
            request.method, request.path, request.query, await _read_form(request), request.headers
        )
        number = log.begin(recorded)
        fault = faults.take(recorded)
        if fault is None:
            answer = await _answer(request, handler)
        else:
            answer = await serve_with_fault(fault, request, partial(_answer, handler=handler))
        if not (fault and fault.drop):
            log.finish(number, answer.status)
        return answer

    return observe


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.Response(status=error.status, headers=error.headers, body=error.body)


async def _read_form(request: web.Request) -> dict[str, str]:
    # Nothing else is read here: the body of an upload belongs to the gateway.
    if request.content_type != _FORM or not request.path.startswith(("/oidc/", "/login", "/consent")):
        return {}
    return parse_form(await request.text())
