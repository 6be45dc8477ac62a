import pytest

from muster.cli.c2d import encode_payload, message_document, read_content, read_expiry, read_properties
from muster.cli.failure import CommandError
from muster.domain.c2d_message import C2dProperties
from muster.wire.amqp_composites import decode_message
from muster.wire.amqp_messages import Data, Message, Properties


def test_properties():
    assert read_properties(["color=dark red", "formula=a=b", "empty="]) == {
        "color": "dark red",
        "formula": "a=b",
        "empty": "",
    }


@pytest.mark.parametrize("text", ["color", "=red", ""])
def test_properties_that_are_none(text):
    with pytest.raises(CommandError, match="NAME=VALUE"):
        read_properties([text])


def test_a_body_is_text_or_a_file(tmp_path):
    file = tmp_path / "body"
    file.write_bytes(b"\0\xff")
    assert read_content("grüß", None) == "grüß".encode()
    assert read_content("", file) == b"\0\xff"
    with pytest.raises(CommandError, match="not both"):
        read_content("hello", file)
    with pytest.raises(CommandError, match="cannot read"):
        read_content("", tmp_path / "nothing")


def test_an_expiry_is_a_time():
    assert read_expiry(None) == 0
    assert read_expiry("2026-11-23T10:00:00Z") == 1_795_428_000_000_000
    with pytest.raises(CommandError, match="--expires: 'tomorrow' is not an ISO 8601 time"):
        read_expiry("tomorrow")


def test_a_message_as_it_is_sent():
    bare = C2dProperties(message_id="m", to="/devices/d/messages/devicebound", ack="none")
    assert decode_message(encode_payload(bare, b"x")) == Message(
        properties=Properties("m", to="/devices/d/messages/devicebound"),
        application_properties={"iothub-ack": "none"},
        body=Data((b"x",)),
    )
    full = C2dProperties(
        message_id="m",
        correlation_id="c",
        to="t",
        content_type="text/plain",
        content_encoding="utf-8",
        ack="full",
        expiry=1_795_428_000_000_000,
        application={"color": "red"},
    )
    message = decode_message(encode_payload(full, b""))
    assert message.properties == Properties(
        "m",
        to="t",
        correlation_id="c",
        content_type="text/plain",
        content_encoding="utf-8",
        absolute_expiry_time=1_795_428_000_000,
    )
    assert message.application_properties == {"color": "red", "iothub-ack": "full"}
    assert message.body == Data((b"",))


def test_a_received_message_in_the_words_of_send():
    headers = {
        "etag": '"7c5ed1a8"',
        "iothub-messageid": "m-1",
        "iothub-deliverycount": "0",
        "iothub-app-color": "dark red",
        "content-type": "application/octet-stream",
        "contenttype": "text/plain",
        "iothub-contenttype": "text/plain",
    }
    assert message_document(headers, "grüß".encode()) == {
        "lockToken": "7c5ed1a8",
        "messageId": "m-1",
        "contentType": "text/plain",
        "deliveryCount": "0",
        "properties": {"color": "dark red"},
        "body": "grüß",
    }
    assert message_document({"etag": '"t"'}, b"\xff")["bodyBase64"] == "/w=="
