import base64

import pytest

from muster.domain.device import (
    AuthenticationBody,
    ConnectionTimes,
    Identity,
    IdentityBody,
    SymmetricKeyBody,
    ThumbprintBody,
    generation_id,
    identity_view,
    is_device_id,
    new_key,
    read_authentication,
    read_status,
    require_device_id,
    require_same_id,
)
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError

RANDOM = (bytes(32), bytes([1]) * 32)
KEY = base64.b64encode(bytes(32)).decode()
SHA1 = "0A" * 20
SHA256 = "0b" * 32


def authentication(
    kind: str | None = None, keys: tuple[str | None, str | None] = (None, None), prints: tuple = (None, None)
):
    body = AuthenticationBody(kind, SymmetricKeyBody(*keys), ThumbprintBody(*prints))
    return read_authentication(body, RANDOM)


@pytest.mark.parametrize("device_id", ["d", "A-1:2.3+4%5_6#7*8?9!(),=@;$'", "x" * 128])
def test_legal_ids(device_id: str) -> None:
    assert is_device_id(device_id)
    require_device_id(device_id)


@pytest.mark.parametrize("device_id", ["", "a/b", "a b", "ü", "x" * 129, "a\n"])
def test_illegal_ids(device_id: str) -> None:
    with pytest.raises(ArgumentInvalidError):
        require_device_id(device_id)


def test_keys_are_made_when_none_are_sent() -> None:
    made = read_authentication(None, RANDOM)
    assert (made.type, made.primary_key, made.secondary_key) == ("sas", new_key(RANDOM[0]), new_key(RANDOM[1]))


def test_keys_that_are_sent_are_kept() -> None:
    assert authentication("sas", (KEY, KEY)).primary_key == KEY


def test_thumbprints_alone_mean_self_signed() -> None:
    made = authentication(None, prints=(SHA1, SHA256))
    assert (made.type, made.primary_thumbprint, made.secondary_thumbprint) == ("selfSigned", SHA1, SHA256)
    assert made.primary_key is None


def test_self_signed_without_a_thumbprint_is_taken() -> None:
    assert authentication("selfSigned").primary_thumbprint is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "sas", "keys": (KEY, None)}, "both keys"),
        ({"kind": "sas", "keys": ("x", "y")}, "primaryKey is not base64"),
        ({"kind": "selfSigned", "prints": ("0A:0B", None)}, "StringIsNotThumbprint"),
        ({"kind": "certificateAuthority"}, "not served"),
        ({"kind": "none"}, "sas and selfSigned"),
    ],
)
def test_what_is_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ArgumentInvalidError, match=reason):
        authentication(**arguments)


def test_status() -> None:
    assert read_status(IdentityBody()) == "enabled"
    assert read_status(IdentityBody(status="Disabled")) == "disabled"
    with pytest.raises(ArgumentInvalidError):
        read_status(IdentityBody(status="paused"))
    with pytest.raises(ArgumentInvalidError):
        read_status(IdentityBody(status_reason="x" * 129))


def test_the_id_of_the_body_is_that_of_the_path() -> None:
    require_same_id("d", "d")
    with pytest.raises(ArgumentNullError):
        require_same_id("d", None)
    with pytest.raises(ArgumentInvalidError):
        require_same_id("d", "D")


def test_a_generation_id_has_18_digits_and_grows() -> None:
    first, later = generation_id(1_790_000_000_000_000, b"\x00\x00"), generation_id(1_790_000_001_000_000, b"\x00\x00")
    assert first.isdigit()
    assert len(first) == 18
    assert int(first) < int(later)


def test_views() -> None:
    identity = Identity(
        device_id="d",
        generation_id="1",
        etag=7,
        status="enabled",
        authentication_type="selfSigned",
        primary_thumbprint=SHA1,
        device_scope="ms-azure-iot-edge://d-1",
        parent_scopes=("ms-azure-iot-edge://p-1",),
    )
    view = identity_view(
        identity, ConnectionTimes(connected=True, state_updated=0, last_activity=1_790_000_000_000_000)
    )
    assert view["etag"] == "Nw=="
    assert view["connectionState"] == "Connected"
    assert view["connectionStateUpdatedTime"] == "0001-01-01T00:00:00Z"
    assert view["authentication"]["x509Thumbprint"] == {"primaryThumbprint": SHA1, "secondaryThumbprint": None}
    assert view["deviceScope"] == "ms-azure-iot-edge://d-1"
    assert view["parentScopes"] == ["ms-azure-iot-edge://p-1"]


def test_keys_of_an_identity() -> None:
    assert Identity(
        device_id="d", generation_id="1", etag=1, status="enabled", authentication_type="sas", primary_key=KEY
    ).keys == (KEY,)
