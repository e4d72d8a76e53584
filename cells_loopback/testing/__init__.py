"""An embedded Cells-like server, to test a login against: OAuth 2.0, OpenID Connect, REST and S3.

With an OAuth client of your own::

    from cells_loopback.testing import Behaviour, CellsServer

    with CellsServer(behaviour=Behaviour(pkce="unbound")) as server:
        ...  # point the client at server.site, and take its authorization URL
        server.sign_in(authorization_url)  # plays the person at the browser
        assert server.count("exchange") == 2

With a program that embeds `cells_loopback.login`; the client ``any-port`` is registered for any port of
127.0.0.1, so that tests may run side by side::

    def open_url(url):
        threading.Thread(target=server.sign_in, args=(url,)).start()

    with CellsServer() as server:
        session = login_sync(
            server.site,
            client_id="any-port",
            redirect_uris=("http://127.0.0.1:0/servers/callback",),
            config_dir=str(tmp_path),
            open_url=open_url,
        )
        server.fault("rest", Fault(status=503))  # the next call of the REST API fails
        assert httpx.get(server.site + "/a/user/alice", auth=session.auth).status_code == 503

It listens on loopback addresses only, keeps everything in memory, and does what real releases do, each
difference between them a field of `Behaviour`. ``python -m cells_loopback.testing`` runs it by itself.
"""

from __future__ import annotations

from .accounts import DEFAULT_USERS, EXAMPLE_CLIENTS, SHIPPED_CLIENTS, Client, User
from .answers import ErrorAnswer
from .behaviour import Behaviour
from .browser import Browser, Page
from .faults import Fault
from .server import CellsServer
from .traffic import RecordedRequest

__all__ = [
    "DEFAULT_USERS",
    "EXAMPLE_CLIENTS",
    "SHIPPED_CLIENTS",
    "Behaviour",
    "Browser",
    "CellsServer",
    "Client",
    "ErrorAnswer",
    "Fault",
    "Page",
    "RecordedRequest",
    "User",
]
