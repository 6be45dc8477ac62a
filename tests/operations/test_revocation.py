"""Revocation lists in the hands of both services: who is refused, what is told, and who is disconnected when.

``dev-01`` is under ``Line A``, which is under ``Plant Root``.
"""

import base64
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_amqp import AmqpClients
from tests.support.fix_amqp_devices import devices_opener, events_link
from tests.support.fix_ca import intermediate, key, leaf, order, root, to_der
from tests.support.fix_ca import to_pem as certificates_pem
from tests.support.fix_mqtt import MqttClient, MqttClients, until
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.config import ConfigurationError
from muster.domain.credential import Credential
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody, ThumbprintBody
from muster.domain.errors import InvalidCertificateError, TokenExpiredError
from muster.domain.report import Check, Report
from muster.domain.timestamp import DAY
from muster.dps.attestations import DeviceLogin
from muster.hub.authentication import DeviceLogin as HubLogin
from muster.pki.certificate import sha1_thumbprint
from muster.pki.issuance import Issuer, issue
from muster.pki.revocation import Revocation, sign_revocation_list, to_pem
from muster.server.revocation import RevocationWatch
from muster.wire.mqtt_packets import Connack

DEVICE, LINE, ROOT = (to_der(one) for one in (leaf(), intermediate().certificate, root().certificate))
SERIAL = leaf().serial_number
LINE_SERIAL = intermediate().certificate.serial_number


class Plant:
    """A directory with the CAs' certificates and the lists that a test puts there, and the watch that follows it."""

    def __init__(self, path: Path, services: Services) -> None:
        self.path = path
        self.services = services
        self.put("ca.pem", certificates_pem(intermediate().certificate, root().certificate))
        self.watch = RevocationWatch([path], services.revocations, services.revoked_sessions, services.clock)
        self.number = 0

    def put(self, name: str, content: bytes) -> None:
        (self.path / ".new").write_bytes(content)
        (self.path / ".new").replace(self.path / name)

    def revoke(
        self, *serials: int, issuer: Issuer | None = None, reason: str = "keyCompromise", days: int = 30
    ) -> None:
        """The next list of a CA; ``line.crl`` unless it is another's."""
        self.number += 1
        issuer, now = issuer or intermediate(), self.services.clock()
        revocations = [Revocation(one, now - DAY, reason) for one in serials]
        content = sign_revocation_list(issuer, revocations, self.number, now + self.number, now + days * DAY)
        self.put("line.crl" if issuer == intermediate() else "root.crl", to_pem(content))

    async def look(self) -> None:
        await self.watch.look()


@pytest.fixture
async def plant(tmp_path: Path, services: Services) -> Any:
    """Nothing is revoked yet."""
    (tmp_path / "ca").mkdir()
    made = Plant(tmp_path / "ca", services)
    pem = certificates_pem(root().certificate).decode()
    await services.authorities.put(ID_SCOPE, "plant-root", pem, is_verified=True, if_match=None)
    task = made.watch.start()
    yield made
    task.cancel()


def presented(*certificates: bytes) -> Credential:
    return Credential(certificates, "", "127.0.0.1:5000 MQTT TLSv1.2")


async def register(services: Services, credential: Credential) -> str:
    login = DeviceLogin(ID_SCOPE, "dev-01")
    operation = await services.registrations.register(login, credential, b"")
    await services.registrations.stop(within=60)
    return (await services.registrations.status(login, operation.registration.operation_id)).registration.status


async def refusal(services: Services, credential: Credential) -> Check:
    """What the one refusing check of a registration says."""
    with pytest.raises(InvalidCertificateError) as caught:
        await register(services, credential)
    (report,) = await services.reports.find(caught.value.tracking_id or "")
    assert report.answer == "401002 Invalid certificate."
    return refusing(report)


def refusing(report: Report) -> Check:
    (found,) = [one for one in report.checks if one.outcome == "refused"]
    return found


def x509(**kind: Any) -> dict[str, Any]:
    return {"type": "x509", "x509": kind}


def pem_of(certificate: bytes) -> dict[str, Any]:
    return {"primary": {"certificate": base64.b64encode(certificate).decode()}}


ENROLLMENTS = {
    "its own certificate": ("dev-01", x509(clientCertificates=pem_of(DEVICE))),
    "a CA of its own": ("dev-01", x509(signingCertificates=pem_of(LINE))),
    "a reference to a CA": ("dev-01", x509(caReferences={"primary": "plant-root"})),
    "a group by its intermediate": (None, x509(signingCertificates=pem_of(LINE))),
    "a group by its root": (None, x509(caReferences={"primary": "plant-root"})),
}


@pytest.fixture(params=ENROLLMENTS)
async def enrolled(request: pytest.FixtureRequest, plant: Plant) -> Plant:
    """``dev-01`` in every way in which certificates enroll."""
    registration_id, attestation = ENROLLMENTS[request.param]
    if registration_id is None:
        await plant.services.enroll_group("line-a", attestation)
    else:
        await plant.services.enroll_by(registration_id, attestation)
    return plant


# The provisioning service


async def test_a_revoked_device(enrolled: Plant) -> None:
    services, credential = enrolled.services, presented(DEVICE, LINE)
    assert await register(services, credential) == "assigned"
    enrolled.revoke(SERIAL)
    await enrolled.look()
    found = await refusal(services, credential)
    assert found.id == "x509.revocation"
    assert f'"CN=dev-01", serial number {SERIAL:X}, is revoked since 2026-09-20T' in found.detail
    assert f'reason keyCompromise, by list 1 of "CN=Line A" in "{enrolled.path}/line.crl"' in found.detail
    assert "muster ca issue NAME" in found.fix


async def test_a_device_below_a_revoked_ca(enrolled: Plant) -> None:
    enrolled.revoke(LINE_SERIAL, issuer=root(), reason="cACompromise")
    await enrolled.look()
    found = await refusal(enrolled.services, presented(DEVICE, LINE))
    assert (found.id, "reason cACompromise" in found.detail) == ("x509.revocation", True)


async def test_a_hold_that_is_lifted(enrolled: Plant) -> None:
    enrolled.revoke(SERIAL, reason="certificateHold")
    await enrolled.look()
    assert "muster ca unhold" in (await refusal(enrolled.services, presented(DEVICE, LINE))).fix
    enrolled.revoke()
    await enrolled.look()
    assert await register(enrolled.services, presented(DEVICE, LINE)) == "assigned"


async def test_a_device_that_keeps_its_issuer_to_itself(plant: Plant) -> None:
    await plant.services.enroll_by("dev-01", x509(clientCertificates=pem_of(DEVICE)))
    plant.revoke(LINE_SERIAL, issuer=root())
    await plant.look()
    assert (await refusal(plant.services, presented(DEVICE))).id == "x509.revocation"


async def test_a_registration_that_goes_on_is_judged_at_every_poll(enrolled: Plant) -> None:
    services, login = enrolled.services, DeviceLogin(ID_SCOPE, "dev-01")
    operation = await services.registrations.register(login, presented(DEVICE, LINE), b"")
    await services.registrations.stop(within=60)
    enrolled.revoke(SERIAL)
    await enrolled.look()
    with pytest.raises(InvalidCertificateError):
        await services.registrations.poll(login, presented(DEVICE, LINE), operation.registration.operation_id)


async def test_an_overdue_list_warns(enrolled: Plant, caplog: pytest.LogCaptureFixture) -> None:
    enrolled.revoke(days=1)
    enrolled.services.clock.advance(2 * DAY)
    with caplog.at_level(logging.WARNING, "muster.revocation"):
        await enrolled.look()
        await enrolled.look()
    overdue = [text for text in caplog.messages if "a newer list is overdue" in text]
    assert len(overdue) == 1, "told once"
    assert await register(enrolled.services, presented(DEVICE, LINE)) == "assigned"
    (report,) = await enrolled.services.reports.find("dev-01")
    assert report.verdict == "warned"
    assert "x509.revocation-list" in [one.id for one in report.checks if one.outcome == "warned"]


async def test_without_the_option_nothing_is_asked(services: Services) -> None:
    await services.enroll_by("dev-01", x509(clientCertificates=pem_of(DEVICE)))
    found = await services.attestations.judge(DeviceLogin(ID_SCOPE, "dev-01"), presented(DEVICE))
    assert not [one for one in found.checks if "revocation" in one.id]


async def test_a_huge_certificate_is_refused_before_it_is_read(services: Services) -> None:
    await services.enroll_by("dev-01", x509(clientCertificates=pem_of(DEVICE)))
    huge = b"\x30\x83" + (40_000).to_bytes(3) + bytes(40_000)
    with pytest.raises(InvalidCertificateError) as caught:
        await register(services, presented(huge, LINE))
    (report,) = await services.reports.find(caught.value.tracking_id or "")
    parsed = next(one for one in report.checks if one.id == "x509.parses")
    assert "it has 40005 bytes, and no certificate of more than 32768 is read" in parsed.detail


# Whose list


async def test_a_list_that_another_signed_does_not_count(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    await plant.services.enroll_by("dev-01", x509(clientCertificates=pem_of(DEVICE)))
    namesake = Issuer(issue(order("Line A", "intermediate-ca", kind="ec-p384"), root()), key("Line A", "ec-p384"))
    plant.revoke(SERIAL, issuer=namesake)
    with caplog.at_level(logging.WARNING, "muster.revocation"):
        await plant.look()
    (warning,) = caplog.messages
    assert warning.startswith("list 1 of CN=Line A in ")
    assert warning.endswith("did not sign it, or may not: it does not count")
    assert await register(plant.services, presented(DEVICE, LINE)) == "assigned"


async def test_a_list_without_its_ca_is_told(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    (plant.path / "ca.pem").unlink()
    plant.revoke(SERIAL)
    with caplog.at_level(logging.WARNING, "muster.revocation"):
        await plant.look()
    assert "the certificate of that CA is not beside it" in caplog.messages[0]
    # Which is why it is told: only the group knows the CA here, not the hub.
    await plant.services.enroll_group("line-a", x509(signingCertificates=pem_of(LINE)))
    assert (await refusal(plant.services, presented(DEVICE, LINE))).id == "x509.revocation"


async def test_a_broken_file_changes_nothing_but_the_log(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    await plant.services.enroll_by("dev-01", x509(clientCertificates=pem_of(DEVICE)))
    plant.revoke(SERIAL)
    await plant.look()
    plant.put("line.crl", b"half a list")
    with caplog.at_level(logging.WARNING, "muster.revocation"):
        await plant.look()
        await plant.look()
    (warning,) = caplog.messages
    assert f"{plant.path}/line.crl cannot be read" in warning
    assert "go on to count" in warning
    assert (await refusal(plant.services, presented(DEVICE))).id == "x509.revocation"


async def test_a_broken_file_at_the_start_is_an_error(tmp_path: Path, services: Services) -> None:
    for path, text in ((tmp_path / "nothing", "No such file"), (tmp_path / "line.crl", "neither a revocation list")):
        if path.suffix:
            path.write_bytes(b"garbage")
        watch = RevocationWatch([path], services.revocations, services.revoked_sessions, services.clock)
        with pytest.raises(ConfigurationError, match=text):
            watch.start()
    assert services.revocations.known is None


# The hub


@pytest.fixture
async def identities(plant: Plant) -> None:
    """``dev-01`` by its thumbprint, ``d2`` by a key."""
    by = AuthenticationBody("selfSigned", None, ThumbprintBody(sha1_thumbprint(DEVICE), None))
    await plant.services.devices.put("hub", "dev-01", IdentityBody(device_id="dev-01", authentication=by), None)
    keys = AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY))
    await plant.services.devices.put("hub", "d2", IdentityBody(device_id="d2", authentication=keys), None)


@pytest.fixture
def openers(services: Services) -> Sequence[Any]:
    return (devices_opener(services),)


@pytest.fixture
def sessions(plant: Plant, identities: None, mqtt: MqttClients) -> MqttClients:
    return mqtt


async def is_gone(services: Services, device_id: str) -> None:
    async def disconnected() -> bool:
        _, times = await services.devices.get("hub", device_id)
        return not times.connected

    await until(disconnected)


async def test_a_revoked_device_is_refused_by_the_hub(plant: Plant, sessions: MqttClients) -> None:
    plant.revoke(SERIAL)
    await plant.look()
    client = sessions.open(DEVICE, LINE)
    await client.send(sessions.hub_connect("dev-01"))
    await client.is_refused(5)
    (report,) = await plant.services.reports.find("dev-01")
    found = refusing(report)
    assert (found.id, report.operation) == ("device.revocation", "connect")
    assert "reason keyCompromise, by list 1" in found.detail


@pytest.mark.parametrize("certificates", [(DEVICE,), (DEVICE, LINE)])
@pytest.mark.parametrize("above", [False, True])
async def test_requests_are_judged_each_time(
    plant: Plant, identities: None, certificates: tuple[bytes, ...], above: bool
) -> None:
    services = plant.services
    login = HubLogin(services.hub, "hub.example.net", "dev-01", "")
    await services.authentication.authenticate(login, presented(*certificates))
    plant.revoke(LINE_SERIAL if above else SERIAL, issuer=root() if above else intermediate())
    await plant.look()
    with pytest.raises(TokenExpiredError):
        await services.authentication.authenticate(login, presented(*certificates))


async def test_a_live_session_ends_when_its_certificate_is_revoked(plant: Plant, sessions: MqttClients) -> None:
    revoked: MqttClient = await sessions.to_hub("dev-01", certificate=DEVICE)
    other = await sessions.to_hub("d2", key=KEY)
    await plant.look()
    assert plant.services.sessions.count == 2
    plant.revoke(SERIAL)
    await plant.look()
    await revoked.is_closed()
    await is_gone(plant.services, "dev-01")
    (report,) = await plant.services.reports.find("dev-01")
    assert (report.operation, report.answer) == ("stay connected", "the connection was closed")
    assert refusing(report).id == "device.revocation"
    await other.publish("devices/d2/messages/events/", b"still here")
    await plant.look()
    assert len(await plant.services.reports.find("dev-01")) == 1


async def test_the_links_of_a_device_over_amqp_end_too(plant: Plant, identities: None, amqp: AmqpClients) -> None:
    """Its connection stays, as it does for every refusal over AMQP."""
    client = await amqp.open(DEVICE)
    link = await events_link(client, "dev-01")
    other = await amqp.open()
    await (await other.cbs()).put_device("d2", KEY)
    await events_link(other, "d2")
    plant.revoke(SERIAL)
    await plant.look()
    await client.is_detached(link, "amqp:unauthorized-access")
    await is_gone(plant.services, "dev-01")
    assert plant.services.sessions.count == 1
    again = client.attach("/devices/dev-01/messages/events", sender=True)
    await client.send(again)
    await client.is_refused(again, "amqp:unauthorized-access")


async def test_a_session_below_a_revoked_ca_ends_too(plant: Plant, sessions: MqttClients) -> None:
    client = await sessions.to_hub("dev-01", certificate=DEVICE)
    plant.revoke(LINE_SERIAL, issuer=root())
    await plant.look()
    await client.is_closed()


async def test_a_device_comes_back_when_the_hold_is_lifted(plant: Plant, sessions: MqttClients) -> None:
    client = await sessions.to_hub("dev-01", certificate=DEVICE)
    plant.revoke(SERIAL, reason="certificateHold")
    await plant.look()
    await client.is_closed()
    plant.revoke()
    await plant.look()
    await sessions.to_hub("dev-01", certificate=DEVICE)


@pytest.mark.parametrize("above", [False, True])
async def test_a_device_of_a_ca_that_the_hub_trusts(plant: Plant, *, above: bool) -> None:
    services = plant.services
    pem = certificates_pem(root().certificate).decode()
    await services.hub_authorities.put("hub", "plant-root", pem, is_verified=True, if_match=None)
    body = IdentityBody(device_id="dev-01", authentication=AuthenticationBody("certificateAuthority"))
    await services.devices.put("hub", "dev-01", body, None)
    login = HubLogin(services.hub, "hub.example.net", "dev-01", "")
    principal = await services.authentication.authenticate(login, presented(DEVICE, LINE))
    assert principal.certificates == (DEVICE, LINE)
    plant.revoke(LINE_SERIAL if above else SERIAL, issuer=root() if above else intermediate())
    await plant.look()
    with pytest.raises(TokenExpiredError):
        await services.authentication.authenticate(login, presented(DEVICE, LINE))


async def test_a_token_is_not_asked_for_revocation(plant: Plant, sessions: MqttClients) -> None:
    """Whatever certificate comes along with it."""
    plant.revoke(SERIAL)
    await plant.look()
    client = sessions.open(DEVICE, LINE)
    await client.send(sessions.hub_connect("d2", key=KEY))
    assert await client.receive(Connack) == Connack()
    await plant.look()
    assert not client.transport.closing
