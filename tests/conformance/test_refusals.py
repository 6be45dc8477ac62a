"""Refusals with the unmodified device SDK: what it says, as with Azure, and what ``muster why`` says of the same."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_checks import Explain, provokes
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_pki import Identity, chain_leaf, expired, not_yet_valid, other_self_signed, self_signed, to_pem
from tests.support.fix_server import ID_SCOPE, MusterServer, free_address

from muster.domain.sas import create_token
from muster.domain.timestamp import DAY, SECOND

KEY = base64.b64encode(bytes(range(32))).decode()
UNAUTHORIZED = "ServiceError: register request returned a service error status code 401"
DISABLED = (
    "ServiceError: Query Status Operation encountered an invalid registration status disabled with a status code of 200"
)
AHEAD_DAYS = 400


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


def files(identity: Identity, directory: Path) -> dict[str, str]:
    certificate, key = identity.write(directory)
    return {"certificate": str(certificate), "key": str(key)}


def pem(identity: Identity) -> str:
    return identity.certificate_pem.decode()


def refused_checks(report: dict[str, Any]) -> list[str]:
    return [item["id"] for item in report["checks"] if item["outcome"] == "refused"]


def require_explained(
    server: MusterServer, registration_id: str, check_id: str, verdict: str = "refused"
) -> dict[str, Any]:
    """``muster why`` names this check and a way out; its report."""
    report: dict[str, Any] = server.cli_json("why", registration_id)[0]
    assert (report["service"], report["operation"]) == ("dps", "register")
    assert report["subject"] == registration_id
    assert report["verdict"] == verdict
    assert refused_checks(report) == [check_id]
    check = next(item for item in report["checks"] if item["id"] == check_id)
    assert check["detail"]
    assert check["fix"]
    return report


def require_refused(
    server: MusterServer, error: object, registration_id: str, check_id: str, message: str = "Invalid certificate."
) -> None:
    """The SDK raised what Azure's 401 makes of it, and ``muster why`` explains it."""
    assert isinstance(error, SdkError), error
    assert error.kind == "ClientError"
    assert error.causes[0] == UNAUTHORIZED
    report = require_explained(server, registration_id, check_id)
    assert report["answer"] == f"401002 {message}"


def test_registrations_that_are_refused(
    muster: MusterServer, https: HttpsClient, device: SdkClient, tmp_path: Path
) -> None:
    """All together, as registering waits two seconds."""
    directories = {name: tmp_path / name for name in ("wrong", "name", "leaf", "none", "scope", "old", "early")}
    for directory in directories.values():
        directory.mkdir()
    https.enroll("wrong-cert", pem(self_signed("wrong-cert")))
    https.enroll("wrong-name", pem(self_signed("another-name")))
    chain = chain_leaf("ca-enrolled")
    https.enroll("ca-enrolled", to_pem(chain.chain[0]).decode())
    https.enroll("no-cert", pem(self_signed("no-cert")))
    https.enroll("wrong-scope", pem(self_signed("wrong-scope")))
    https.enroll("old-cert", pem(expired("old-cert")))
    https.enroll("early-cert", pem(not_yet_valid("early-cert")))
    cases = [
        ("wrong-cert", ID_SCOPE, other_self_signed("wrong-cert"), "wrong", "x509.thumbprint"),
        ("wrong-name", ID_SCOPE, self_signed("another-name"), "name", "x509.common-name"),
        ("ca-enrolled", ID_SCOPE, chain, "leaf", "x509.thumbprint"),
        ("not-enrolled", ID_SCOPE, self_signed("not-enrolled"), "none", "enrollment.exists"),
        ("wrong-scope", "0neFFFFFFFF", self_signed("wrong-scope"), "scope", "id-scope.known"),
        ("old-cert", ID_SCOPE, expired("old-cert"), "old", "x509.not-after"),
        ("early-cert", ID_SCOPE, not_yet_valid("early-cert"), "early", "x509.not-before"),
    ]
    requests: list[dict[str, Any]] = [
        {"registration_id": registration_id, "id_scope": id_scope, **files(identity, directories[name])}
        for registration_id, id_scope, identity, name, _ in cases
    ]
    requests.append({"registration_id": "no-cert", "id_scope": ID_SCOPE})
    errors = device.call_all("register", requests)
    unauthorized = "Unauthorized, over MQTT 401000"
    messages = {"not-enrolled": "CA certificate not found.", "wrong-scope": unauthorized}
    for (registration_id, _, _, _, check_id), error in zip(cases, errors, strict=False):
        message = messages.get(registration_id, "Invalid certificate.")
        require_refused(muster, error, registration_id, check_id, message)
    require_refused(muster, errors[-1], "no-cert", "enrollment.attestation", unauthorized)
    for registration_id, *_ in cases:
        answer = https.request("GET", f"/registrations/{registration_id}?api-version=2021-10-01")
        assert answer.status == 404  # a refusal leaves no registration

    listed = muster.cli_json("why")  # without an id: the last refusals
    for registration_id, _, _, _, check_id in cases:
        report = next(item for item in listed if item["subject"] == registration_id)
        assert refused_checks(report) == [check_id]
        if registration_id == "wrong-cert":
            assert muster.cli_json("why", report["trackingId"]) == [report]
            told = muster.cli("why", registration_id).stdout
            check = next(item for item in report["checks"] if item["id"] == check_id)
            assert check_id in told
            assert check["fix"].split(":")[0] in told


def test_a_disabled_enrollment(muster: MusterServer, https: HttpsClient, device: SdkClient, tmp_path: Path) -> None:
    """202, then 200 with status disabled: the SDK calls that an invalid registration status (dps.md 2.6)."""
    identity = self_signed("disabled-1")
    https.enroll("disabled-1", pem(identity), provisioningStatus="disabled")
    with pytest.raises(SdkError) as caught:
        device.call("register", registration_id="disabled-1", id_scope=ID_SCOPE, **files(identity, tmp_path))
    assert caught.value.causes[0] == DISABLED
    require_explained(muster, "disabled-1", "enrollment.enabled", "disabled")
    state = https.request("GET", "/registrations/disabled-1?api-version=2021-10-01").json
    assert state["status"] == "disabled"
    assert state["etag"]
    assert state["lastUpdatedDateTimeUtc"]
    assert https.request("GET", "/devices/disabled-1?api-version=2021-04-12").status == 404

    https.enroll("disabled-1", pem(identity), provisioningStatus="enabled")
    again = device.call("register", registration_id="disabled-1", id_scope=ID_SCOPE, **files(identity, tmp_path))
    assert again["status"] == "assigned"


@provokes("enrollment.exists")
def test_a_refusal_over_websockets(muster: MusterServer, device: SdkClient, explain: Explain, tmp_path: Path) -> None:
    """There is no group on this server, so that nothing else could apply."""
    own = files(self_signed("not-over-wss"), tmp_path)
    with pytest.raises(SdkError) as caught:
        device.call("register", registration_id="not-over-wss", id_scope=ID_SCOPE, websockets=True, api="aio", **own)
    require_refused(muster, caught.value, "not-over-wss", "enrollment.exists", "CA certificate not found.")
    explain(muster, "not-over-wss", "enrollment.exists")


def test_a_scope_that_names_nothing_is_refused_at_once(device: SdkClient, tmp_path: Path) -> None:
    """CONNACK 5, which the SDK maps to a credential's fault (interop-facts.md 30)."""
    own = files(self_signed("empty-scope"), tmp_path)
    with pytest.raises(SdkError) as caught:
        device.call("register", registration_id="empty-scope", id_scope="", **own)
    assert caught.value.kind == "CredentialError"


def test_warnings_refuse_nobody_and_are_told(
    muster: MusterServer, https: HttpsClient, device: SdkClient, tmp_path: Path
) -> None:
    identity = self_signed("Warned-1")
    https.enroll("Warned-1", pem(identity))
    result = device.call("register", registration_id="warned-1", id_scope=ID_SCOPE, **files(identity, tmp_path))
    assert result["status"] == "assigned"
    report = muster.cli_json("why", "warned-1")[0]
    assert (report["verdict"], report["answer"]) == ("warned", "accepted")
    assert [item["id"] for item in report["checks"] if item["outcome"] == "warned"] == ["x509.common-name-case"]


# A server whose clock is ahead


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterServer]:
    """A Muster that lives 400 days later than its clients."""
    server = MusterServer(tmp_path_factory.mktemp("ahead"), free_address(), "--clock", f"+{AHEAD_DAYS}d").start()
    yield server
    assert server.stop() == 0, server.output


@pytest.fixture(scope="module")
def device_of_today(ahead: MusterServer) -> Iterator[SdkClient]:
    with SdkClient(ahead, "device.py") as client:
        yield client


def test_a_certificate_expires(ahead: MusterServer, device_of_today: SdkClient, tmp_path: Path) -> None:
    identity = self_signed("expires-1")
    HttpsClient(ahead).enroll("expires-1", pem(identity))
    with pytest.raises(SdkError) as caught:
        device_of_today.call("register", registration_id="expires-1", id_scope=ID_SCOPE, **files(identity, tmp_path))
    require_refused(ahead, caught.value, "expires-1", "x509.not-after")
    told = ahead.cli("why", "expires-1").stdout
    assert "expired on" in told
    assert "--force" in told


def device_with_key(server: MusterServer, device_id: str) -> str:
    keys = {"primaryKey": KEY, "secondaryKey": KEY}
    HttpsClient(server).create_device(device_id, authentication={"type": "sas", "symmetricKey": keys})
    return f"HostName={server.address};DeviceId={device_id};SharedAccessKey={KEY}"


def test_a_token_has_expired(ahead: MusterServer, device_of_today: SdkClient) -> None:
    """The SDK makes tokens for an hour, which is over in the time of this server."""
    connection_string = device_with_key(ahead, "expired-token")
    with pytest.raises(SdkError) as caught:
        device_of_today.call("connect", connection="expired", connection_string=connection_string)
    assert caught.value.kind == "CredentialError"
    report = ahead.cli_json("why", "expired-token")[0]
    assert refused_checks(report) == ["sas.expiry"]
    assert "clock" in next(item["fix"] for item in report["checks"] if item["id"] == "sas.expiry")


def test_a_token_expires_while_it_is_in_use(ahead: MusterServer, device_of_today: SdkClient) -> None:
    """Five minutes after its expiry its connection is closed; until then it is taken."""
    device_with_key(ahead, "expiring")
    now = time.time_ns() // 1000 + AHEAD_DAYS * DAY
    token = create_token(f"{ahead.address}/devices/expiring", KEY, now // SECOND - 283)
    device_of_today.call("connect", connection="expiring", sas_token=token)
    device_of_today.call("send", connection="expiring", messages=[{"body": "x"}])
    device_of_today.call("wait_until_closed", connection="expiring", seconds=60)
    device_of_today.call("close", connection="expiring")
