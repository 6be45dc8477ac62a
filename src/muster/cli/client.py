"""A small HTTPS client for Muster's and Azure's service routes, on the standard library alone.

Certificates and host names are always verified, every request is signed anew, and an error answer becomes a
message that a person can act on. Not here: which server that is (``cli/target.py``), and AMQP (``cli/amqp.py``).
"""

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from muster.cli.failure import CommandError, RefusedError, UnreachableError
from muster.cli.output import printable
from muster.cli.refusal import Refusal, read_refusal
from muster.cli.target import Target

DPS_API_VERSION = "2021-10-01"
HUB_API_VERSION = "2021-04-12"

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
STREAM_SECONDS = 45.0
"""Three keep-alives: a stream that is silent for longer is dead."""

RECONNECT_SECONDS = 1.0
RECONNECT_TRIES = 30
TOKEN_SECONDS = 3600

Query = Mapping[str, str | int | None]
Endpoint = tuple[str, int]
"""An address and a port."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer. ``headers`` have lower-case names; ``document`` is the JSON in ``content``, or None."""

    status: int
    headers: Mapping[str, str]
    document: Any
    content: bytes = b""


class StreamedEvent(NamedTuple):
    """One server-sent event; ``id`` is what to send as ``Last-Event-ID`` to go on after it."""

    id: str
    data: str


class Access(Protocol):
    """What signs requests to one host: a shared access policy, or the key of the management plane."""

    @property
    def host(self) -> str: ...

    def authorization(self, now: int, life: int) -> str: ...

    def about(self, origin: str) -> str: ...


class _Request(NamedTuple):
    access: Access | None
    method: str
    url: str
    data: bytes | None
    headers: Mapping[str, str]
    seconds: float = ANSWER_SECONDS


class _Raw(NamedTuple):
    status: int
    reason: str
    headers: dict[str, str]
    document: Any
    content: bytes


def path(*segments: str) -> str:
    """A URL path with every segment percent-encoded. Raises CommandError when one is empty."""
    if "" in segments:
        raise CommandError("a name or an id is empty", "if a script gives it, look whether its variable is set")
    return "".join("/" + quote(segment, safe="") for segment in segments)


class Client:
    """Requests to one server. ``clock`` gives our time in seconds since 1970."""

    def __init__(self, target: Target, *, clock: Callable[[], float]) -> None:
        self.target = target
        self._clock = clock
        self._offset = target.clock_offset
        self._context: ssl.SSLContext | None = None
        self._endpoints = target.endpoints

    def request(
        self,
        access: Access | None,
        method: str,
        location: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Send one request, signed by ``access``, and wait ``seconds`` for the answer.

        Raises RefusedError and UnreachableError.
        """
        data = None if body is None else json.dumps(body).encode()
        content = {"Content-Type": "application/json; charset=utf-8"} if data else {}
        request = _Request(access, method, location + _query_text(query), data, {**content, **(headers or {})}, seconds)
        raw = self._exchange(request)
        if raw.status == http.client.UNAUTHORIZED and access is not None and self.learn_clock():
            raw = self._exchange(request)
        if raw.status >= http.client.MULTIPLE_CHOICES:
            raise self._refused(access, raw)
        return Answer(raw.status, raw.headers, raw.document, raw.content)

    def stream(
        self,
        access: Access,
        location: str,
        *,
        query: Query,
        opened: Callable[[], None],
        pause: Callable[[float], None],
    ) -> Iterator[StreamedEvent]:
        """Follow server-sent events for ever, reconnecting where the last one ended.

        ``opened`` is called each time the stream flows; ``pause`` waits some seconds before a new try.
        Raises RefusedError, and UnreachableError when the server does not come back.
        """
        url, last, tries_left = location + _query_text(query), "", 0
        while True:
            try:
                connection, response = self._open_stream(access, url, last)
            except UnreachableError:
                if not tries_left:
                    raise
                tries_left -= 1
                pause(RECONNECT_SECONDS)
                continue
            opened()
            try:
                for event in read_stream(response):
                    last = event.id or last
                    yield event
            except (OSError, http.client.HTTPException):
                pass  # the connection died: the next round goes on after the last event
            finally:
                connection.close()
            tries_left = RECONNECT_TRIES
            pause(RECONNECT_SECONDS)

    def server_status(self) -> dict[str, Any]:
        """The public status of the server; needs no key. Raises as ``request`` does."""
        document = self.request(None, "GET", "/muster/v1/status").document
        return document if isinstance(document, dict) else {}

    def _open_stream(
        self, access: Access, url: str, last: str
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        request = _Request(access, "GET", url, None, headers)
        connection, response = self._send(request)
        if response.status == http.client.UNAUTHORIZED and self.learn_clock():
            connection.close()
            connection, response = self._send(request)
        if response.status != http.client.OK:
            raise self._refused(access, self._finish(request, connection, response))
        if connection.sock is not None:
            connection.sock.settimeout(STREAM_SECONDS)
        return connection, response

    def _exchange(self, request: _Request) -> _Raw:
        return self._finish(request, *self._send(request))

    def _finish(
        self, request: _Request, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> _Raw:
        """Read the whole answer and close the connection."""
        try:
            return _read(response)
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"the answer of {self._name(request.access)} broke off: {reason_of(error)}",
                "look at the log of the server",
            ) from error
        finally:
            connection.close()

    def _send(self, request: _Request) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"Accept": "application/json", "User-Agent": "muster-cli", **request.headers}
        if request.access is not None:
            headers["Authorization"] = request.access.authorization(self.now, TOKEN_SECONDS)
        connection = self._connect(self._host(request.access))
        if connection.sock is not None:
            connection.sock.settimeout(request.seconds)
        try:
            connection.request(request.method, request.url, body=request.data, headers=headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise UnreachableError(
                f"no answer from {self._name(request.access)}: {reason_of(error)}",
                "look at the log of the server",
            ) from error

    def _connect(self, host: str) -> http.client.HTTPConnection:
        sock, endpoint = self.open_tls(host, self._endpoints)
        self._endpoints = (endpoint,)
        connection = http.client.HTTPSConnection(host, endpoint[1], timeout=ANSWER_SECONDS, context=self._trust())
        connection.sock = sock
        return connection

    def open_tls(
        self, host: str, endpoints: Sequence[Endpoint], scheme: str = "https"
    ) -> tuple[ssl.SSLSocket, Endpoint]:
        """A TLS connection to the first endpoint that answers, verified for ``host``.

        Raises CommandError for a certificate that is not trusted, UnreachableError when nothing answers.
        """
        context = self._trust()
        failures: list[OSError] = []
        for address, port in endpoints:
            try:
                return _open_tls(context, host, address, port), (address, port)
            except ssl.SSLCertVerificationError as error:
                raise self._untrusted(_url(host, port, scheme), error) from error
            except OSError as error:
                failures.append(error)
        raise self._unreachable([_url(address, port, scheme) for address, port in endpoints], failures)

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            file = self.target.ca_file
            try:
                self._context = ssl.create_default_context(cafile=str(file) if file else None)
            except OSError as error:
                raise CommandError(
                    f"cannot read the CA certificate {file}: {reason_of(error)}",
                    "point MUSTER_CA_FILE to its ca.pem",
                ) from error
        return self._context

    @property
    def now(self) -> int:
        """Seconds since 1970 by the clock of the server, as far as it is known."""
        return int(self._clock()) + self._offset

    def learn_clock(self) -> bool:
        """Ask how far the server's clock is ahead; true when that is news, and signing again may help."""
        try:
            offset = int(self.server_status().get("clockOffsetSeconds", 0))
        except (CommandError, TypeError, ValueError):
            return False
        news = offset != self._offset
        self._offset = offset
        return news

    def _host(self, access: Access | None) -> str:
        return (access or self.target.provisioning).host

    def _name(self, access: Access | None) -> str:
        return _url(self._host(access), self._endpoints[0][1])

    def _unreachable(self, tried: list[str], failures: list[OSError]) -> UnreachableError:
        plain = any(isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER" for error in failures)
        if plain:
            return UnreachableError(
                f"{' and '.join(tried)} does not speak TLS",
                "give a TLS port of the server, 443 or 8443; the portal's is none",
            )
        reasons = {reason_of(error): None for error in failures if not isinstance(error, ConnectionRefusedError)}
        why = f" ({'; '.join(reasons)})" if reasons else ""
        return UnreachableError(
            f"nothing answers on {' and '.join(tried)}{why}",
            f"start it with `muster up` (this server was chosen because of {self.target.origin})",
        )

    def _untrusted(self, url: str, error: ssl.SSLCertVerificationError) -> CommandError:
        file = self.target.ca_file
        return CommandError(
            f"the certificate of {url} is not trusted: {error.verify_message}",
            f"trusted is what {file or 'this system'} holds; point MUSTER_CA_FILE to its ca.pem",
        )

    def _refused(self, access: Access | None, raw: _Raw) -> RefusedError:
        return self.refused(access, read_refusal(raw.status, raw.reason, raw.document), raw.status, raw.document)

    def refused(self, access: Access | None, refusal: Refusal, status: int, document: Any = None) -> RefusedError:
        """The error that tells of a refusal, with what to do. ``status`` is HTTP's, or 0."""
        name = f"{refusal.name}: " if refusal.name else ""
        facts = [str(refusal.code)] if refusal.code else []
        if refusal.tracking_id:
            facts.append(f"tracking id {refusal.tracking_id}")
        suffix = f" ({', '.join(facts)})" if facts else ""
        return RefusedError(
            printable(name + refusal.message + suffix),
            self._advice(access, status, refusal.tracking_id),
            status=status,
            code=refusal.code,
            name=refusal.name,
            tracking_id=refusal.tracking_id,
            document=document,
        )

    def _advice(self, access: Access | None, status: int, tracking_id: str) -> str:
        if tracking_id and self._has_report(tracking_id):
            return f"`muster why {tracking_id}` tells more"
        if status == http.client.UNAUTHORIZED and access is not None:
            return access.about(self.target.origin)
        return ""

    def _has_report(self, tracking_id: str) -> bool:
        location = path("muster", "v1", "reports", tracking_id)
        try:
            raw = self._exchange(_Request(self.target.provisioning, "GET", location, None, {}))
        except CommandError:
            return False
        return raw.status == http.client.OK


def read_stream(lines: Iterable[bytes]) -> Iterator[StreamedEvent]:
    """The events of a ``text/event-stream`` body; comments and unknown fields are skipped."""
    last = ""
    data: list[str] = []
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            if data:
                yield StreamedEvent(last, "\n".join(data))
            data = []
            continue
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "id":
            last = value


def _open_tls(context: ssl.SSLContext, host: str, address: str, port: int) -> ssl.SSLSocket:
    raw = socket.create_connection((address, port), CONNECT_SECONDS)
    try:
        sock = context.wrap_socket(raw, server_hostname=host)
    except OSError:
        raw.close()
        raise
    return sock


def _read(response: http.client.HTTPResponse) -> _Raw:
    content = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        document = json.loads(content) if content else None
    except ValueError:
        document = None
    return _Raw(response.status, response.reason, headers, document, content)


def _query_text(query: Query | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _url(host: str, port: int, scheme: str = "https") -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def reason_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return printable(getattr(error, "strerror", None) or error) or type(error).__name__
