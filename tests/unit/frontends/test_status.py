"""What services tell a device, by what it came with and by the transport (dps.md 4.1, 4.6, 11; hub-device.md 9.9)."""

import json

import pytest

from muster.domain.check_table import CHECKS
from muster.domain.errors import (
    AddressNotFoundError,
    EnrollmentNotFoundError,
    ForcedByFaultError,
    ServerError,
    ServiceError,
    ThrottledError,
    TooManyLinksError,
    TooManyTokensError,
    UnauthorizedAccessError,
)
from muster.frontends.status import amqp_error, provisioning_body, provisioning_mqtt_body
from muster.wire.amqp_types import Symbol


@pytest.mark.parametrize(
    ("check_id", "over_https", "over_mqtt"),
    [
        ("enrollment.exists", 401002, 401002),
        ("enrollment.exists-for-key", 401002, 401000),
        ("enrollment.exists-for-tpm", 404201, 404201),
        ("enrollment.attestation", 401002, 401000),
        ("id-scope.known", 401002, 401000),
        ("sas.signature", 401002, 401000),
        ("sas.derived-key", 401002, 401000),
        ("x509.thumbprint", 401002, 401002),
    ],
)
def test_unauthorized_has_a_number_of_its_own_over_mqtt(check_id, over_https, over_mqtt):
    error = CHECKS[check_id].error
    told = [json.loads(body(error(), "t", 0)) for body in (provisioning_body, provisioning_mqtt_body)]
    assert [one["errorCode"] for one in told] == [over_https, over_mqtt]
    assert told[0]["message"] == told[1]["message"] == error().message


@pytest.mark.parametrize("error", [EnrollmentNotFoundError("gone"), ThrottledError()])
def test_other_errors_are_the_same_over_mqtt(error):
    assert provisioning_mqtt_body(error, "t", 0) == provisioning_body(error, "t", 0)


@pytest.mark.parametrize(
    ("error", "condition"),
    [
        (AddressNotFoundError("no"), "amqp:not-found"),
        (UnauthorizedAccessError(), "amqp:unauthorized-access"),
        (TooManyTokensError(), "amqp:resource-limit-exceeded"),
        (TooManyLinksError(), "amqp:resource-limit-exceeded"),
        (ForcedByFaultError(), "amqp:connection:forced"),
        (ThrottledError(), "com.microsoft:device-container-throttled"),
        (ServerError(), "amqp:internal-error"),
    ],
)
def test_over_amqp_it_is_a_condition_and_json(error: ServiceError, condition: str) -> None:
    told = amqp_error(error, "guid", 0)
    assert told.condition == condition
    assert told.description is not None
    assert json.loads(told.description) == {
        "errorCode": error.code,
        "trackingId": "guid",
        "message": error.message,
        "timestampUtc": "1970-01-01T00:00:00.0000000Z",
    }
    assert told.info == {
        Symbol("com.microsoft:is-filtered"): True,
        Symbol("com.microsoft:tracking-id"): "guid",
    }
