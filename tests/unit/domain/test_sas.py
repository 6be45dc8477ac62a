"""Shared access signatures: every producer's spelling is read, and nothing else passes."""

import base64
import hashlib
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.check_table import verdict
from muster.domain.errors import ArgumentInvalidError, TokenExpiredError, UnauthorizedAccessError
from muster.domain.report import Outcome
from muster.domain.sas import (
    CLOCK_SKEW,
    MalformedTokenError,
    SasToken,
    check_token,
    covers,
    create_token,
    derive_device_key,
    parse_token,
    require_key,
    sign,
    signature_matches,
)
from muster.domain.timestamp import SECOND

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OTHER = "HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
EXPIRY = 1_900_000_000
NOW = (EXPIRY - 60) * SECOND


def token(resource: str, *, key: str = KEY, expiry: object = EXPIRY, extra: str = "", lower: bool = False) -> str:
    mac = hmac.new(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = quote(base64.b64encode(mac).decode(), safe="")
    if lower:
        signature = signature.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}{extra}"


@pytest.mark.parametrize(
    ("resource", "signature"),
    [
        ("0ne00000001%2Fregistrations%2Fdev-1", "Y7TFJZxJaz6m0TvOpqIBLkyw+g3IlGoGQ5TVgo80+q8="),
        ("0ne00000001/registrations/dev-1", "padr/P8+IDh1Uex/WQaDOcdQKE1CN12SRURDlXwq+OA="),
        ("mydps.azure-devices-provisioning.net", "wMpeNApvRlVeST1mC7HFEiUvOwSjbz6ci0qf+iujMCw="),
    ],
)
def test_vectors(resource: str, signature: str) -> None:
    assert sign(KEY, f"{resource}\n1900000000") == signature


@pytest.mark.parametrize(
    ("group_key", "registration_id", "device_key"),
    [
        (
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==",
            "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6",
            "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=",
        ),
        (
            "oiK77Oy7rBw8YB6IS6ukRChAw+Yq6GC61RMrPLSTiOOtdI+XDu0LmLuNm11p+qv2I+adqGUdZHm46zXAQdZoOA==",
            "breakroom499-contoso-tstrsd-007",
            "JC8F96eayuQwwz+PkE7IzjH2lIAjCUnAa61tDigBnSs=",
        ),
    ],
)
def test_group_key_vectors(group_key: str, registration_id: str, device_key: str) -> None:
    assert derive_device_key(group_key, registration_id) == device_key


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not start"),
        ("Bearer x", "does not start"),
        ("sharedaccesssignature sr=a&sig=b&se=1", "does not start"),
        ("SharedAccessSignature", "does not start"),
        ("SharedAccessSignature sig=b&se=1", "lacks sr"),
        ("SharedAccessSignature sr=a&sig=&se=1", "lacks sig"),
        ("SharedAccessSignature sr=a", "lacks sig, se"),
        ("SharedAccessSignature sr=a&sig=b&se=soon", "not a number"),
        ("SharedAccessSignature sr=a&sig=b&se=inf", "not a number"),
        ("SharedAccessSignature sr=a&sig=b&se=nan", "not a number"),
    ],
)
def test_what_is_no_token(text: str, reason: str) -> None:
    with pytest.raises(MalformedTokenError, match=reason):
        parse_token(text)


def test_order_case_of_names_doubles_and_unknown_items_do_not_matter() -> None:
    parsed = parse_token("SharedAccessSignature SE=12&foo=1&Sig=ab%3D&sr=x%2Fy&skn=my%20policy&sr=z")
    assert parsed == SasToken("x%2Fy", "ab%3D", "12", 12 * SECOND, "my policy")


@pytest.mark.parametrize("resource", ["hub.net/devices/d", "hub.net%2Fdevices%2Fd", "hub.net%2fdevices%2fd"])
@pytest.mark.parametrize("lower", [False, True])
def test_every_spelling_of_the_resource_verifies(resource: str, lower: bool) -> None:
    assert signature_matches(parse_token(token(resource, lower=lower)), [OTHER, KEY])
    assert not signature_matches(parse_token(token(resource, key=OTHER)), [KEY])


def test_a_token_that_was_signed_over_another_spelling_than_it_shows() -> None:
    raw = token("hub.net/devices/d")
    shown_encoded = raw.replace("sr=hub.net/devices/d", "sr=hub.net%2Fdevices%2Fd")
    assert signature_matches(parse_token(shown_encoded), [KEY])
    encoded = token("hub.net%2fdevices%2fd")
    assert signature_matches(parse_token(encoded.replace("%2fdevices%2fd", "%2Fdevices%2Fd")), [KEY])


@given(st.text(alphabet="abcdefghij/%:@.-_ +", min_size=1, max_size=40), st.integers(0, 2**33))
def test_what_is_created_verifies_and_one_changed_byte_does_not(resource: str, expiry: int) -> None:
    made = parse_token(create_token(resource, KEY, expiry))
    assert signature_matches(made, [KEY])
    assert not signature_matches(made, [OTHER])
    assert not signature_matches(SasToken(made.resource + "x", *_rest(made)), [KEY])


def _rest(made: SasToken) -> tuple[str, str, int, str]:
    return (made.signature, made.expiry_text, made.expiry, made.key_name)


@pytest.mark.parametrize(
    ("resource", "prefix", "expected"),
    [
        ("hub.net/devices/d", False, True),
        ("hub.net%2Fdevices%2Fd", False, True),
        ("HUB.net/Devices/D", False, True),
        ("https://hub.net/devices/d/", False, True),
        ("hub.net:443/devices/d", False, True),
        ("hub.net/devices/d/api-version=2016", False, True),
        ("hub.net/devices/d2", False, False),
        ("hub.net/devices", False, False),
        ("hub.net/devices", True, True),
        ("hub.net", False, False),
        ("hub.net", True, True),
        ("hub.net/other", True, False),
        ("hub.net/dev", True, False),
        ("hub.net.evil.org", True, False),
        ("evil.org/devices/d", False, False),
        ("", True, False),
    ],
)
def test_what_a_resource_covers(resource: str, prefix: bool, expected: bool) -> None:
    assert covers(resource, ("hub.net", "devices", "d"), prefix=prefix) is expected


def test_ids_that_were_encoded_twice() -> None:
    assert covers("hub.net%2Fdevices%2Fa%2523b", ("hub.net", "devices", "a#b"), prefix=False)


def judge(text: str, *, now: int = NOW, policy: bool = False) -> dict[str, Outcome]:
    checks = check_token(parse_token(text), [KEY], ("hub.net",), ("devices", "d"), policy=policy, now=now)
    return {item.id: item.outcome for item in checks}


def test_a_good_token_passes_every_check() -> None:
    assert set(judge(token("hub.net/devices/d")).values()) == {Outcome.PASSED}


@pytest.mark.parametrize(
    ("text", "refused", "error"),
    [
        (token("hub.net/devices/other"), "sas.audience", UnauthorizedAccessError),
        (token("hub.net/devices/d", key=OTHER), "sas.signature", UnauthorizedAccessError),
        (token("hub.net/devices/d", expiry=1000), "sas.expiry", TokenExpiredError),
    ],
)
def test_each_check_refuses_alone(text: str, refused: str, error: type[Exception]) -> None:
    checks = check_token(parse_token(text), [KEY], ("hub.net",), ("devices", "d"), policy=False, now=NOW)
    assert [item.id for item in checks if item.outcome is Outcome.REFUSED] == [refused]
    assert all(item.fix for item in checks if item.outcome is Outcome.REFUSED)
    assert verdict(checks) is error


def test_the_clock_may_be_five_minutes_off() -> None:
    text = token("hub.net/devices/d")
    assert judge(text, now=EXPIRY * SECOND + CLOCK_SKEW)["sas.expiry"] is Outcome.PASSED
    assert judge(text, now=EXPIRY * SECOND + CLOCK_SKEW + 1)["sas.expiry"] is Outcome.REFUSED


def test_an_expiry_far_out_of_range_is_told_so() -> None:
    checks = check_token(parse_token(token("hub.net", expiry="1e300")), [KEY], ("hub.net",), (), policy=True, now=NOW)
    assert "out of range" in next(item.detail for item in checks if item.id == "sas.expiry")


def test_checks_never_show_a_signature() -> None:
    text = token("hub.net/devices/x", key=OTHER)
    signature = parse_token(text).signature
    checks = check_token(parse_token(text), [KEY], ("hub.net",), ("devices", "d"), policy=False, now=NOW)
    shown = " ".join(item.detail + item.fix for item in checks)
    assert signature not in shown
    assert sign(KEY, f"hub.net/devices/x\n{EXPIRY}") not in shown


@pytest.mark.parametrize(
    "key", ["", "not base64!", base64.b64encode(b"x" * 15).decode(), base64.b64encode(b"x" * 65).decode()]
)
def test_keys_have_16_to_64_bytes(key: str) -> None:
    with pytest.raises(ArgumentInvalidError, match="primaryKey"):
        require_key(key, "primaryKey")


def test_a_good_key_is_given_back() -> None:
    assert require_key(KEY, "primaryKey") == KEY


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_malformed(text: str) -> None:
    for candidate in (text, f"SharedAccessSignature {text}"):
        try:
            parsed = parse_token(candidate)
        except MalformedTokenError:
            continue
        check_token(parsed, [KEY], ("hub.net",), ("devices", "d"), policy=False, now=NOW)


def test_event_hubs_clients_take_the_text_of_a_key_for_the_key() -> None:
    text_key = base64.b64encode(KEY.encode()).decode()
    assert signature_matches(parse_token(create_token("sb://h/event-hub", text_key, 9, "service")), [OTHER, KEY])
    assert signature_matches(parse_token(create_token("SB://h/event-hub", KEY, 9, "service")), [KEY])
    assert not signature_matches(parse_token(create_token("sb://h/event-hub", text_key, 9, "service")), [OTHER])
    assert not signature_matches(parse_token(create_token("h/event-hub", text_key, 9, "service")), [KEY])
