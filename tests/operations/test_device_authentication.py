"""Who may connect to a hub as which device or module, and what a refusal leaves behind (hub-device.md 2)."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from tests.support import fix_pki
from tests.support.fix_services import KEY, Services

from muster.domain.credential import Credential
from muster.domain.device import IdentityBody
from muster.domain.errors import DeviceNotFoundError, InvalidSignatureError, ServiceError, UnauthorizedAccessError
from muster.domain.module import ModuleBody
from muster.domain.sas import create_token, sign
from muster.domain.timestamp import SECOND
from muster.hub.authentication import DeviceLogin, Principal
from muster.pki.certificate import sha256_thumbprint

HOST = "hub.example.net"
MODULE_KEY = "ISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A="
CA = {"type": "certificateAuthority"}


@pytest.fixture(autouse=True)
async def machine_time(services: Services) -> None:
    """Certificates count by the machine's clock."""
    services.clock.now = time.time_ns() // 1000


def sas(key: str) -> dict[str, Any]:
    return {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}


async def add(services: Services, name: str, authentication: dict[str, Any], **members: Any) -> None:
    device_id, _, module_id = name.partition("/")
    body = {"deviceId": device_id, "moduleId": module_id, "authentication": authentication, **members}
    if module_id:
        await services.modules.put("hub", device_id, module_id, msgspec.convert(body, ModuleBody), None)
    else:
        await services.devices.put("hub", device_id, msgspec.convert(body, IdentityBody), None)


async def connect(
    services: Services, name: str, token: str = "", certificates: Sequence[bytes] = (), host: str = HOST
) -> Principal:
    device_id, _, module_id = name.partition("/")
    login = DeviceLogin(services.hub, host, device_id, module_id)
    return await services.authentication.authenticate(login, Credential(tuple(certificates), token, "test"))


async def refused(services: Services, name: str, error: type[ServiceError], **credential: Any) -> list[str]:
    """The checks that refused, as the report has them; the error is exactly this one."""
    with pytest.raises(ServiceError) as caught:
        await connect(services, name, **credential)
    assert type(caught.value) is error
    assert caught.value.tracking_id is not None
    (report,) = await services.reports.find(caught.value.tracking_id)
    assert (report.subject, report.operation) == (name, "connect")
    failed = [item for item in report.checks if item.outcome == "refused"]
    assert all(item.detail and item.fix for item in failed)
    return [item.id for item in failed]


def token(services: Services, resource: str, key: str = KEY, policy: str = "") -> str:
    return create_token(resource, key, services.clock.now // SECOND + 600, policy)


# Shared access signatures


@pytest.mark.parametrize(
    "spell",
    [
        lambda resource: resource,
        lambda resource: quote(resource, safe=""),
        lambda resource: quote(resource, safe="").replace("%2F", "%2f"),
        quote,
    ],
    ids=["raw", "encoded", "lower-case hex", "slashes kept"],
)
@pytest.mark.parametrize("order", ["sr sig se", "se sig sr", "sr sig se skn", "sr sig skn se"])
async def test_every_spelling_of_a_token(services: Services, spell: Any, order: str) -> None:
    """An empty skn is none (hub-device.md 2.2)."""
    await add(services, "d#1", sas(KEY))
    resource = spell(f"{HOST}/devices/{quote('d#1', safe='')}")
    expiry = str(services.clock.now // SECOND + 600)
    items = {"sr": resource, "se": expiry, "skn": "", "sig": quote(sign(KEY, f"{resource}\n{expiry}"), safe="")}
    text = "SharedAccessSignature " + "&".join(f"{name}={items[name]}" for name in order.split())
    assert (await connect(services, "d#1", text)).identity.device_id == "d#1"


@pytest.mark.parametrize("scope", ["", "/devices", "/devices/d1", "/devices/d1/modules/m1"])
@pytest.mark.parametrize("policy", ["device", "iothubowner"])
async def test_policies_act_for_modules(services: Services, scope: str, policy: str) -> None:
    await add(services, "d1", sas(KEY))
    await add(services, "d1/m1", sas(MODULE_KEY))
    principal = await connect(services, "d1/m1", token(services, HOST + scope, KEY, policy))
    assert principal.identity.full_name == "d1/m1"
    assert '"scope":"hub"' in principal.authentication_method


@pytest.mark.parametrize("scope", ["/devices/d2", "/devices/d1/modules/m2", "/twins"])
async def test_policies_act_only_where_their_token_says(services: Services, scope: str) -> None:
    await add(services, "d1", sas(KEY))
    await add(services, "d1/m1", sas(MODULE_KEY))
    wrong = token(services, HOST + scope, KEY, "device")
    assert await refused(services, "d1/m1", UnauthorizedAccessError, token=wrong) == ["sas.audience"]


async def test_a_policy_is_told_what_does_not_exist_and_a_device_is_not(services: Services) -> None:
    """hub-device.md 2.5: 404 belongs to policy tokens."""
    by_policy = token(services, HOST, KEY, "device")
    assert await refused(services, "none", DeviceNotFoundError, token=by_policy) == ["device.exists"]
    by_key = token(services, f"{HOST}/devices/none")
    assert await refused(services, "none", UnauthorizedAccessError, token=by_key) == ["device.exists"]
    without_right = token(services, HOST, KEY, "service")
    checks = await refused(services, "none", UnauthorizedAccessError, token=without_right)
    assert checks == ["sas.right", "device.exists"]


# Modules


async def test_a_module_has_a_key_of_its_own(services: Services) -> None:
    await add(services, "d1", sas(KEY))
    await add(services, "d1/m1", sas(MODULE_KEY))
    path = f"{HOST}/devices/d1/modules/m1"
    principal = await connect(services, "d1/m1", token(services, path, MODULE_KEY))
    assert principal.authentication_method.startswith('{"scope":"module","type":"sas"')
    device_key = token(services, path)
    assert await refused(services, "d1/m1", InvalidSignatureError, token=device_key) == ["sas.signature"]
    of_device = token(services, f"{HOST}/devices/d1", MODULE_KEY)
    assert await refused(services, "d1/m1", UnauthorizedAccessError, token=of_device) == ["sas.audience"]
    assert await refused(services, "d1/m2", UnauthorizedAccessError, token=device_key) == ["device.exists"]


async def test_a_disabled_device_disables_its_modules(services: Services) -> None:
    await add(services, "d1", sas(KEY))
    await add(services, "d1/m1", sas(MODULE_KEY))
    own = token(services, f"{HOST}/devices/d1/modules/m1", MODULE_KEY)
    principal = await connect(services, "d1/m1", own)
    login = DeviceLogin(services.hub, HOST, "d1", "m1")
    credential = Credential((), own, "test")
    assert await services.authentication.still_holds(login, credential, principal)
    body = msgspec.convert({"deviceId": "d1", "status": "disabled", "statusReason": "sold"}, IdentityBody)
    await services.devices.put("hub", "d1", body, "*")
    assert not await services.authentication.still_holds(login, credential, principal)
    with pytest.raises(ServiceError) as caught:
        await connect(services, "d1/m1", own)
    assert caught.value.code == 403012
    (report,) = await services.reports.find(caught.value.tracking_id or "")
    assert "sold" in next(item.detail for item in report.checks if item.id == "device.enabled")


async def test_the_modules_of_the_runtime_have_no_credential_at_first(services: Services) -> None:
    await add(services, "gate", sas(KEY), capabilities={"iotEdge": True})
    text = token(services, f"{HOST}/devices/gate/modules/$edgeHub")
    checks = await refused(services, "gate/$edgeHub", UnauthorizedAccessError, token=text)
    assert checks == ["device.authentication", "sas.signature"]
    by_certificate = await refused(
        services, "gate/$edgeHub", UnauthorizedAccessError, certificates=[fix_pki.self_signed("gate").certificate]
    )
    assert by_certificate == ["device.authentication"]


async def test_a_module_with_a_thumbprint(services: Services) -> None:
    own = fix_pki.self_signed("any name")
    await add(services, "d1", sas(KEY))
    thumbprint = {"primaryThumbprint": None, "secondaryThumbprint": sha256_thumbprint(own.certificate).lower()}
    await add(services, "d1/m1", {"type": "selfSigned", "x509Thumbprint": thumbprint})
    principal = await connect(services, "d1/m1", certificates=[own.certificate])
    assert principal.authentication_method.startswith('{"scope":"module","type":"x509Certificate"')
    assert principal.expiry is None


# Certificates of CAs


async def upload(services: Services, authority: fix_pki.Identity, *, verified: bool = True) -> None:
    await services.hub_authorities.put(
        "hub", "plant", authority.certificate_pem.decode(), is_verified=verified, if_match=None
    )


async def test_a_device_with_a_certificate_of_a_verified_ca(services: Services) -> None:
    await upload(services, fix_pki.root())
    await add(services, "dev-01", CA)
    leaf, inter = fix_pki.chain_leaf("dev-01"), fix_pki.intermediate()
    for sent in ([leaf, inter], [leaf, inter, fix_pki.root()]):
        principal = await connect(services, "dev-01", certificates=[one.certificate for one in sent])
        assert principal.identity.device_id == "dev-01"
        assert principal.expiry is None
    alone = await refused(services, "dev-01", UnauthorizedAccessError, certificates=[leaf.certificate])
    assert alone == ["x509.issuer-known"]


async def test_an_intermediate_that_is_verified_need_not_be_sent(services: Services) -> None:
    await upload(services, fix_pki.intermediate())
    await add(services, "dev-01", CA)
    assert await connect(services, "dev-01", certificates=[fix_pki.chain_leaf("dev-01").certificate])


async def test_a_module_with_a_certificate_of_a_ca(services: Services) -> None:
    await upload(services, fix_pki.intermediate())
    await add(services, "dev-01", CA)
    await add(services, "dev-01/m1", CA)
    leaf = fix_pki.chain_leaf("dev-01/m1").certificate
    assert (await connect(services, "dev-01/m1", certificates=[leaf])).identity.module_id == "m1"
    assert await refused(services, "dev-01", UnauthorizedAccessError, certificates=[leaf]) == ["device.common-name"]


async def test_the_common_name_counts_to_the_letter(services: Services) -> None:
    await upload(services, fix_pki.intermediate())
    await add(services, "DEV-01", CA)
    leaf = fix_pki.chain_leaf("dev-01").certificate
    assert await refused(services, "DEV-01", UnauthorizedAccessError, certificates=[leaf]) == ["device.common-name"]


async def test_a_ca_that_is_not_verified(services: Services) -> None:
    await upload(services, fix_pki.root(), verified=False)
    await add(services, "dev-01", CA)
    sent = [one.certificate for one in (fix_pki.chain_leaf("dev-01"), fix_pki.intermediate(), fix_pki.root())]
    checks = await refused(services, "dev-01", UnauthorizedAccessError, certificates=sent)
    assert checks == ["device.certificate-authority"]
    authority = await services.hub_authorities.get("hub", "plant")
    await services.hub_authorities.put(
        "hub", "plant", fix_pki.root().certificate_pem.decode(), is_verified=True, if_match=authority.etag
    )
    await asyncio.sleep(0)  # the bus tells it
    assert await connect(services, "dev-01", certificates=sent)
    await services.hub_authorities.delete("hub", "plant", "*")
    await asyncio.sleep(0)
    assert await refused(services, "dev-01", UnauthorizedAccessError, certificates=sent) == checks


async def test_the_ca_certificates_of_the_provisioning_service_are_not_the_hubs(services: Services) -> None:
    pem = fix_pki.intermediate().certificate_pem.decode()
    await services.authorities.put(services.service.id_scope, "plant", pem, is_verified=True, if_match=None)
    await add(services, "dev-01", CA)
    leaf = fix_pki.chain_leaf("dev-01").certificate
    assert await refused(services, "dev-01", UnauthorizedAccessError, certificates=[leaf]) == ["x509.issuer-known"]


@pytest.mark.parametrize(
    ("certificates", "checks"),
    [
        ([], ["device.certificate-presented"]),
        ([b"no certificate"], ["x509.parses"]),
        ([fix_pki.self_signed("dev-01").certificate], ["x509.issuer-known"]),
    ],
)
async def test_what_is_no_certificate_of_the_ca(
    services: Services, certificates: list[bytes], checks: list[str]
) -> None:
    await upload(services, fix_pki.root())
    await add(services, "dev-01", CA)
    assert await refused(services, "dev-01", UnauthorizedAccessError, certificates=certificates) == checks


async def test_fixes_name_the_hub(services: Services) -> None:
    await add(services, "dev-01", CA)
    with pytest.raises(UnauthorizedAccessError) as caught:
        await connect(services, "dev-01", certificates=[fix_pki.chain_leaf("dev-01").certificate])
    (report,) = await services.reports.find(caught.value.tracking_id or "")
    fix = next(item.fix for item in report.checks if item.id == "x509.issuer-known")
    assert "muster certificate upload inter.pem --verify --hub hub" in fix
    assert "enroll" not in fix


async def test_a_token_where_a_certificate_is_asked_for(services: Services) -> None:
    await add(services, "dev-01", CA)
    text = token(services, f"{HOST}/devices/dev-01")
    checks = await refused(services, "dev-01", UnauthorizedAccessError, token=text)
    assert checks[0] == "device.authentication"
