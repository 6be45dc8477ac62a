"""Attestations: which enrollment applies to a device, and whether the device satisfies it, as named checks.

Sources: dps.md 4. A verdict has no side effect, so a dry run (``muster cert doctor``) is the same code. Not here:
the checks themselves (``domain/attestation.py``, ``domain/sas.py``), and what follows from a verdict
(``registrations.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.domain.attestation import attest_x509_individual, check_registration_id
from muster.domain.chain_attestation import GroupVerdict, attest_x509_ca_reference, attest_x509_group
from muster.domain.check_table import check, quoted, shell_word, skipped
from muster.domain.credential import Credential
from muster.domain.enrollment import Enrollment
from muster.domain.report import Check, Outcome, refusals
from muster.domain.revocation import REVOCATION, Revocations, check_presented, not_judged
from muster.domain.sas import MalformedTokenError, SasToken, check_token, derive_device_key, parse_token
from muster.domain.shared_keys import check_group_keys
from muster.dps.enrollments import Enrollments
from muster.dps.groups import GroupIndex, Groups
from muster.dps.services import ProvisioningService, ProvisioningServices

KEY_NAMES = ("", "registration")


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """Who a device says it is, on one connection, and the version of the API that it speaks."""

    id_scope: str
    registration_id: str
    api_version: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: the enrollment that decides (None: there is none), and every check."""

    service: ProvisioningService | None
    enrollment: Enrollment | None
    checks: tuple[Check, ...]


class Attestations:
    """Judges devices of all provisioning services."""

    def __init__(
        self,
        services: ProvisioningServices,
        enrollments: Enrollments,
        groups: GroupIndex,
        revocations: Revocations,
        clock: Callable[[], int],
    ) -> None:
        self._services = services
        self._enrollments = enrollments
        self._groups = groups
        self._revocations = revocations
        self._clock = clock

    def at(self, time: int) -> "Attestations":
        """The same as if it were ``time``, for a dry run."""
        return Attestations(self._services, self._enrollments, self._groups, self._revocations, lambda: time)

    async def judge_by(self, enrollment: Enrollment, login: DeviceLogin, credential: Credential) -> Verdict:
        """The verdict if ``enrollment``, of either kind, were the only one: for a dry run."""
        service = self._services.find(login.id_scope)
        assert service is not None, "a dry run is that of a service"
        if enrollment.kind == "individual":
            checks = await self._judge_individual(service, enrollment, login, credential, tpm=False)
        else:
            groups = (await self._groups.get(service.id_scope)).only(enrollment)
            checks = self._judge_group(groups, enrollment, login, credential)
        return Verdict(service, enrollment, (*checks, _enabled(enrollment)))

    async def judge(self, login: DeviceLogin, credential: Credential, *, tpm: bool = False) -> Verdict:
        """``tpm``: the device offered a TPM's keys. If there is an individual enrollment, it decides (dps.md 4.1)."""
        service = self._services.find(login.id_scope)
        known = check(
            "id-scope.known",
            passed=service is not None,
            detail=f"the id scope is {quoted(login.id_scope)}" + ("" if service else "; this service does not have it"),
            fix=f"use the id scope that the banner and `muster status` show: {self._services.first.id_scope}",
        )
        if service is None:
            return Verdict(None, None, (known,))
        rules = check_registration_id(login.registration_id)
        if rules.outcome is Outcome.REFUSED:
            # Not even looked up: it could name no enrollment, and no database need store every character.
            return Verdict(service, None, (known, rules))
        individual = await self._enrollments.find(service.id_scope, login.registration_id)
        if individual is not None:
            checks = await self._judge_individual(service, individual, login, credential, tpm=tpm)
            return Verdict(service, individual, (known, _exists(login, individual), *checks, _enabled(individual)))
        group, checks = await self._judge_groups(service, login, credential, tpm=tpm)
        if group is None:
            return Verdict(service, None, (known, *checks))
        return Verdict(service, group, (known, *checks, _enabled(group)))

    # Individual enrollments

    async def _judge_individual(
        self,
        service: ProvisioningService,
        enrollment: Enrollment,
        login: DeviceLogin,
        credential: Credential,
        *,
        tpm: bool,
    ) -> tuple[Check, ...]:
        mechanism = enrollment.mechanism
        matching = _matching(enrollment, credential, used_tpm=tpm)
        if matching.outcome is Outcome.REFUSED or mechanism.type == "tpm":
            return (matching,)
        if mechanism.type == "symmetricKey":
            return self._judge_token(login, credential, mechanism.keys)
        if mechanism.x509_kind == "clientCertificates":
            enrolled = mechanism.enrolled_certificates()
            checks = attest_x509_individual(credential.certificates, enrolled, login.registration_id, self._clock())
            return (*checks, *await self._revocation(service, credential, checks))
        groups = await self._groups.get(service.id_scope)
        return attest_x509_ca_reference(
            credential.certificates,
            groups.certificates_of(enrollment),
            groups.trust,
            login.registration_id,
            self._clock(),
            self._revocations.known,
        )

    async def _revocation(
        self, service: ProvisioningService, credential: Credential, checks: tuple[Check, ...]
    ) -> tuple[Check, ...]:
        """What revocation lists say about a device that is enrolled by its own certificate; nothing without lists."""
        known = self._revocations.known
        if known is None:
            return ()
        if refusals(checks):
            return not_judged(REVOCATION, "the device is refused anyway")
        trust = (await self._groups.get(service.id_scope)).trust
        return check_presented(known, credential.certificates, self._clock(), known=trust.known.named)

    def _judge_token(self, login: DeviceLogin, credential: Credential, keys: tuple[str, ...]) -> tuple[Check, ...]:
        readable, token = _read_token(credential)
        if token is None:
            return (readable,)
        return (readable, *self._check_token(login, token, keys))

    def _check_token(self, login: DeviceLogin, token: SasToken, keys: tuple[str, ...]) -> tuple[Check, ...]:
        named = check(
            "sas.policy",
            passed=token.key_name in KEY_NAMES,
            detail=f"the token names the key {quoted(token.key_name)}" if token.key_name else "the token names no key",
            fix="leave skn out, or say skn=registration",
        )
        path = ("registrations", login.registration_id)
        return (named, *check_token(token, keys, (login.id_scope,), path, policy=False, now=self._clock()))

    # Groups

    def _judge_group(
        self, groups: Groups, group: Enrollment, login: DeviceLogin, credential: Credential
    ) -> tuple[Check, ...]:
        matching = _matching(group, credential, used_tpm=False)
        if matching.outcome is Outcome.REFUSED:
            return (matching,)
        if group.mechanism.type == "symmetricKey":
            return self._judge_derived_key(groups, login, credential)[1]
        return self._judge_chain(groups, login, credential).checks

    def _judge_chain(self, groups: Groups, login: DeviceLogin, credential: Credential) -> GroupVerdict:
        return attest_x509_group(
            credential.certificates, groups.trust, login.registration_id, self._clock(), self._revocations.known
        )

    async def _judge_groups(
        self, service: ProvisioningService, login: DeviceLogin, credential: Credential, *, tpm: bool
    ) -> tuple[Enrollment | None, tuple[Check, ...]]:
        groups = await self._groups.get(service.id_scope)
        if tpm or not (groups.symmetric if credential.token else groups.trust.groups):
            return None, (_missing(login, credential, tpm=tpm),)
        if credential.token:
            return self._judge_derived_key(groups, login, credential)
        verdict = self._judge_chain(groups, login, credential)
        group = groups.by_id(verdict.group_id) if verdict.group_id is not None else None
        return group, (skipped("enrollment.exists", _no_individual(login)), *verdict.checks)

    def _judge_derived_key(
        self, groups: Groups, login: DeviceLogin, credential: Credential
    ) -> tuple[Enrollment | None, tuple[Check, ...]]:
        """No group is named by the token: the one whose derived key signed it is meant (dps.md 4.1, 4.3)."""
        absent = skipped("enrollment.exists", _no_individual(login))
        readable, token = _read_token(credential)
        if token is None:
            return None, (absent, readable)
        found: Enrollment | None = None
        checks: tuple[Check, ...] = ()
        for group in groups.symmetric:
            checks = self._check_token(login, token, _derived(group, login.registration_id))
            if next(item for item in checks if item.id == "sas.signature").outcome is Outcome.PASSED:
                found = group
                break
        derived = check(
            "sas.derived-key",
            passed=found is not None,
            detail=f"the token is signed with a key derived from group {quoted(found.id)}"
            if found
            else f"no key derived from one of {len(groups.symmetric)} symmetric key groups makes this signature",
            fix="enroll the device (muster enrollment create), or sign with the key derived from its group's"
            f" (muster group derive-key GROUP {shell_word(login.registration_id, 'REGISTRATION-ID')});"
            " the group's own key is never a device's key",
        )
        if found is None:
            return None, (absent, readable, derived)
        return found, (absent, readable, derived, *checks, check_group_keys(found, groups.symmetric))


def _derived(group: Enrollment, registration_id: str) -> tuple[str, ...]:
    """Clients derive over their own spelling of the id; lower case is tried as well (dps.md 4.2)."""
    spellings = dict.fromkeys((registration_id, registration_id.lower()))
    return tuple(derive_device_key(key, spelling) for key in group.mechanism.keys for spelling in spellings)


def device_keys(group: Enrollment, registration_id: str) -> tuple[str, str]:
    """The two keys that a device of a symmetric key group has in the hub (dps.md 5.5)."""
    primary, secondary = group.mechanism.keys
    return derive_device_key(primary, registration_id), derive_device_key(secondary, registration_id)


def _read_token(credential: Credential) -> tuple[Check, SasToken | None]:
    try:
        token = parse_token(credential.token)
    except MalformedTokenError as error:
        detail = f"the token cannot be read: {error}" if credential.token else "the device sent no token"
        fix = "sign a token with the device's key and send it as the password (MQTT, AMQP) or in Authorization (HTTPS)"
        return check("sas.format", passed=False, detail=detail, fix=fix), None
    return check("sas.format", passed=True, detail="sr, sig and se are there"), token


def _matching(enrollment: Enrollment, credential: Credential, *, used_tpm: bool) -> Check:
    """Whether the device used the mechanism of its enrollment.

    One that sent nothing at all is told what is missing by the checks of that mechanism; a TPM's are all behind this.
    """
    wanted = enrollment.mechanism.type
    nothing = "" if wanted == "tpm" else wanted
    used = "tpm" if used_tpm else "symmetricKey" if credential.token else "x509" if credential.certificates else nothing
    # A TPM is challenged by a first request without a token; a certificate that comes along with a token does no harm.
    passed = used == wanted or (wanted == "x509" and bool(credential.certificates))
    return check(
        "enrollment.attestation",
        passed=passed,
        detail=f"the enrollment attests by {wanted}; the device used {'a TPM' if used_tpm else credential.describe()}"
        + (
            ", and sent no certificate in the TLS handshake" if wanted == "x509" and not credential.certificates else ""
        ),
        fix=f"{_USE[wanted]}; or enroll the device anew with what it has",
    )


_USE = {
    "x509": "make the client with its certificate and key instead (create_from_x509_certificate, X509Security;"
    " X509_CERT_FILE, X509_KEY_FILE, X509_PASS_PHRASE)",
    "symmetricKey": "make the client with its symmetric key instead (create_from_symmetric_key,"
    " SymmetricKeySecurityClient)",
    "tpm": "let the device register with its TPM, over HTTPS or AMQP",
}
"""How a client is made to attest by the mechanism, in the words of the SDKs."""


def _exists(login: DeviceLogin, enrollment: Enrollment) -> Check:
    return check(
        "enrollment.exists",
        passed=True,
        detail=f"there is an individual enrollment for {quoted(login.registration_id)}, by {enrollment.mechanism.type}",
    )


def _no_individual(login: DeviceLogin) -> str:
    return f"there is no individual enrollment for {quoted(login.registration_id)}: groups decide"


def _missing(login: DeviceLogin, credential: Credential, *, tpm: bool) -> Check:
    """What a device is told when it is not known depends on what it has (dps.md 4.1)."""
    word = shell_word(login.registration_id, "REGISTRATION-ID")
    if tpm:
        check_id, more = "enrollment.exists-for-tpm", "a TPM cannot be in a group"
        fix = f"enroll the device: muster enrollment create --registration-id {word} --endorsement-key @EK-FILE"
    elif credential.token:
        check_id, more = "enrollment.exists-for-key", "there is no enrollment group with a symmetric key"
        fix = (
            f"enroll the device: muster enrollment create --registration-id {word} --symmetric-key, or its group:"
            " muster group create GROUP --symmetric-key"
        )
    else:
        check_id, more = "enrollment.exists", "there is no enrollment group with a certificate"
        fix = (
            "enroll the device: muster enrollment create --certificate FILE, or the CA that issued its certificate:"
            " muster group create GROUP --certificate CA-FILE"
        )
    detail = f"there is no individual enrollment for {quoted(login.registration_id)}, and {more}"
    return check(check_id, passed=False, detail=detail, fix=fix)


def _enabled(enrollment: Enrollment) -> Check:
    noun = "enrollment" if enrollment.kind == "individual" else "group"
    return check(
        "enrollment.enabled",
        passed=enrollment.enabled,
        detail=f"the {'enrollment' if noun == 'enrollment' else f'enrollment group {quoted(enrollment.id)}'} is"
        f" {enrollment.provisioning_status}",
        fix=f"enable it: muster {noun} update {shell_word(enrollment.id, 'ID')} --enable",
    )
