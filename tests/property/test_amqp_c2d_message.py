"""Messages for devices from any service client: any bytes are read or refused, any id is found in both spellings."""

import contextlib
import string
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from muster.domain.errors import ArgumentInvalidError, InvalidOperationError
from muster.frontends.amqp.c2d_message import read_message, recipients
from muster.frontends.amqp.text import NoTextError, text_of
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_messages import AmqpValue, Message, Properties
from muster.wire.amqp_types import DecodeError, Value
from tests.property.amqp_strategies import values

NOW = 1_790_000_000_000_000
IDS = st.text(string.ascii_letters + string.digits + "-:.+%_#*?!(),=@;$'", min_size=1, max_size=128)


@given(IDS, st.none() | IDS)
def test_an_id_is_found_raw_and_percent_encoded(device_id: str, module_id: str | None) -> None:
    module = f"/modules/{module_id}" if module_id else ""
    encoded = f"/modules/{quote(module_id, safe='')}" if module_id else ""
    raw = recipients(f"/devices/{device_id}{module}/messages/devicebound")
    assert raw[0] == (device_id, module_id or "")
    assert (device_id, module_id or "") in recipients(
        f"/devices/{quote(device_id, safe='')}{encoded}/messages/deviceBound"
    )


@given(st.text())
def test_any_recipient(text: str) -> None:
    with contextlib.suppress(InvalidOperationError):
        assert recipients(text)


@given(st.binary())
def test_any_bytes(payload: bytes) -> None:
    with contextlib.suppress(DecodeError, ArgumentInvalidError):
        read_message(payload, NOW)


@given(values, values, values)
def test_any_values(identifier: Value, body: Value, application: Value) -> None:
    message = Message(
        properties=Properties(message_id=identifier), application_properties={"a": application}, body=AmqpValue(body)
    )
    with contextlib.suppress(ArgumentInvalidError):
        read_message(encode_message(message), NOW)


@given(values)
def test_any_value_has_a_text_or_none(value: Value) -> None:
    try:
        text = text_of(value)
    except NoTextError:
        return
    assert text is None or isinstance(text, str)
