"""Sending over AMQP: against our own AMQP core behind TLS on loopback, which answers as a test says."""

import socket
import ssl
import threading

import pytest

from muster.cli.amqp import AmqpSender
from muster.cli.client import Client
from muster.cli.failure import CommandError, RefusedError, UnreachableError
from muster.cli.target import Access, Target
from muster.domain.sas import parse_token, signature_matches
from muster.pki.authority import create_authority
from muster.wire import amqp_performatives as p
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_connection import AmqpConnection
from muster.wire.amqp_messages import AmqpValue, Message
from muster.wire.amqp_sessions import Attached, Credit, Delivery
from muster.wire.amqp_types import Int, Symbol
from tests.unit.cli.statuses import SECRET_KEY

ACCESS = Access("localhost", "service", SECRET_KEY)
NOW = 1_900_000_000
REFUSED = p.Error("amqp:not-found", '{"errorCode": 404001, "trackingId": "2b5a-1", "message": "There is no device d."}')
INFO = {Symbol("com.microsoft:tracking-id"): "7f3a-1-G:0-TimeStamp:11/23/2026 10:15:02"}
UNAUTHORIZED = p.Error("amqp:unauthorized-access", "Unauthorized", INFO)


class Hub(threading.Thread):
    """Takes one connection after the other; remembers tokens and messages."""

    def __init__(self, context):
        super().__init__(daemon=True)
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.core = AmqpConnection(0, "hub")
        self.replies = None
        self.tokens, self.messages, self.addresses = [], [], []
        # What the test wants to be different:
        self.sasl_code = 0
        self.statuses = [(200, "OK")]
        self.link_error = None
        self.close_error = None
        self.verdict = p.Accepted()
        self.silent = False

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.core = AmqpConnection(0, "hub")
            try:
                with self.context.wrap_socket(connection, server_side=True) as stream:
                    self.talk(stream)
            except OSError:
                pass  # a client that does not like the certificate is no news

    def end(self):
        if self.is_alive():
            self.listener.shutdown(socket.SHUT_RDWR)
            self.join(30)
        self.listener.close()

    def talk(self, stream):
        while not self.core.closed and not self.silent:
            events = self.core.receive(stream.recv(65_536), 0)
            while events:
                events += self.answer(events.pop(0)) or []
            stream.sendall(self.core.take_output())

    def answer(self, event):
        if isinstance(event, p.SaslInit):
            return self.core.sasl_outcome(self.sasl_code, 0)
        if isinstance(event, Attached):
            self.attach(event.link)
        elif isinstance(event, Credit):
            self.replies = event.link
        elif isinstance(event, Delivery):
            self.take(event.link, event)
        return []

    def attach(self, link):
        if link.name.startswith("sender"):
            self.addresses.append(link.asked.target.address)
            if self.close_error is not None:
                self.core.close(self.close_error)
                return
            if self.link_error is not None:
                self.core.refuse(link, self.link_error)
                return
        self.core.attach(link)
        if link.role == p.RECEIVER:
            self.core.grant(link, 5)

    def take(self, link, delivery):
        message = decode_message(delivery.payload)
        if link.name.startswith("sender"):
            self.messages.append(message)
            self.core.settle(link, [delivery.delivery_id], self.verdict)
            return
        self.tokens.append((message.application_properties["name"], message.body.value))
        self.core.settle(link, [delivery.delivery_id], p.Accepted())
        status, description = self.statuses.pop(0)
        properties = {"status-code": Int(status), "status-description": description}
        reply = Message(application_properties=properties, body=AmqpValue(None))
        self.core.transfer(self.replies, b"r", encode_message(reply))


@pytest.fixture
def hub(certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem")
    running = Hub(context)
    running.start()
    yield running
    running.end()


class KnownClock(Client):
    """A client to whom the server has told the time."""

    offset = 0

    def learn_clock(self):
        self._offset = self.offset
        return bool(self.offset)


@pytest.fixture
def client(certificates):
    target = Target(ACCESS, ACCESS, (("127.0.0.1", 443), ("127.0.0.1", 8443)), certificates / "ca.pem", "a test")
    return KnownClock(target, clock=lambda: NOW)


def send(client, hub):
    with AmqpSender(client, ACCESS, hub.port) as sender:
        sender.authorize()
        sender.send("/messages/devicebound", encode_message(Message(body=AmqpValue("hello"))))


def test_a_message_is_sent(client, hub):
    send(client, hub)
    assert hub.addresses == ["/messages/devicebound"]
    assert hub.messages == [Message(body=AmqpValue("hello"))]
    [(name, token)] = hub.tokens
    assert name == "localhost"
    assert signature_matches(parse_token(token), [SECRET_KEY])


def test_a_server_with_another_time(client, hub):
    hub.statuses = [(401, "expired"), (200, "OK")]
    client.offset = 1000
    send(client, hub)
    early, late = (parse_token(token).expiry for _, token in hub.tokens)
    assert late - early == 1000 * 1_000_000
    assert len(hub.messages) == 1


def test_a_refused_token(client, hub):
    hub.statuses = [(401, "IotHubUnauthorizedAccess: Unauthorized")]
    with pytest.raises(RefusedError, match=r"^IotHubUnauthorizedAccess: Unauthorized$") as caught:
        send(client, hub)
    assert caught.value.status == 401
    assert "the key is that of policy service, from a test" in caught.value.advice
    assert not hub.messages


def test_a_refused_link(client, hub):
    hub.link_error = UNAUTHORIZED
    with pytest.raises(RefusedError) as caught:
        send(client, hub)
    assert caught.value.message == "amqp:unauthorized-access: Unauthorized (tracking id 7f3a-1)"
    assert (caught.value.status, caught.value.tracking_id) == (401, "7f3a-1")


def test_a_rejected_message(client, hub):
    hub.verdict = p.Rejected(REFUSED)
    with pytest.raises(RefusedError) as caught:
        send(client, hub)
    assert caught.value.message == "There is no device d. (404001, tracking id 2b5a-1)"
    assert (caught.value.status, caught.value.code) == (404, 404001)


@pytest.mark.parametrize("verdict", [p.Released(), p.Rejected(), p.Modified(delivery_failed=True)])
def test_a_message_that_is_not_taken(client, hub, verdict):
    hub.verdict = verdict
    with pytest.raises(CommandError, match="did not take the message: " + type(verdict).__name__.lower()):
        send(client, hub)


def test_a_server_that_closes(client, hub):
    hub.close_error = p.Error("amqp:connection:forced", "going down")
    with pytest.raises(RefusedError, match="going down"):
        send(client, hub)


def test_a_server_that_breaks_off(client, hub):
    hub.silent = True
    with pytest.raises(UnreachableError, match=r"no answer from amqps://localhost:\d+: it ended the connection"):
        send(client, hub)


def test_a_server_that_refuses_sasl(client, hub):
    hub.sasl_code = 1
    with pytest.raises(CommandError, match="refused SASL ANONYMOUS"):
        send(client, hub)


def test_a_server_that_speaks_something_else(client, hub, monkeypatch):
    def talk(stream):
        stream.recv(4096)  # what is left unread would reset the connection
        stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    monkeypatch.setattr(hub, "talk", talk)
    with pytest.raises(CommandError, match="does not speak AMQP as it should: a frame of"):
        send(client, hub)


def test_an_untrusted_server(certificates, hub, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(create_authority(["localhost"], [], 0).certificate_pem)
    target = Target(ACCESS, ACCESS, (("127.0.0.1", 443),), other, "a test")
    with pytest.raises(CommandError, match=r"certificate of amqps://localhost:\d+ is not trusted") as caught:
        send(Client(target, clock=lambda: NOW), hub)
    assert str(other) in caught.value.advice


def test_nothing_listens(client, hub):
    hub.end()
    with pytest.raises(UnreachableError, match=r"^nothing answers on amqps://127\.0\.0\.1:\d+$"):
        send(client, hub)
