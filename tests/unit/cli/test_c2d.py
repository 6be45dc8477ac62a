import base64

import pytest

from muster.cli.c2d import message_document, read_content, read_properties
from muster.cli.failure import CommandError


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
    assert read_content("hello", None) == {"body": "hello"}
    assert read_content("", file) == {"bodyBase64": base64.b64encode(b"\0\xff").decode()}
    with pytest.raises(CommandError, match="not both"):
        read_content("hello", file)
    with pytest.raises(CommandError, match="cannot read"):
        read_content("", tmp_path / "nothing")


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
