"""Sending over AMQP with blocking sockets: what a command does where Azure has no HTTPS for it.

TLS to port 5671, a token put through ``$cbs``, one link, one message, its verdict. Everything that goes wrong becomes a
message that a person can act on. Sources: hub-service.md 6.1 to 6.4. Not here: AMQP itself (``wire/amqp_client.py``).
"""

from collections import deque
from contextlib import suppress
from http import HTTPStatus
from typing import Self

from muster.cli.client import ANSWER_SECONDS, TOKEN_SECONDS, Client, reason_of
from muster.cli.failure import CommandError, UnreachableError
from muster.cli.output import printable
from muster.cli.refusal import read_description
from muster.cli.target import Access
from muster.config import AMQP_PORT
from muster.wire.amqp_client import AmqpClient
from muster.wire.amqp_client_cbs import Cbs, TokenAnswer
from muster.wire.amqp_client_links import ClientEvent, ClientLink, Judged, SaslRefused, Unlinked
from muster.wire.amqp_performatives import Accepted, Error, Rejected, Target, lookup
from muster.wire.amqp_sessions import Closed, Violation

CLOSE_SECONDS = 2.0
_READ = 65_536
_TAG = b"1"
_STATUSES = {
    "amqp:unauthorized-access": HTTPStatus.UNAUTHORIZED,
    "amqp:not-found": HTTPStatus.NOT_FOUND,
    "amqp:link:message-size-exceeded": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "amqp:resource-limit-exceeded": HTTPStatus.FORBIDDEN,
}


class AmqpSender:
    """A connection to a hub under one of its policies.

    All of it raises RefusedError, UnreachableError and CommandError.
    """

    def __init__(self, client: Client, access: Access, port: int = AMQP_PORT) -> None:
        self._client = client
        self._access = access
        self._url = f"amqps://{access.host}:{port}"
        self._core = AmqpClient("muster-cli", access.host, mechanism="ANONYMOUS")
        self._cbs = Cbs(self._core)
        self._heard: deque[ClientEvent] = deque()
        addresses = dict.fromkeys(address for address, _ in client.target.endpoints)
        self._socket, _ = client.open_tls(access.host, [(address, port) for address in addresses], "amqps")
        self._socket.settimeout(ANSWER_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._socket, suppress(OSError):
            self._core.close()
            self._socket.settimeout(CLOSE_SECONDS)
            while not self._core.closed:
                self._exchange()
            self._socket.sendall(self._core.take_output())

    def authorize(self) -> None:
        """Put a token for the whole hub; a second one if the server has another time than was thought."""
        answer = self._put_token()
        if answer.status == HTTPStatus.UNAUTHORIZED and self._client.learn_clock():
            answer = self._put_token()
        if not answer.accepted:
            refusal = read_description("", answer.description or f"the token was refused with status {answer.status}")
            raise self._client.refused(self._access, refusal, answer.status)

    def _put_token(self) -> TokenAnswer:
        self._cbs.put(self._access.authorization(self._client.now, TOKEN_SECONDS), self._access.host)
        while (answer := self._cbs.take(self._next())) is None:
            pass
        return answer

    def send(self, address: str, payload: bytes) -> None:
        """Send the one message, to this address of the hub, and wait until it is accepted."""
        link = self._core.attach_sender("sender", Target(address))
        while not link.credit:
            self._require_link(link)
        self._core.transfer(link, _TAG, payload)
        while not isinstance(event := self._require_link(link), Judged) or event.link is not link:
            pass
        if isinstance(event.state, Rejected) and event.state.error is not None:
            raise self._refused(event.state.error)
        if not isinstance(event.state, Accepted):
            outcome = type(event.state).__name__.lower()
            raise CommandError(f"{self._url} did not take the message: {outcome}", "try again")

    def _require_link(self, link: ClientLink) -> ClientEvent:
        event = self._next()
        if isinstance(event, Unlinked) and event.link is link:
            raise self._refused(event.error)
        return event

    def _next(self) -> ClientEvent:
        while not self._heard:
            try:
                self._exchange()
            except OSError as error:
                raise UnreachableError(
                    f"no answer from {self._url}: {reason_of(error)}", "look at the log of the server"
                ) from error
        event = self._heard.popleft()
        if isinstance(event, Closed):
            raise self._refused(event.error)
        if isinstance(event, SaslRefused):
            raise CommandError(f"{self._url} refused SASL ANONYMOUS (code {event.code})", "is this an IoT hub?")
        if isinstance(event, Violation):
            raise CommandError(f"{self._url} does not speak AMQP as it should: {printable(event.reason)}")
        return event

    def _exchange(self) -> None:
        """Write what is to be written, read what comes. OSError when the connection is over."""
        self._socket.sendall(self._core.take_output())
        data = self._socket.recv(_READ)
        if not data:
            raise ConnectionError("it ended the connection")
        self._heard += self._core.receive(data, 0)

    def _refused(self, error: Error | None) -> CommandError:
        """What the server said as it rejected a message or ended a link, or the connection."""
        if error is None:
            return UnreachableError(f"{self._url} ended the connection", "look at the log of the server")
        told = lookup(error.info, "com.microsoft:tracking-id")
        tracking_id = told.partition("-G:")[0] if isinstance(told, str) else ""
        refusal = read_description(error.condition, error.description or "no reason given", tracking_id)
        return self._client.refused(self._access, refusal, _STATUSES.get(error.condition, 0))
