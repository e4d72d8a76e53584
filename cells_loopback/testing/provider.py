"""What all endpoints share: who the server is, who uses it, what it has issued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .answers import INVALID_CLIENT, Refused
from .clock import ServerClock
from .grants import Grants
from .keys import SigningKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .accounts import Client, User
    from .behaviour import Behaviour


class Provider:
    """The state of one server; `site` is known once its port is."""

    def __init__(
        self,
        behaviour: Behaviour,
        users: Iterable[User],
        clients: Iterable[Client],
        clock: Callable[[], float],
    ) -> None:
        self.behaviour = behaviour
        self.site = ""
        self.users = {user.name: user for user in users}
        self.clients = {client.client_id: client for client in clients}
        self.clock = ServerClock(self._get_behaviour, clock)
        self.grants = Grants(self.clock, self._get_behaviour)
        self.keys = SigningKeys()

    @property
    def issuer(self) -> str:
        """The issuer as this release writes it."""
        own = f"{self.site}/oidc/" if self.behaviour.issuer_slash else f"{self.site}/oidc"
        return self.behaviour.issuer or own

    def find_client(self, client_id: str) -> Client:
        """Return a registered client, or refuse the request."""
        if client := self.clients.get(client_id):
            return client
        raise Refused(INVALID_CLIENT.with_hint("The requested OAuth 2.0 Client does not exist."))

    def _get_behaviour(self) -> Behaviour:
        return self.behaviour
