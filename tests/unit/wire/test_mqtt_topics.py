import pytest

from muster.wire.mqtt_topics import matches, text_fault, topic_filter_fault, topic_name_fault


@pytest.mark.parametrize(
    "text",
    [b"", b"abc", "gerät \N{GRINNING FACE}".encode(), b"\xef\xbb\xbf", b"\x01\x1f\x7f", b"\xef\xbf\xbf", b"x" * 65_535],
)
def test_text_that_mqtt_can_carry(text):
    """Control characters and non-characters SHOULD NOT be sent (section 1.5.3), which refuses nobody."""
    assert text_fault(text) is None


@pytest.mark.parametrize(
    "text, fault",
    [
        (b"\x00", "MQTT-1.5.3-2"),
        (b"abc\x00", "MQTT-1.5.3-2"),
        (b"\xff", "MQTT-1.5.3-1"),
        (b"\xc3", "MQTT-1.5.3-1"),
        (b"\xed\xa0\x80\xed\xb0\x80", "MQTT-1.5.3-1"),
        (b"\xf4\x90\x80\x80", "MQTT-1.5.3-1"),
        (b"x" * 65_536, "65536 bytes"),
    ],
)
def test_text_that_it_cannot(text, fault):
    assert fault in text_fault(text)


@pytest.mark.parametrize(
    "name",
    [
        b"a",
        b"/",
        b"//",
        b" ",
        b"$iothub/twin/res/200/?$rid=1",
        "devices/gerät/messages".encode(),
        b"devices/a+b#/messages/events/at=10:00+01:00",
    ],
)
def test_topic_names(name):
    assert topic_name_fault(name) is None


@pytest.mark.parametrize(
    "name, fault",
    [
        (b"", "MQTT-4.7.3-1"),
        (b"a/+", "MQTT-3.3.2-2"),
        (b"#", "MQTT-3.3.2-2"),
        (b"+/a+b", "MQTT-3.3.2-2"),
        (b"a\x00", "MQTT-1.5.3-2"),
    ],
)
def test_no_topic_names(name, fault):
    assert fault in topic_name_fault(name)


# The examples of section 4.7.1, and the filters of hub-device.md 3.5.
@pytest.mark.parametrize(
    "topic_filter",
    [
        b"#",
        b"+",
        b"/",
        b"sport/tennis/player1/#",
        b"sport/tennis/#",
        b"+/tennis/#",
        b"sport/+/player1",
        b"/+",
        b"+/+",
        b"$SYS/#",
        b"devices/+/messages/devicebound/#",
        b"$iothub/methods/POST/#",
        b"devices/a+b#/messages/devicebound/#",
        b"##",
        b"a/++/b",
    ],
)
def test_topic_filters(topic_filter):
    assert topic_filter_fault(topic_filter) is None


@pytest.mark.parametrize(
    "topic_filter, fault",
    [
        (b"", "MQTT-4.7.3-1"),
        (b"sport/tennis/#/ranking", "MQTT-4.7.1-2"),
        (b"#/#", "MQTT-4.7.1-2"),
        (b"a#/#/b", "MQTT-4.7.1-2"),
        (b"+\x00/a", "MQTT-1.5.3-2"),
        (b"a\x00", "MQTT-1.5.3-2"),
        (b"+/\xff", "MQTT-1.5.3-1"),
    ],
)
def test_no_topic_filters(topic_filter, fault):
    assert fault in topic_filter_fault(topic_filter)


# The examples of sections 4.7.1 to 4.7.3.
@pytest.mark.parametrize(
    "topic_filter, name",
    [
        (b"sport/tennis/player1/#", b"sport/tennis/player1"),
        (b"sport/tennis/player1/#", b"sport/tennis/player1/ranking"),
        (b"sport/tennis/player1/#", b"sport/tennis/player1/score/wimbledon"),
        (b"sport/#", b"sport"),
        (b"#", b"a"),
        (b"#", b"/"),
        (b"#", b"a/$b"),
        (b"sport/tennis/+", b"sport/tennis/player1"),
        (b"sport/+", b"sport/"),
        (b"+/+", b"/finance"),
        (b"/+", b"/finance"),
        (b"+/tennis/#", b"sport/tennis"),
        (b"+/$SYS", b"a/$SYS"),
        (b"$SYS/#", b"$SYS/monitor/Clients"),
        (b"$SYS/monitor/+", b"$SYS/monitor/Clients"),
        (b"$dps/registrations/res/#", b"$dps/registrations/res/202/?$rid=1&retry-after=3"),
        (b"devices/+/messages/devicebound/#", b"devices/dev-1/messages/devicebound/%24.mid=1"),
        (b"a", b"a"),
        (b"/", b"/"),
        (b"+", b" "),
        (b"devices/a+b#/messages/#", b"devices/a+b#/messages/devicebound/a=1"),
        (b"devices/+/messages/#", b"devices/a+b#/messages/devicebound/a=1"),
    ],
)
def test_4_7_what_matches(topic_filter, name):
    assert topic_filter_fault(topic_filter) is None
    assert topic_name_fault(name) is None
    assert matches(topic_filter, name)


@pytest.mark.parametrize(
    "topic_filter, name",
    [
        (b"sport/tennis/+", b"sport/tennis/player1/ranking"),
        (b"sport/+", b"sport"),
        (b"sport/+/#", b"sport"),
        (b"+", b"/finance"),
        (b"#", b"$SYS/"),
        (b"+/monitor/Clients", b"$SYS/monitor/Clients"),
        (b"+", b"$SYS"),
        (b"a/#", b"ab"),
        (b"a", b"A"),
        (b"a", b"a/"),
        (b"a/", b"a"),
        (b"/a", b"a"),
        (b"sport/tennis/#", b"sport"),
        (b"devices/dev-1/messages/#", b"devices/dev-2/messages/devicebound/"),
    ],
)
def test_4_7_what_does_not(topic_filter, name):
    assert topic_filter_fault(topic_filter) is None
    assert topic_name_fault(name) is None
    assert not matches(topic_filter, name)
