"""Who a SASL PLAIN user is (hub-device.md 9.3, hub-service.md 6.2, dps.md 3.1, interop-facts.md 6, 13)."""

import pytest

from muster.frontends.amqp.sasl import DeviceUser, PolicyUser, RegistrationUser, User, read_plain, read_user


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("d1@sas.hub", DeviceUser("d1", "", "hub")),
        ("d1/m1@sas.hub", DeviceUser("d1", "m1", "hub")),
        ("d@sas.x@sas.hub", DeviceUser("d@sas.x", "", "hub")),  # @ and . are legal in ids
        ("iothubowner@sas.root.hub", PolicyUser("iothubowner", "hub")),
        ("iothubowner@sas.Root.hub", PolicyUser("iothubowner", "hub")),
        ("iothubowner", PolicyUser("iothubowner", "")),
        ("0ne1/registrations/d1", RegistrationUser("0ne1", "d1")),
        ("a/b/c", PolicyUser("a/b/c", "")),
        ("", PolicyUser("", "")),
    ],
)
def test_users(text: str, user: User) -> None:
    assert read_user(text) == user


@pytest.mark.parametrize(
    ("response", "plain"),
    [
        (b"\0user\0password", ("user", "password")),
        (b"somebody\0user\0password", ("user", "password")),
        (b"\0\0", ("", "")),
        (b"user\0password", None),
        (b"\0user\0pass\0word", None),
        (b"\0user\0\xff", None),
        (b"", None),
        (None, None),
    ],
)
def test_plain_responses(response: bytes | None, plain: tuple[str, str] | None) -> None:
    assert read_plain(response) == plain
