import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.frontends.topics import (
    DpsUserName,
    HubUserName,
    RegistrationRequest,
    parse_dps_user_name,
    parse_hub_user_name,
    parse_query,
    parse_registration_topic,
    registration_response,
    telemetry_prefix,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0ne1/registrations/dev/api-version=2019-03-31", DpsUserName("0ne1", "dev", "2019-03-31", "")),
        (
            "0ne1/registrations/dev/api-version=2019-03-31&ClientVersion=azure%20iot%2F2.0",
            DpsUserName("0ne1", "dev", "2019-03-31", "azure iot/2.0"),
        ),
        ("0ne1/registrations/dev/ClientVersion=a b/c&api-version=x", DpsUserName("0ne1", "dev", "x", "a b/c")),
        ("0ne1/registrations/a%3Ab/api-version=x", DpsUserName("0ne1", "a:b", "x", "")),
        ("0ne1/registrations/dev", DpsUserName("0ne1", "dev", "", "")),
        ("0ne1/registrations/dev/", DpsUserName("0ne1", "dev", "", "")),
        ("", None),
        ("hub.net/dev/?api-version=x", None),
        ("/registrations/dev/api-version=x", None),
        ("0ne1/registrations//api-version=x", None),
        ("0ne1/registration/dev", None),
    ],
)
def test_dps_user_names(text: str, expected: DpsUserName | None) -> None:
    assert parse_dps_user_name(text) == expected


@pytest.mark.parametrize(
    ("text", "client_id", "expected"),
    [
        (
            "hub.net/dev/?api-version=2021-04-12&DeviceClientType=a%2Fb&model-id=dtmi:x:y;1",
            "dev",
            HubUserName("hub.net", "dev", "", "2021-04-12", "a/b", "dtmi:x:y;1"),
        ),
        ("hub.net/dev/mod/?api-version=x", "dev/mod", HubUserName("hub.net", "dev", "mod", "x", "", "")),
        ("hub.net/dev/api-version=2016-11-14", "dev", HubUserName("hub.net", "dev", "", "2016-11-14", "", "")),
        ("hub.net/dev/DeviceClientType=x", "dev", HubUserName("hub.net", "dev", "", "", "x", "")),
        ("hub.net/dev", "dev", HubUserName("hub.net", "dev", "", "", "", "")),
        ("hub.net/dev/?&api-version=x", "dev", HubUserName("hub.net", "dev", "", "x", "", "")),
        ("hub.net/a?b=c/?api-version=x", "a?b=c", HubUserName("hub.net", "a?b=c", "", "x", "", "")),
        ("hub.net/dev/?api-version=x", "other", None),
        ("hub.net/dev/?api-version=x", "", None),
        ("hub.net/device/?api-version=x", "dev", None),
        ("hub.net", "dev", None),
        ("/dev", "dev", None),
        ("hub.net/a/b/c", "a/b/c", None),
        ("hub.net/dev/?model-id=dtmi%00", "dev", None),
    ],
)
def test_hub_user_names(text: str, client_id: str, expected: HubUserName | None) -> None:
    assert parse_hub_user_name(text, client_id) == expected


def test_the_first_of_doubles_wins_and_a_plus_is_a_plus() -> None:
    assert parse_query("A=1+2&a=3&b&=x") == {"a": "1+2", "": "x"}


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("$dps/registrations/PUT/iotdps-register/?$rid=1", RegistrationRequest("1", None)),
        ("$dps/registrations/PUT/iotdps-register/?$rid=a%20b", RegistrationRequest("a%20b", None)),
        (
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=7&operationId=5.0c.6f-1",
            RegistrationRequest("7", "5.0c.6f-1"),
        ),
        ("$dps/registrations/GET/iotdps-get-operationstatus/?operationId=x&$rid=7", RegistrationRequest("7", "x")),
        ("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=7", RegistrationRequest("7", "")),
        ("$dps/registrations/PUT/iotdps-register/", None),
        ("$dps/registrations/res/200/?$rid=1", None),
        ("devices/d/messages/events/", None),
    ],
)
def test_registration_topics(topic: str, expected: RegistrationRequest | None) -> None:
    assert parse_registration_topic(topic) == expected


def test_answers_have_rid_first_and_retry_after_last() -> None:
    assert registration_response(202, "a/b", 3) == "$dps/registrations/res/202/?$rid=a/b&retry-after=3"
    assert registration_response(200, "1") == "$dps/registrations/res/200/?$rid=1"


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_is_parsed_or_none(text: str, client_id: str) -> None:
    parse_dps_user_name(text)
    parse_hub_user_name(text, client_id)
    parse_registration_topic(text)


def test_telemetry_prefixes() -> None:
    assert telemetry_prefix("d", "") == "devices/d/messages/events"
    assert telemetry_prefix("d", "m") == "devices/d/modules/m/messages/events"
