"""What each SDK reads in the topic of a cloud-to-device message, by the rules of its own parser (hub-device.md 5.4)."""

import re
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.c2d_message import C2dProperties, property_bag
from muster.domain.timestamp import iso_utc
from muster.frontends.topics import c2d_topic

Parsed = dict[str, str]

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
NAMES = TEXTS.filter(lambda name: not name.startswith("$.") and name != "iothub-ack")
PROPERTIES = st.builds(
    C2dProperties,
    message_id=TEXTS | st.just(""),
    correlation_id=TEXTS | st.just(""),
    user_id=TEXTS | st.just(""),
    to=TEXTS,
    content_type=TEXTS | st.just(""),
    content_encoding=TEXTS | st.just(""),
    ack=st.sampled_from(["", "none", "positive", "negative", "full"]),
    expiry=st.sampled_from([0, 1_772_359_200_000_000]),
    application=st.dictionaries(NAMES, TEXTS, max_size=5),
)
IDS = st.text(st.sampled_from("abcXYZ019-:.+%_#*?!(),=@;$'"), min_size=1, max_size=20)


def python(topic: str, device_id: str) -> Parsed:
    """Splits the topic at slashes and the bag at ``&`` and ``=`` before decoding; a plus is a plus."""
    parts = topic.split("/")
    assert parts[0] == "devices"
    assert parts[1] == device_id
    assert parts[2:4] == ["messages", "devicebound"]
    items = [item.split("=", 1) for item in parts[4].split("&")]
    return {unquote(key): unquote(value) for key, value in items}


def node(topic: str, device_id: str) -> Parsed:
    """Needs the slash behind ``devicebound``; decodes by ``querystring``, for which a plus is a space."""
    bag = topic.removeprefix(f"devices/{device_id}/messages/devicebound/")
    assert bag != topic
    assert "+" not in bag
    return {unquote(key): unquote(value) for key, value in (item.split("=") for item in bag.split("&"))}


def c(topic: str, _device_id: str) -> Parsed:
    """Looks for literal names such as ``%24.mid``, and drops a pair with an empty key or value."""
    bag = topic.split("/messages/devicebound/", 1)[1]
    found: Parsed = {}
    for item in bag.split("&"):
        key, value = item.split("=")
        assert key
        assert value
        assert not key.startswith("$")
        found[unquote(key)] = unquote(value)
    return found


def net(topic: str, _device_id: str) -> Parsed:
    """Takes segment 4 as the bag; the format of times is exact, the words of ``iothub-ack`` are too."""
    found = {unquote(key): unquote(value) for key, value in (i.split("=") for i in topic.split("/")[4].split("&"))}
    if "$.exp" in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", found["$.exp"])
    assert found.get("iothub-ack", "none") in {"none", "positive", "negative", "full"}
    return found


def java(topic: str, _device_id: str) -> Parsed:
    """Starts at the first ``%24``: what stands before is lost. A bare key or an empty value is an exception."""
    bag = topic[topic.index("%24") :]
    found: Parsed = {}
    for item in bag.split("&"):
        assert re.fullmatch(r"[^=]+=[^=]+", item)
        key, value = item.split("=")
        found[unquote(key)] = unquote(value)
    return found


def expected(properties: C2dProperties) -> Parsed:
    system = {
        "$.mid": properties.message_id,
        "$.exp": iso_utc(properties.expiry) if properties.expiry else "",
        "$.to": properties.to,
        "$.cid": properties.correlation_id,
        "$.uid": properties.user_id,
        "$.ct": properties.content_type,
        "$.ce": properties.content_encoding,
        "iothub-ack": properties.ack,
    }
    return {**{name: value for name, value in system.items() if value}, **properties.application}


@pytest.mark.parametrize("parser", [python, node, c, net, java])
@given(properties=PROPERTIES, device_id=IDS)
def test_every_client_reads_what_was_sent(
    parser: Callable[[str, str], Parsed], properties: C2dProperties, device_id: str
):
    # Java is not asked about an id with %24 in it, which it would take for the beginning of the bag.
    device_id = device_id.replace("%24", "") or "d"
    topic = c2d_topic(device_id, "", property_bag(properties))
    assert parser(topic, device_id) == expected(properties)
