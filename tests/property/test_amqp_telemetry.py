"""What a reader of telemetry remembers makes no difference: each message reads as it would have read alone."""

from hypothesis import given
from hypothesis import strategies as st

from muster.domain.errors import ServiceError
from muster.domain.message import PropertyBag
from muster.frontends.amqp.device_messages import TelemetryReader
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_messages import Data, Message, Properties
from muster.wire.amqp_types import DecodeError, Symbol
from tests.property.amqp_strategies import messages, scalars, text

FOOTER = b"\x00\x53\x78\xc1\x01\x00"
"""With it behind the body no shortcut is taken."""

names = st.sampled_from(["a", "b", "dt-subject", "iothub-outputname", "iothub-creation-time-utc"]) | text
maps = st.none() | st.dictionaries(names | names.map(lambda name: Symbol(name.encode().hex())), scalars, max_size=3)
telemetry = st.builds(
    Message,
    message_annotations=maps,
    properties=st.none()
    | st.builds(
        Properties,
        message_id=st.none() | text,
        to=st.none() | text,
        content_type=st.none() | st.just("application/json"),
        creation_time=st.none() | st.integers(0, 2**40),
    ),
    application_properties=maps,
    body=st.binary(max_size=300).map(lambda octets: Data((octets,))),
)


def read(reader: TelemetryReader, octets: bytes) -> tuple[PropertyBag, bytes] | str:
    try:
        return reader.read(octets)
    except (DecodeError, ServiceError) as error:
        return type(error).__name__


@given(st.lists(telemetry | messages, max_size=6).flatmap(lambda some: st.lists(st.sampled_from(some or [Message()]))))
def test_messages(sent: list[Message]) -> None:
    reader = TelemetryReader()
    for message in sent:
        octets = encode_message(message)
        if message.footer is not None or not octets:
            continue
        assert read(reader, octets) == read(TelemetryReader(), octets + FOOTER)


@given(st.lists(telemetry, min_size=1, max_size=4), st.data())
def test_damaged_messages(sent: list[Message], data: st.DataObject) -> None:
    reader = TelemetryReader()
    for message in sent:
        octets = bytearray(encode_message(message))
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
        assert read(reader, bytes(octets)) == read(TelemetryReader(), bytes(octets))
