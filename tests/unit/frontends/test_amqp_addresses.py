"""Link addresses in every spelling that clients use (hub-device.md 9.4, hub-service.md 8.2)."""

import pytest

from muster.frontends.amqp.addresses import parse_address

HOST = "hub.example.net"
EVENTS = ("devices", "d1", "messages", "events")


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("/devices/d1/messages/events", EVENTS),  # Node, Java
        ("devices/d1/messages/events/", EVENTS),
        ("amqps://other.example.net/devices/d1/messages/events", EVENTS),  # C
        ("amqps://Other.Example.Net:5671/devices/d1/messages/events", EVENTS),  # .NET
        ("/devices/a%2Fb%20c/twin", ("devices", "a/b c", "twin")),
        ("/devices/50%2525/twin", ("devices", "50%25", "twin")),  # decoded once
        ("$cbs", ("$cbs",)),
        ("", ()),
        ("/", ()),
        ("0ne1/registrations/d1", ("0ne1", "registrations", "d1")),
    ],
)
def test_segments(text: str, segments: tuple[str, ...]) -> None:
    address = parse_address(text, HOST)
    assert (address.segments, address.text, address.query) == (segments, text, "")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("amqps://Other.Example.Net:5671/a", "other.example.net"),
        ("sb://other/a", "other"),
        ("amqps://[::1]:5671/a", "::1"),
        ("/a", HOST),
        ("a", HOST),
    ],
)
def test_host(text: str, host: str) -> None:
    assert parse_address(text, HOST) == parse_address(text, HOST)
    assert parse_address(text, HOST).host == host


def test_words_compare_ignoring_case_and_ids_do_not() -> None:
    address = parse_address("/Devices/Pump-01/Messages/deviceBound", HOST)
    assert address.words == ("devices", "pump-01", "messages", "devicebound")
    assert address.segments[1] == "Pump-01"


@pytest.mark.parametrize(
    ("text", "segments", "query"),
    [
        ("/devices/d1/twin?api-version=2020", ("devices", "d1", "twin"), "api-version=2020"),
        ("/devices/who?/twin", ("devices", "who?", "twin"), ""),  # a legal id, written raw
        ("/devices/a?b?x=1", ("devices", "a?b"), "x=1"),
    ],
)
def test_query(text: str, segments: tuple[str, ...], query: str) -> None:
    address = parse_address(text, HOST)
    assert (address.segments, address.query) == (segments, query)


def test_an_address_that_is_too_long_names_nothing() -> None:
    address = parse_address("/a" * 1025, HOST)
    assert address.segments == ()
    assert len(address.text) == 2048
