"""May this device connect? Named checks of a device's credential, and the report that a refusal leaves behind.

Sources: hub-device.md 2. Not here: the registry (``devices.py``), service clients (``access.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from muster.domain.access_policy import AccessPolicy, Right
from muster.domain.attestation import attest_device_thumbprint
from muster.domain.check_table import check, quoted, shell_word, skipped, verdict
from muster.domain.credential import Credential
from muster.domain.device import Identity
from muster.domain.device_chain import attest_device_chain
from muster.domain.errors import (
    CaCertificateNotFoundError,
    DeviceNotFoundError,
    InvalidCertificateError,
    InvalidSignatureError,
    ServiceError,
    UnauthorizedAccessError,
)
from muster.domain.message import authentication_method
from muster.domain.report import Check, Report, refusals
from muster.domain.revocation import DEVICE_REVOCATION, Revocations, check_device, not_judged
from muster.domain.sas import CLOCK_SKEW, MalformedTokenError, SasToken, check_token, parse_token
from muster.domain.x509_trust import X509Trust
from muster.hub.devices import Devices
from muster.hub.hubs import Hub, Hubs
from muster.hub.reports import Attempt, Reports
from muster.hub.trust import HubTrust


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated identity of a hub. ``expiry``: when its token stops counting (microseconds), None for a
    certificate. ``certificates``: those that it proved itself with (DER, its own first), none for a token.

    What it was judged by, beside the identity: ``policy``, whose key signed its token; ``trust``, the hub's CA
    certificates, to one of which its own leads. None where it is judged by the identity's own keys and thumbprints.
    """

    hub: Hub
    identity: Identity
    authentication_method: str
    expiry: int | None
    certificates: tuple[bytes, ...] = ()
    policy: AccessPolicy | None = None
    trust: X509Trust | None = None


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """Who a device says it is. ``host`` is the host name it wrote, which may be a gateway's (libraries.md 1)."""

    hub: Hub
    host: str
    device_id: str
    module_id: str

    @property
    def name(self) -> str:
        """``pump-01``, or ``pump-01/telemetry`` for a module."""
        return f"{self.device_id}/{self.module_id}" if self.module_id else self.device_id


@dataclass(frozen=True, slots=True)
class _Found:
    """The identity that wants to connect, and the device that it belongs to: for a device itself."""

    identity: Identity | None
    device: Identity | None


class DeviceAuthentication:
    """Judges devices and modules of all hubs."""

    def __init__(
        self,
        hubs: Hubs,
        devices: Devices,
        trust: HubTrust,
        reports: Reports,
        revocations: Revocations,
        clock: Callable[[], int],
    ) -> None:
        self._hubs = hubs
        self._devices = devices
        self._trust = trust
        self._reports = reports
        self._revocations = revocations
        self._clock = clock

    async def authenticate(self, login: DeviceLogin, credential: Credential) -> Principal:
        """Raises what the first refusing check says, with the ``tracking_id`` under which its report is stored."""
        checks, principal = await self._judge(login, credential, await self._find(login))
        error = _error(checks)
        if error is not None or principal is None:
            assert error is not None, "a refusal names its error"
            tracking_id = self._reports.new_tracking_id()
            await self._reports.record(self._report(login, credential, checks, tracking_id, error.code))
            raise error(tracking_id=tracking_id)
        return principal

    async def refuse_user_name(self, user_name: str, client_id: str, scope: str, credential: Credential) -> NoReturn:
        """A device whose user name and client id name nobody: the former is
        ``{hub}/{device}[/{module}]/?api-version=..``, the latter ``{device}[/{module}]`` (hub-device.md 3.1, 3.2).
        ``scope`` is the hub that is meant, or the host of one that is not served here.

        Raises UnauthorizedAccessError, with the ``tracking_id`` under which its report is stored.
        """
        hub = f"names hub {scope}" if self._hubs.get(scope) else "names no hub that is served here"
        checks = (
            check(
                "device.user-name",
                passed=False,
                detail=f"the user name {quoted(user_name)} {hub}; the client id is {quoted(client_id)}",
                fix="send the device id as the client id, a module DEVICE-ID/MODULE-ID, and as the user name"
                " HOST/CLIENT-ID/?api-version=2021-04-12, where HOST is the hub's and CLIENT-ID the client id, letter"
                " by letter",
            ),
        )
        subject = user_name.partition("/")[2].partition("/")[0] or client_id
        attempt = Attempt("hub", scope, "connect", subject, credential.describe(), credential.peer)
        tracking_id = self._reports.new_tracking_id()
        code = UnauthorizedAccessError.code
        await self._reports.record(refused_report(attempt, checks, tracking_id, self._clock(), _answer(code)))
        raise UnauthorizedAccessError(tracking_id=tracking_id)

    async def still_holds(self, login: DeviceLogin, credential: Credential, principal: Principal) -> bool:
        """Whether the same credential would be taken now for the same generation of the identity: asked after that
        changed, or what else the credential leans on. Leaves no report.
        """
        hub = self._hubs.get(login.hub.name)
        if hub is None:
            return False
        login = replace(login, hub=hub)
        found = await self._find(login)
        if found.identity is None or found.identity.generation_id != principal.identity.generation_id:
            return False
        checks, _ = await self._judge(login, credential, found)
        return verdict(checks) is None

    def follow(self, hub: str, device_id: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` when ``still_holds`` is to be asked; what is returned ends that."""
        return self._devices.follow(hub, device_id, changed)

    async def _find(self, login: DeviceLogin) -> _Found:
        identity = await self._devices.find(login.hub.name, login.device_id, login.module_id)
        if identity is None or not login.module_id:
            return _Found(identity, identity)
        return _Found(identity, await self._devices.find(login.hub.name, login.device_id))

    async def _judge(
        self, login: DeviceLogin, credential: Credential, found: _Found
    ) -> tuple[tuple[Check, ...], Principal | None]:
        identity = found.identity
        token, trust = None, None
        if credential.token:
            checks, token = self._check_token(login, credential.token, identity)
        else:
            if identity is not None and identity.authentication_type == "certificateAuthority":
                trust = await self._trust.of(login.hub.name)
            checks = self._check_certificate(login, credential, identity, trust)
        if found.device is not None:
            checks = (*checks, _enabled(found.device))
        if identity is None or verdict(checks) is not None:
            return checks, None
        expiry = token.expiry + CLOCK_SKEW if token else None
        certificates = () if token else credential.certificates
        policy = login.hub.policies.get(token.key_name) if token and token.key_name else None
        return checks, Principal(login.hub, identity, _method(identity, token), expiry, certificates, policy, trust)

    def _check_certificate(
        self, login: DeviceLogin, credential: Credential, identity: Identity | None, trust: X509Trust | None
    ) -> tuple[Check, ...]:
        exists = _exists(login, identity)
        if identity is None:
            return (exists, skipped("device.thumbprint", "there is no identity to compare with"))
        by_certificate = identity.authentication_type in _BY_CERTIFICATE
        matching = check(
            "device.authentication",
            passed=by_certificate,
            detail=f"the identity authenticates by {identity.authentication_type}, the device sent "
            + (credential.describe() if credential.certificates else "neither a token nor a certificate"),
            fix="send a shared access signature as the password, or let it be known by its certificate: "
            f"{_update_command(identity)} --certificate FILE",
        )
        if not by_certificate:
            return (exists, matching)
        if trust is not None:
            chain = attest_device_chain(
                credential.certificates, trust, identity.full_name, login.hub.name, self._clock()
            )
            return (exists, matching, *chain, *self._check_revocation(credential, chain))
        thumbprint = attest_device_thumbprint(
            credential.certificates,
            identity.primary_thumbprint,
            identity.secondary_thumbprint,
            identity.device_id,
            self._clock(),
            _update_command(identity),
        )
        return (exists, matching, *thumbprint, *self._check_revocation(credential, thumbprint))

    def _check_revocation(self, credential: Credential, checks: tuple[Check, ...]) -> tuple[Check, ...]:
        """What revocation lists say, after the ``checks`` of a certificate of any kind; nothing without lists."""
        known = self._revocations.known
        if known is None:
            return ()
        if refusals(checks):
            return not_judged(DEVICE_REVOCATION, "the device is refused anyway")
        return check_device(known, credential.certificates, self._clock())

    def _check_token(
        self, login: DeviceLogin, text: str, identity: Identity | None
    ) -> tuple[tuple[Check, ...], SasToken | None]:
        exists = _exists(login, identity)
        try:
            token = parse_token(text)
        except MalformedTokenError as error:
            format_check = check(
                "sas.format",
                passed=False,
                detail=f"the password is no shared access signature: {error}",
                fix="send 'SharedAccessSignature sr=...&sig=...&se=...' as the password, or no password with a"
                " client certificate",
            )
            return (exists, format_check), None
        readable = check("sas.format", passed=True, detail="sr, sig and se are there")
        head = (exists, readable)
        if token.key_name:
            # Only who may act as any device is told that this one does not exist (hub-device.md 2.5).
            return (readable, *self._check_policy_token(login, token), exists), token
        if identity is None:
            return (*head, skipped("sas.signature", "there is no identity whose keys could be tried")), None
        matching = check(
            "device.authentication",
            passed=identity.authentication_type == "sas",
            detail=f"the identity authenticates by {identity.authentication_type}, the device sent a shared access"
            f" signature",
            fix="connect with the client certificate and no password"
            if identity.authentication_type in _BY_CERTIFICATE
            else f"give it symmetric keys: {_update_command(identity)} --auth sas",
        )
        return (*head, matching, *self._check_signature(login, token, identity.keys, policy=False)), token

    def _check_policy_token(self, login: DeviceLogin, token: SasToken) -> tuple[Check, ...]:
        policy = login.hub.policies.get(token.key_name)
        known = check(
            "sas.policy",
            passed=policy is not None,
            detail=f"the token names the policy {token.key_name!r}"
            + ("" if policy else ", which this hub does not have"),
            fix=f"use one of {', '.join(sorted(login.hub.policies))}, or leave skn out and sign with the device's"
            f" own key",
        )
        if policy is None:
            return (known,)
        right = check(
            "sas.right",
            passed=policy.grants(Right.DEVICE_CONNECT),
            detail=f"the policy has the rights {policy.rights}",
            fix="use a policy with DeviceConnect, such as 'device'",
        )
        return (known, right, *self._check_signature(login, token, policy.keys, policy=True))

    def _check_signature(
        self, login: DeviceLogin, token: SasToken, keys: tuple[str, ...], *, policy: bool
    ) -> tuple[Check, ...]:
        path = ["devices", login.device_id]
        if login.module_id:
            path += ["modules", login.module_id]
        hosts = dict.fromkeys((login.hub.host_name, login.host))
        return check_token(token, keys, tuple(hosts), path, policy=policy, now=self._clock())

    def _report(
        self,
        login: DeviceLogin,
        credential: Credential,
        checks: tuple[Check, ...],
        tracking_id: str,
        code: int,
    ) -> Report:
        attempt = Attempt("hub", login.hub.name, "connect", login.name, credential.describe(), credential.peer)
        return refused_report(attempt, checks, tracking_id, self._clock(), _answer(code))


def _answer(code: int) -> str:
    return f"CONNACK 5 over MQTT, {code} elsewhere"


def refused_report(attempt: Attempt, checks: tuple[Check, ...], tracking_id: str, now: int, answer: str) -> Report:
    """The report of one refused attempt."""
    return Report(
        tracking_id=tracking_id,
        time=now,
        service=attempt.service,
        scope=attempt.scope,
        operation=attempt.operation,
        subject=attempt.subject,
        verdict="refused",
        answer=answer,
        credential=attempt.credential,
        peer=attempt.peer,
        checks=checks,
    )


_BY_CERTIFICATE = ("selfSigned", "certificateAuthority")


def _error(checks: tuple[Check, ...]) -> type[ServiceError] | None:
    """What the client is told. The hub has one word for all that is wrong with a chain, the provisioning service, whose
    checks these are, has several (hub-device.md 2.5).
    """
    error = verdict(checks)
    if error is not None and issubclass(error, InvalidCertificateError | CaCertificateNotFoundError):
        return UnauthorizedAccessError
    refused = [item.id for item in refusals(checks)]
    if refused == ["device.exists"] and any(item.id == "sas.right" for item in checks):
        return DeviceNotFoundError
    return InvalidSignatureError if refused[:1] == ["sas.signature"] else error


def _update_command(identity: Identity) -> str:
    device = shell_word(identity.device_id, "DEVICE-ID")
    if not identity.module_id:
        return f"muster device update {device}"
    return f"muster module update {device} {shell_word(identity.module_id, 'MODULE-ID')}"


def _exists(login: DeviceLogin, identity: Identity | None) -> Check:
    return check(
        "device.exists",
        passed=identity is not None,
        detail=f"hub {login.hub.name} has {'the' if identity else 'no'} identity {login.name!r} (ids are"
        f" case-sensitive)",
        fix="let the device register with the provisioning service, or create it: muster device create"
        f" {shell_word(login.device_id, 'DEVICE-ID')}"
        if not login.module_id
        else f"create it: muster module create {shell_word(login.device_id, 'DEVICE-ID')}"
        f" {shell_word(login.module_id, 'MODULE-ID')}",
    )


def _enabled(device: Identity) -> Check:
    """A disabled device disables its modules (hub-device.md 2.1)."""
    reason = f" ({device.status_reason})" if device.status_reason else ""
    return check(
        "device.enabled",
        passed=device.status == "enabled",
        detail=f"the device {device.device_id!r} is {device.status}{reason}",
        fix=f"muster device update {shell_word(device.device_id, 'DEVICE-ID')} --enable",
    )


def _method(identity: Identity, token: SasToken | None) -> str:
    if token is None:
        return authentication_method("module" if identity.module_id else "device", "x509Certificate", "external")
    if token.key_name:
        return authentication_method("hub", "sas", "iothub")
    return authentication_method("module" if identity.module_id else "device", "sas", "iothub")
