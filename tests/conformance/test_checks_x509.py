"""Every check of a certificate, provoked by the unmodified azure-iot-device: what it sees, what stands on the wire,
and what ``muster why`` says about it.

All devices register at once, on one server: each case has a CA of its own, so none meets another's group.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from tests.support.fix_checks import Explain, Wire, provokes
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_pki import (
    CLIENT_AUTH,
    DAY,
    NOW,
    SERVER_AUTH,
    Identity,
    changed,
    ec_key,
    expired,
    issue,
    make_certificate,
    not_yet_valid,
    other_self_signed,
    rsa_key,
    self_signed,
    sha1_signed,
    to_pem,
    version_1,
)
from tests.support.fix_server import ID_SCOPE, MusterServer

from muster.domain.check_table import CHECKS

NO_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
MANAGEMENT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/provisioningServices"
SERVICE_ERROR = "ServiceError: register request returned a service error status code"
DISABLED = (
    "ServiceError: Query Status Operation encountered an invalid registration status disabled with a status code of 200"
)
OLD = {"not_before": NOW - 40 * DAY, "not_after": NOW - 10 * DAY}

Arguments = dict[str, Any]


class Plant:
    """What an operator and a factory do before a device registers."""

    def __init__(self, server: MusterServer, directory: Path) -> None:
        self._https = HttpsClient(server)
        self._bearer = "Bearer " + server.cli("token").stdout.strip()
        self._service = f"{MANAGEMENT}/{server.address}"
        self._directory = directory

    def device(self, registration_id: str, identity: Identity, **options: Any) -> Arguments:
        """How a device with these certificates registers."""
        certificate, key = identity.write(self._directory, f"device-{registration_id}")
        names = {"registration_id": registration_id, "id_scope": ID_SCOPE}
        return {**names, "certificate": str(certificate), "key": str(key), **options}

    def enrolled(self, registration_id: str, identity: Identity, **members: Any) -> Arguments:
        """A device that is enrolled by its own certificate."""
        self._https.enroll(registration_id, identity.certificate_pem.decode(), **members)
        return self.device(registration_id, identity)

    def authority(self, name: str, identity: Identity, *, verified: bool = True) -> None:
        """A CA certificate of the service."""
        body = {"properties": {"certificate": identity.certificate_pem.decode(), "isVerified": verified}}
        target = f"{self._service}/certificates/{name}?api-version=2022-02-05"
        answer = self._https.request("PUT", target, body, authorization=self._bearer)
        assert answer.status in (200, 201), answer

    def group(self, name: str, identity: Identity, *, verified: bool = True) -> None:
        """An enrollment group by the certificate of a CA, which is ``verified`` or not known otherwise."""
        if verified:
            self.authority(name, identity)
        certificates = {"primary": {"certificate": to_pem(identity.certificate).decode()}}
        self._https.enroll_group(name, attestation={"type": "x509", "x509": {"signingCertificates": certificates}})

    def enroll_by_authority(self, registration_id: str, authority: str) -> None:
        """An individual enrollment by a reference to a CA certificate."""
        references = {"caReferences": {"primary": authority}}
        self._https.enroll_by(registration_id, attestation={"type": "x509", "x509": references})


@dataclass(frozen=True)
class Case:
    """``prepare`` sets a device up and says how it registers; ``also``: what refuses besides, and makes the answer."""

    check_id: str
    prepare: Callable[[Plant, str], Arguments]
    also: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.prepare.__name__.replace("_", "-")


CASES: list[Any] = []


def case(mark: pytest.MarkDecorator, *also: str) -> Callable[[Callable[[Plant, str], Arguments]], None]:
    def add(prepare: Callable[[Plant, str], Arguments]) -> None:
        (check_id,) = mark.args
        CASES.append(pytest.param(Case(check_id, prepare, also), marks=mark, id=prepare.__name__))

    return add


def family(name: str, *, top: Arguments | None = None, middle: Arguments | None = None, **leaf: Any) -> list[Identity]:
    """A device, an intermediate and a root of its own."""
    root = issue(f"{name} root", is_ca=True, **(top or {}))
    between = issue(f"{name} line", root, **{"is_ca": True, **(middle or {})})
    return [issue(name, between, **leaf), between, root]


def in_group(plant: Plant, name: str, device: Identity, root: Identity) -> Arguments:
    """A device in the group of its root, which is verified."""
    plant.group(name, root)
    return plant.device(name, device)


# Which enrollment applies


@case(provokes("id-scope.known"))
def another_id_scope(plant: Plant, name: str) -> Arguments:
    return {**plant.enrolled(name, self_signed(name)), "id_scope": "0neFFFFFFFF"}


@case(provokes("registration-id.rules"))
def with_a_star(plant: Plant, name: str) -> Arguments:
    return plant.device(f"{name}*", self_signed(f"{name}*"))


@case(provokes("enrollment.exists-for-key"))
def an_unknown_device_with_a_key(plant: Plant, name: str) -> Arguments:
    return {"registration_id": name, "id_scope": ID_SCOPE, "symmetric_key": NO_KEY}


@case(provokes("enrollment.attestation"))
def a_key_and_no_certificate(plant: Plant, name: str) -> Arguments:
    """How a client of this SDK comes without its certificate: it is made in the wrong way."""
    plant.enrolled(name, self_signed(name))
    return {"registration_id": name, "id_scope": ID_SCOPE, "symmetric_key": NO_KEY}


@case(provokes("enrollment.group-exists"))
def a_ca_without_a_group(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name)
    plant.authority(name, root)
    return plant.device(name, leaf)


@case(provokes("enrollment.enabled"))
def a_disabled_enrollment(plant: Plant, name: str) -> Arguments:
    return plant.enrolled(name, self_signed(name), provisioningStatus="disabled")


# The device's own certificate


@case(provokes("x509.thumbprint"))
def another_certificate(plant: Plant, name: str) -> Arguments:
    plant.enrolled(name, self_signed(name))
    return plant.device(name, other_self_signed(name))


@case(provokes("x509.parses"), "x509.thumbprint")
def an_issuer_in_another_encoding(plant: Plant, name: str) -> Arguments:
    """OpenSSL takes a name whose SEQUENCE is not marked as constructed; DER, and what reads it, does not."""
    plant.enrolled(name, self_signed(name))
    broken = changed(issue(name), lambda fields: [*fields[:3], b"\x10" + fields[3][1:], *fields[4:]])
    return plant.device(name, broken)


@case(provokes("x509.common-name"))
def another_name(plant: Plant, name: str) -> Arguments:
    return plant.enrolled(name, self_signed("some-other-name"))


@case(provokes("x509.common-name-case"))
def spelled_otherwise(plant: Plant, name: str) -> Arguments:
    return plant.enrolled(name, self_signed(name.upper()))


@case(provokes("x509.common-name-length"))
def a_very_long_name(plant: Plant, name: str) -> Arguments:
    name = name.ljust(65, "x")
    key = ec_key(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library says that it is too long
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)])
        certificate = make_certificate(None, key=key, subject=subject)
    return plant.enrolled(name, Identity(certificate, key))


@case(provokes("x509.not-before"))
def not_valid_yet(plant: Plant, name: str) -> Arguments:
    return plant.enrolled(name, not_yet_valid(name))


@case(provokes("x509.not-after"))
def not_valid_any_more(plant: Plant, name: str) -> Arguments:
    return plant.enrolled(name, expired(name))


@case(provokes("x509.extended-key-usage"))
def for_servers(plant: Plant, name: str) -> Arguments:
    return plant.enrolled(name, issue(name, usages=(SERVER_AUTH,)))


@case(provokes("x509.extended-key-usage"))
def no_usage_in_a_group(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name, usages=None)
    return in_group(plant, name, leaf, root)


@case(provokes("x509.basic-constraints"))
def a_ca_of_its_own(plant: Plant, name: str) -> Arguments:
    return plant.enrolled(name, issue(name, is_ca=True, usages=(CLIENT_AUTH,)))


@case(provokes("x509.version"))
def of_version_1(plant: Plant, name: str) -> Arguments:
    return plant.enrolled(name, version_1(name))


@case(provokes("x509.version"))
def of_version_1_in_a_group(plant: Plant, name: str) -> Arguments:
    _, line, root = family(name)
    return in_group(plant, name, version_1(name, line), root)


@case(provokes("x509.key-strength"))
def signed_with_sha_1(plant: Plant, name: str) -> Arguments:
    made = issue(name, key=rsa_key(2048))
    return plant.enrolled(name, sha1_signed(made, made))


@case(provokes("x509.chain-sent"), "x509.thumbprint")
def not_the_first_in_its_file(plant: Plant, name: str) -> Arguments:
    own, other = self_signed(name), other_self_signed(name)
    plant.enrolled(name, own)
    return plant.device(name, Identity(other.certificate, other.key, (own.certificate,)))


# Chains


@case(provokes("x509.chain-order"))
def the_root_in_the_middle(plant: Plant, name: str) -> Arguments:
    leaf, line, root = family(name)
    return in_group(plant, name, Identity(leaf.certificate, leaf.key, (root.certificate, line.certificate)), root)


@case(provokes("x509.issuer-known"))
def the_leaf_alone(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name)
    return in_group(plant, name, Identity(leaf.certificate, leaf.key), root)


@case(provokes("x509.chain"))
def another_key_of_the_same_name(plant: Plant, name: str) -> Arguments:
    leaf, line, root = family(name)
    namesake = issue(f"{name} line", root, is_ca=True, key=ec_key("namesake"))
    plant.group(name, line, verified=False)
    plant.authority(name, root)
    return plant.device(name, Identity(leaf.certificate, leaf.key, (namesake.certificate, root.certificate)))


@case(provokes("x509.group-certificate-verified"))
def an_unverified_root(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name)
    plant.group(name, root, verified=False)
    return plant.device(name, leaf)


@case(provokes("x509.signing-certificate"))
def another_ca_than_the_enrollment_s(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name)
    plant.authority(f"{name}-own", root)
    plant.authority(name, issue(f"{name} other root", is_ca=True))
    plant.enroll_by_authority(name, name)
    return plant.device(name, leaf)


@case(provokes("ca.verified"))
def an_unverified_reference(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name)
    plant.authority(name, root, verified=False)
    plant.enroll_by_authority(name, name)
    return plant.device(name, leaf)


@case(provokes("x509.chain-dates"))
def an_expired_issuer(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name, middle=OLD)
    return in_group(plant, name, leaf, root)


@case(provokes("x509.chain-ca"))
def an_issuer_that_is_no_ca(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name, middle={"is_ca": False, "usages": None})
    return in_group(plant, name, leaf, root)


@case(provokes("x509.path-length"))
def one_ca_too_many(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name, top={"path_length": 0})
    return in_group(plant, name, leaf, root)


@case(provokes("x509.name-constraints"))
def a_name_from_elsewhere(plant: Plant, name: str) -> Arguments:
    limits = x509.NameConstraints([x509.DNSName("plant.example")], None)
    alias = x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")])
    leaf, _, root = family(name, top={"extensions": [(limits, True)]}, extensions=[(alias, False)])
    return in_group(plant, name, leaf, root)


@case(provokes("x509.chain-extensions"))
def a_critical_extension_that_nobody_knows(plant: Plant, name: str) -> Arguments:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    leaf, _, root = family(name, middle={"extensions": [(unknown, True)]})
    return in_group(plant, name, leaf, root)


@case(provokes("x509.chain-standard"))
def a_ca_without_a_name(plant: Plant, name: str) -> Arguments:
    key = ec_key(name)
    root = Identity(make_certificate(None, key=key, is_ca=True, usages=None), key)
    return in_group(plant, name, issue(name, root), root)


@case(provokes("x509.leaf-not-ca"))
def a_ca_in_a_group(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name, is_ca=True, usages=(CLIENT_AUTH,))
    return in_group(plant, name, leaf, root)


@case(provokes("x509.leaf-client-auth"))
def for_servers_in_a_group(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name, usages=(SERVER_AUTH,))
    return in_group(plant, name, leaf, root)


@case(provokes("x509.not-after"))
def not_valid_any_more_in_a_group(plant: Plant, name: str) -> Arguments:
    leaf, _, root = family(name, **OLD)
    return in_group(plant, name, leaf, root)


@case(provokes("x509.common-name"))
def another_name_in_a_group(plant: Plant, name: str) -> Arguments:
    _, line, root = family(name)
    return in_group(plant, name, issue("named-otherwise", line), root)


# All of them


@pytest.fixture(scope="module")
def muster(traced_muster: MusterServer) -> MusterServer:
    return traced_muster


@pytest.fixture(scope="module")
def registered(
    muster: MusterServer, clients: OpenClient, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, Any]]:
    """For each case the registration id, and what the SDK returned or raised."""
    device: SdkClient = clients("device.py")
    plant = Plant(muster, tmp_path_factory.mktemp("devices"))
    cases = [parameter.values[0] for parameter in CASES]
    requests = [one.prepare(plant, one.name) for one in cases]
    results = device.call_all("register", requests)
    return {
        one.name: (request["registration_id"], result)
        for one, request, result in zip(cases, requests, results, strict=True)
    }


@pytest.mark.parametrize("one", CASES)
def test_check(muster: MusterServer, registered: dict[str, tuple[str, Any]], explain: Explain, one: Case) -> None:
    registration_id, result = registered[one.name]
    if one.check_id == "enrollment.enabled":
        assert isinstance(result, SdkError)
        assert result.causes[0] == DISABLED
        explain(muster, registration_id, one.check_id, verdict="disabled")
        return
    if CHECKS[one.check_id].severity == "warn" and not one.also:
        assert result["status"] == "assigned"
        report = explain(muster, registration_id, one.check_id, verdict="warned")
        assert report["answer"] == "accepted"
        return
    assert isinstance(result, SdkError), result
    assert result.kind == "ClientError"
    (told,) = Wire(muster).provisioning(registration_id)
    assert result.causes[0] == f"{SERVICE_ERROR} {told.status}"
    report = explain.told(muster, told, one.check_id, also=one.also)
    assert (report["service"], report["operation"], report["subject"]) == ("dps", "register", registration_id)
    state = HttpsClient(muster).request("GET", f"/registrations/{one.name}?api-version=2021-10-01")
    assert state.status == 404  # a refusal leaves no registration
