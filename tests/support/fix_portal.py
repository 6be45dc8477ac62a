"""The portal on the services of a test, and ways to make something for it to show."""

import asyncio
import os
from collections.abc import Callable, Mapping

import msgspec

from muster.domain.credential import Credential
from muster.domain.errors import ServiceError
from muster.dps.attestations import DeviceLogin
from muster.hub.event_batches import Messages, Run
from muster.portal.app import Portal, create_portal
from tests.support.fix_pki import Identity, root
from tests.support.fix_services import ID_SCOPE, Services

HOSTILE = "<script>window.pwned=1</script>"
HOSTILE_ATTRIBUTE = '"><img src=x onerror=window.pwned=1>'

DESCRIPTION = {
    "version": "0.1.0",
    "mode": "up",
    "uptimeSeconds": 3_700,
    "clockOffsetSeconds": 0,
    "persistence": "SQLite in /srv/data",
    "endpoints": [{"address": "127.0.0.1", "port": 8883}, {"address": "127.0.0.1", "port": 443}],
}


def portal_of(
    services: Services, *, start_token: str | None = None, clock: Callable[[], int] | None = None, **description: object
) -> Portal:
    """The portal over ``services``; ``description`` changes what the server says of itself."""
    return create_portal(
        provisioning=services.provisioning,
        enrollments=services.enrollments,
        records=services.records,
        hubs=services.hubs,
        events=services.events,
        reports=services.reports,
        host_names=frozenset({"muster.example"}),
        clock=clock or services.clock,
        start_token=start_token,
        ca_certificate=root().certificate_pem,
        describe=lambda: {**DESCRIPTION, **description},
        entropy=os.urandom,
    )


async def send_event(
    services: Services,
    device_id: str,
    body: bytes,
    properties: Mapping[str, str] | None = None,
    *,
    partition: int = 0,
    source: str = "Telemetry",
) -> None:
    """A device-to-cloud message, on disk when this returns."""
    await send_events(services, [(device_id, body, properties or {})], partition=partition, source=source)


async def send_events(
    services: Services,
    messages: list[tuple[str, bytes, Mapping[str, str]]],
    *,
    partition: int = 0,
    source: str = "Telemetry",
) -> None:
    """Several messages in one commit."""
    method = '{"scope":"device","type":"x509Certificate","issuer":"external","acceptingIpFilterRule":null}'
    committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: BaseException | None) -> None:
        if error is None:
            committed.set_result(None)
        else:
            committed.set_exception(error)

    runs: list[Run] = []
    for device_id, body, properties in messages:
        stamps = (source, device_id, "", "638000000000000000", method, "")
        runs.append(((*stamps, "{}", msgspec.json.encode(properties).decode()), [body]))
    services.events.append(services.hub.name, partition, Messages.of(*runs), done)
    await committed


async def try_to_register(services: Services, registration_id: str, *identities: Identity) -> str | None:
    """Register as a device does; the tracking id of its refusal, None when it was assigned or disabled."""
    certificates = tuple(identity.certificate for identity in identities)
    credential = Credential(certificates, "", "127.0.0.1:40112 MQTT TLSv1.2")
    try:
        await services.registrations.register(DeviceLogin(ID_SCOPE, registration_id), credential, b"")
    except ServiceError as error:
        return error.tracking_id
    await services.registrations.stop(within=60)
    return None
