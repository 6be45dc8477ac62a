"""Tokens through ``$cbs``: against our own server in memory."""

import pytest

from muster.wire import amqp_performatives as p
from muster.wire.amqp_client import AmqpClient
from muster.wire.amqp_client_cbs import Cbs, TokenAnswer
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import AmqpValue, Message, Properties
from muster.wire.amqp_sessions import Credit, Delivery
from muster.wire.amqp_types import Int, Ulong
from tests.support.amqp_pair import Pair, welcome


class Node:
    """A ``$cbs`` node that answers each request with the next of its answers."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.replies = None

    def answer(self, server, event):
        if isinstance(event, Credit):
            self.replies = event.link
        elif isinstance(event, Delivery):
            server.settle(event.link, [event.delivery_id], p.Accepted())
            server.grant(event.link, 10)
            self.requests.append(decode_message(event.payload))
            server.transfer(self.replies, b"r", self.answers.pop(0))
        return welcome(server, event)


def reply(status, description):
    properties = {"status-code": status, "status-description": description}
    return encode_message(Message(application_properties=properties, body=AmqpValue(None)))


def answers(node, *puts):
    pair = Pair(AmqpClient("c", "h", mechanism="ANONYMOUS"), answer=node.answer)
    cbs = Cbs(pair.client)
    for put in puts:
        cbs.put(*put)
    found = []
    while True:
        heard = len(pair.heard)
        pair.run()
        if len(pair.heard) == heard:
            return found
        found += [answer for event in pair.heard[heard:] if (answer := cbs.take(event)) is not None]


def test_a_token_is_taken():
    node = Node(reply(Int(200), "OK"))
    [answer] = answers(node, ("SharedAccessSignature sr=h", "h"))
    assert answer == TokenAnswer(200, "OK")
    assert answer.accepted
    [request] = node.requests
    assert request.properties == Properties(Ulong(0), to="$cbs", reply_to="cbs")
    assert request.application_properties == {
        "operation": "put-token",
        "type": "servicebus.windows.net:sastoken",
        "name": "h",
    }
    assert request.body == AmqpValue("SharedAccessSignature sr=h")


def test_several_tokens_are_answered_in_turn():
    node = Node(*[reply(Int(200 + number % 2 * 201), str(number)) for number in range(25)])
    found = answers(node, *[("token", f"h/{number}", "jwt") for number in range(25)])
    assert [answer.description for answer in found] == [str(number) for number in range(25)]
    assert [answer.accepted for answer in found] == [True, False] * 12 + [True]
    assert node.requests[3].application_properties["type"] == "jwt"


@pytest.mark.parametrize("payload", [b"\x01", b"", reply(Ulong(200), None)])
def test_an_answer_that_says_nothing_is_no_acceptance(payload):
    [answer] = answers(Node(payload), ("token", "h"))
    assert answer.status == 0
    assert not answer.accepted
