import pytest

from muster.domain.access_policy import HUB_POLICIES, PROVISIONING_POLICIES, AccessPolicy, Right


def policy(name: str) -> AccessPolicy:
    return AccessPolicy(name, "a", "b", {**HUB_POLICIES, **PROVISIONING_POLICIES}[name])


@pytest.mark.parametrize(
    ("name", "granted"),
    [
        ("iothubowner", {"RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"}),
        ("service", {"ServiceConnect"}),
        ("device", {"DeviceConnect"}),
        ("registryRead", {"RegistryRead"}),
        ("registryReadWrite", {"RegistryRead", "RegistryWrite"}),
        (
            "provisioningserviceowner",
            {
                "ServiceConfig",
                "DeviceConnect",
                "EnrollmentRead",
                "EnrollmentWrite",
                "RegistrationStatusRead",
                "RegistrationStatusWrite",
            },
        ),
    ],
)
def test_rights(name: str, granted: set[str]) -> None:
    assert {right for right in Right if policy(name).grants(right)} == granted


def test_rights_are_separated_by_comma_and_space() -> None:
    assert policy("iothubowner").rights.split(", ") == ["RegistryWrite", "ServiceConnect", "DeviceConnect"]


def test_both_keys_count() -> None:
    assert policy("service").keys == ("a", "b")
