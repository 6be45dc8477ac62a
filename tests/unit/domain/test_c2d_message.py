import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.c2d_message import (
    MAXIMUM_C2D_BYTES,
    C2dMessage,
    C2dProperties,
    C2dSettings,
    FeedbackSettings,
    Outcome,
    accepted,
    feedback_record,
    message_size,
    outcome_of_return,
    property_bag,
    require_lock_duration,
    require_settings,
    wants_feedback,
)
from muster.domain.errors import ArgumentInvalidError, TooLargeError
from muster.domain.timestamp import DAY, MINUTE, SECOND, parse_iso

EXPIRY = parse_iso("2026-03-01T10:00:00Z")


def message(body: bytes = b"", **properties: object) -> C2dMessage:
    return C2dMessage(C2dProperties(**properties), body)


# What is taken


def test_a_message_without_an_address_gets_that_of_its_identity():
    assert accepted(message(), "dev 1", "").properties.to == "/devices/dev 1/messages/devicebound"
    assert accepted(message(), "d", "m").properties.to == "/devices/d/modules/m/messages/devicebound"
    own = "/devices/d/messages/deviceBound"
    assert accepted(message(to=own), "d", "").properties.to == own


def test_the_wish_for_feedback_may_stand_among_the_application_properties():
    taken = accepted(message(application={"iothub-ack": "Full", "a": "b"}), "d", "").properties
    assert (taken.ack, taken.application) == ("full", {"a": "b"})


@pytest.mark.parametrize(
    ("sent", "taken"),
    [("", ""), ("none", "none"), ("Full", "full"), ("positiveonly", "positive"), ("NegativeOnly", "negative")],
)
def test_the_spellings_of_the_wish_for_feedback(sent: str, taken: str):
    assert accepted(message(application={"iothub-ack": sent}), "d", "").properties.ack == taken


@pytest.mark.parametrize(
    "properties",
    [
        {"ack": "sometimes"},
        {"application": {"": "a"}},
        {"application": {"$.mid": "a"}},
        {"application": {"a": "b\0"}},
        {"application": {"a\0": "b"}},
        {"user_id": "\ud800"},
        {"message_id": "m" * 129},
        {"correlation_id": "m" * 129},
    ],
)
def test_what_no_message_may_have(properties: dict):
    with pytest.raises(ArgumentInvalidError):
        accepted(message(**properties), "d", "")


def test_body_and_properties_count_together():
    empty = accepted(message(message_id="m-1", application={"color": "é"}), "d", "")
    assert message_size(empty) == len("m-1") + len("/devices/d/messages/devicebound") + len("color") + 2
    room = MAXIMUM_C2D_BYTES - message_size(empty)
    accepted(C2dMessage(empty.properties, b"x" * room), "d", "")
    with pytest.raises(TooLargeError, match="65537 bytes"):
        accepted(C2dMessage(empty.properties, b"x" * (room + 1)), "d", "")


def test_properties_that_no_topic_holds_are_refused():
    with pytest.raises(TooLargeError, match="topic"):
        accepted(message(application={"a": "é" * 15_000}), "d", "")


# What becomes of it


@pytest.mark.parametrize(
    ("count", "expiry", "outcome"),
    [
        (9, 1001, None),
        (9, 1000, Outcome.EXPIRED),
        (10, 1001, Outcome.DELIVERY_COUNT_EXCEEDED),
        (11, 1000, Outcome.DELIVERY_COUNT_EXCEEDED),
    ],
)
def test_a_message_that_comes_back(count: int, expiry: int, outcome: Outcome | None):
    assert outcome_of_return(count, expiry, 10, 1000) is outcome


@pytest.mark.parametrize(
    ("ack", "told"),
    [
        ("", set()),
        ("none", set()),
        ("positive", {Outcome.SUCCESS}),
        ("negative", set(Outcome) - {Outcome.SUCCESS}),
        ("full", set(Outcome)),
    ],
)
def test_who_hears_of_what(ack: str, told: set[Outcome]):
    assert {outcome for outcome in Outcome if wants_feedback(ack, outcome)} == told


def test_feedback_names_the_message_only_if_it_has_a_name():
    assert feedback_record(C2dProperties(), "d", "1", Outcome.PURGED, 0).original_message_id is None


@pytest.mark.parametrize("seconds", [1, 300])
def test_locks_that_are_possible(seconds: int):
    assert require_lock_duration(seconds) == seconds * SECOND


@pytest.mark.parametrize("seconds", [0, 301])
def test_locks_that_are_not(seconds: int):
    with pytest.raises(ArgumentInvalidError):
        require_lock_duration(seconds)


def test_settings_that_are_possible():
    require_settings(C2dSettings())
    require_settings(C2dSettings(1, MINUTE, FeedbackSettings(5 * SECOND, MINUTE, 1)))
    require_settings(C2dSettings(100, 2 * DAY, FeedbackSettings(300 * SECOND, 2 * DAY, 100)))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (C2dSettings(maximum_delivery_count=0), "maxDeliveryCount"),
        (C2dSettings(maximum_delivery_count=101), "maxDeliveryCount"),
        (C2dSettings(default_time_to_live=MINUTE - 1), "defaultTtlAsIso8601"),
        (C2dSettings(feedback=FeedbackSettings(lock_duration=301 * SECOND)), "feedback.lockDurationAsIso8601"),
        (C2dSettings(feedback=FeedbackSettings(time_to_live=3 * DAY)), "feedback.ttlAsIso8601"),
        (C2dSettings(feedback=FeedbackSettings(maximum_delivery_count=0)), "feedback.maxDeliveryCount"),
    ],
)
def test_settings_that_are_not(settings: C2dSettings, name: str):
    with pytest.raises(ArgumentInvalidError, match=name):
        require_settings(settings)


# MQTT


def test_the_order_seen_on_the_wire():
    properties = C2dProperties(
        message_id="m-17",
        expiry=EXPIRY,
        to="/devices/dev-a/messages/deviceBound",
        correlation_id="c-1",
        user_id="ops",
        content_type="text/plain; charset=utf-8",
        content_encoding="utf-8",
        ack="full",
        application={"color": "dark red", "a+b": "1&2=3/4"},
    )
    assert property_bag(properties) == (
        "%24.mid=m-17&%24.exp=2026-03-01T10%3A00%3A00.0000000Z&%24.to=%2Fdevices%2Fdev-a%2Fmessages%2FdeviceBound"
        "&%24.cid=c-1&%24.uid=ops&%24.ct=text%2Fplain%3B%20charset%3Dutf-8&%24.ce=utf-8&iothub-ack=full"
        "&color=dark%20red&a%2Bb=1%262%3D3%2F4"
    )


def test_an_empty_value_keeps_its_sign():
    assert property_bag(C2dProperties(to="/t", application={"a": ""})) == "%24.to=%2Ft&a="


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_bag_is_plain_ascii(text: str):
    bag = property_bag(C2dProperties(to=text, application={text: text}))
    assert set(bag) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%&=")
