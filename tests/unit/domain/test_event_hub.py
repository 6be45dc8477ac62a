import pytest

from muster.domain.access_policy import HUB_POLICIES, AccessPolicy
from muster.domain.errors import ArgumentInvalidError
from muster.domain.event_hub import (
    BEGINNING,
    LATEST,
    Key,
    StartingPosition,
    event_hub_connection_string,
    event_hub_name,
    parse_selector,
)

POLICIES = {name: AccessPolicy(name, f"{name}-key", "other", rights) for name, rights in HUB_POLICIES.items()}


@pytest.mark.parametrize(
    "hub, start",
    [
        ("hub", "iothub-ehub-hub-"),
        ("Plant.Example", "iothub-ehub-plant-exam-"),
        ("127.0.0.1", "iothub-ehub-127-0-0-1-"),
        ("::1", "iothub-ehub-1-"),
        ("---", "iothub-ehub-hub-"),
    ],
)
def test_names_are_like_azures_and_stay(hub, start):
    name = event_hub_name(hub)
    assert name.startswith(start)
    digits, hexadecimal = name.removeprefix(start).split("-")
    assert (len(digits), len(hexadecimal)) == (7, 10)
    assert digits.isdigit()
    assert int(hexadecimal, 16) >= 0
    assert name == event_hub_name(hub)
    assert name != event_hub_name(hub + "2")


def test_the_connection_string_is_by_the_policy_that_may_do_least():
    text = event_hub_connection_string("hub", "::1", POLICIES)
    name = event_hub_name("hub")
    assert text == f"Endpoint=sb://[::1]/;SharedAccessKeyName=service;SharedAccessKey=service-key;EntityPath={name}"
    without = {name: policy for name, policy in POLICIES.items() if name != "service"}
    assert "SharedAccessKeyName=iothubowner;" in event_hub_connection_string("hub", "h", without)
    assert event_hub_connection_string("hub", "h", {"device": POLICIES["device"]}) == ""


@pytest.mark.parametrize(
    "text, key, value",
    [
        ("amqp.annotation.x-opt-offset > '-1'", Key.OFFSET, 0),
        ("amqp.annotation.x-opt-offset >= '-1'", Key.OFFSET, 0),
        ("amqp.annotation.x-opt-offset > '1234'", Key.OFFSET, 1235),
        ("amqp.annotation.x-opt-offset >= '1234'", Key.OFFSET, 1234),
        ("amqp.annotation.x-opt-sequence-number > '55'", Key.SEQUENCE_NUMBER, 56),
        ("amqp.annotation.x-opt-sequence-number > 2995", Key.SEQUENCE_NUMBER, 2996),
        ("amqp.annotation.x-opt-sequence-number >='7'", Key.SEQUENCE_NUMBER, 7),
        ("amqp.annotation.x-opt-sequence-number > '-1'", Key.SEQUENCE_NUMBER, 0),
        ("amqp.annotation.x-opt-enqueued-time > '1763890000000'", Key.ENQUEUED_TIME, 1763890000001000),
        ("amqp.annotation.x-opt-enqueued-time >= '1763890000000.5'", Key.ENQUEUED_TIME, 1763890000000000),
        ("amqp.annotation.x-opt-enqueuedtimeutc > 1763890000000", Key.ENQUEUED_TIME, 1763890000001000),
        ("  AMQP.Annotation.X-Opt-Offset>'9' ", Key.OFFSET, 10),
    ],
)
def test_filters_of_every_client(text, key, value):
    assert parse_selector(text) == StartingPosition(key, value)


@pytest.mark.parametrize("operator", [">", ">="])
def test_only_what_is_new(operator):
    assert parse_selector(f"amqp.annotation.x-opt-offset {operator} '@latest'") == LATEST


@pytest.mark.parametrize("text", [None, "", "  "])
def test_no_filter_means_everything(text):
    assert parse_selector(text) == BEGINNING


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "amqp.annotation.x-opt-offset < '5'",
        "amqp.annotation.x-opt-offset > 'five'",
        "amqp.annotation.x-opt-offset > ''",
        "amqp.annotation.x-opt-offset > '5",
        "amqp.annotation.x-opt-partition-key > '5'",
        "amqp.annotation.x-opt-sequence-number > '" + "9" * 40 + "'",
    ],
)
def test_filters_that_mean_nothing(text):
    with pytest.raises(ArgumentInvalidError):
        parse_selector(text)
