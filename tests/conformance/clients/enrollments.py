"""A back end by azure-iothub-provisioningserviceclient: enrollments, groups and registration states."""

from typing import Any

from conversation import converse
from provisioningserviceclient import ProvisioningServiceClient, QuerySpecification
from provisioningserviceclient.models import (
    AttestationMechanism,
    BulkEnrollmentOperation,
    DeviceCapabilities,
    EnrollmentGroup,
    IndividualEnrollment,
    InitialTwin,
    ReprovisionPolicy,
    SymmetricKeyAttestation,
)


def client(connection_string: str) -> ProvisioningServiceClient:
    return ProvisioningServiceClient.create_from_connection_string(connection_string)


def create(
    connection_string: str,
    registration_id: str,
    certificate: str,
    secondary: str | None = None,
    twin: dict[str, Any] | None = None,
    **members: Any,
) -> Any:
    """Create, or replace, with the members of the SDK's model."""
    if twin is not None:
        members["initial_twin"] = InitialTwin.create(tags=twin.get("tags"), desired_properties=twin.get("desired"))
    if "reprovision_policy" in members:
        members["reprovision_policy"] = ReprovisionPolicy(**members["reprovision_policy"])
    if "device_capabilities" in members:
        members["device_capabilities"] = DeviceCapabilities(**members["device_capabilities"])
    attestation = AttestationMechanism.create_with_x509_client_certs(certificate, secondary)
    model = IndividualEnrollment.create(registration_id, attestation, **members)
    return plain(client(connection_string).create_or_update(model))


def get(connection_string: str, registration_id: str) -> Any:
    return plain(client(connection_string).get_individual_enrollment(registration_id))


def change(connection_string: str, registration_id: str, etag: str | None = None, **members: Any) -> Any:
    """Read an enrollment, change it, and write it back, under its own tag or another one."""
    service = client(connection_string)
    model = service.get_individual_enrollment(registration_id)
    for name, value in members.items():
        setattr(model, name, value)
    if etag is not None:
        model.etag = etag
    return plain(service.create_or_update(model))


def delete(connection_string: str, registration_id: str, etag: str | None = None) -> None:
    client(connection_string).delete_individual_enrollment_by_param(registration_id, etag)


def delete_model(connection_string: str, registration_id: str) -> None:
    """Read an enrollment and delete it under its tag."""
    service = client(connection_string)
    service.delete(service.get_individual_enrollment(registration_id))


def pages(connection_string: str, size: int) -> list[list[str]]:
    """The registration ids of all enrollments, page by page."""
    query = client(connection_string).create_individual_enrollment_query(QuerySpecification(query="*"), size)
    return [[item.registration_id for item in page] for page in query]


# Symmetric keys, and groups


def by_key(primary_key: str | None, secondary_key: str | None) -> AttestationMechanism:
    keys = SymmetricKeyAttestation(primary_key=primary_key, secondary_key=secondary_key)
    return AttestationMechanism(type="symmetricKey", symmetric_key=keys)


def create_by_key(
    connection_string: str, registration_id: str, primary_key: str | None = None, secondary_key: str | None = None
) -> Any:
    """An individual enrollment; without keys the service makes them."""
    model = IndividualEnrollment.create(registration_id, by_key(primary_key, secondary_key))
    return plain(client(connection_string).create_or_update(model))


def create_group(
    connection_string: str,
    group_id: str,
    primary_key: str | None = None,
    secondary_key: str | None = None,
    signing_certificate: str | None = None,
    **members: Any,
) -> Any:
    """A group by keys, or by a signing certificate."""
    attestation = by_key(primary_key, secondary_key)
    if signing_certificate is not None:
        attestation = AttestationMechanism.create_with_x509_signing_certs(signing_certificate)
    return plain(client(connection_string).create_or_update(EnrollmentGroup.create(group_id, attestation, **members)))


def get_group(connection_string: str, group_id: str) -> Any:
    return plain(client(connection_string).get_enrollment_group(group_id))


def change_group(connection_string: str, group_id: str, etag: str | None = None, **members: Any) -> Any:
    """Read a group, change it, and write it back, under its own tag or another one."""
    service = client(connection_string)
    model = service.get_enrollment_group(group_id)
    for name, value in members.items():
        setattr(model, name, value)
    if etag is not None:
        model.etag = etag
    return plain(service.create_or_update(model))


def delete_group(connection_string: str, group_id: str, etag: str | None = None) -> None:
    client(connection_string).delete_enrollment_group_by_param(group_id, etag)


def group_pages(connection_string: str, size: int) -> list[list[str]]:
    """The ids of all groups, page by page."""
    query = client(connection_string).create_enrollment_group_query(QuerySpecification(query="*"), size)
    return [[item.enrollment_group_id for item in page] for page in query]


def attestation_mechanism(connection_string: str, registration_id: str) -> Any:
    """Of an individual enrollment, with its keys."""
    found = client(connection_string).get_individual_enrollment_attestation_mechanism(registration_id)
    return found.serialize(keep_readonly=True)


def group_attestation_mechanism(connection_string: str, group_id: str) -> Any:
    """Of a group, with its keys."""
    found = client(connection_string).get_enrollment_group_attestation_mechanism(group_id)
    return found.serialize(keep_readonly=True)


def bulk(connection_string: str, mode: str, registration_ids: list[str], certificate: str) -> Any:
    """One operation on individual enrollments, all by the same certificate."""
    attestation = AttestationMechanism.create_with_x509_client_certs(certificate)
    models = [IndividualEnrollment.create(registration_id, attestation) for registration_id in registration_ids]
    done = client(connection_string).run_bulk_operation(BulkEnrollmentOperation(mode=mode, enrollments=models))
    return done.serialize(keep_readonly=True)


# Registration states


def get_state(connection_string: str, registration_id: str) -> Any:
    return client(connection_string).get_registration_state(registration_id).serialize(keep_readonly=True)


def delete_state(connection_string: str, registration_id: str, etag: str | None = None) -> None:
    client(connection_string).delete_registration_state_by_param(registration_id, etag)


def plain(model: IndividualEnrollment | EnrollmentGroup) -> Any:
    """The model as the JSON it came from."""
    twin = model.initial_twin
    if twin is not None:
        model.initial_twin = twin._unwrap()
    return model.serialize(keep_readonly=True)


if __name__ == "__main__":
    converse(
        {
            "create": create,
            "get": get,
            "change": change,
            "delete": delete,
            "delete_model": delete_model,
            "pages": pages,
            "create_by_key": create_by_key,
            "create_group": create_group,
            "get_group": get_group,
            "change_group": change_group,
            "delete_group": delete_group,
            "group_pages": group_pages,
            "attestation_mechanism": attestation_mechanism,
            "group_attestation_mechanism": group_attestation_mechanism,
            "bulk": bulk,
            "get_state": get_state,
            "delete_state": delete_state,
        }
    )
