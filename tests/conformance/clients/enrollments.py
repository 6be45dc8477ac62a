"""A back end by azure-iothub-provisioningserviceclient: individual enrollments and registration states."""

from typing import Any

from conversation import converse
from provisioningserviceclient import ProvisioningServiceClient, QuerySpecification
from provisioningserviceclient.models import (
    AttestationMechanism,
    DeviceCapabilities,
    IndividualEnrollment,
    InitialTwin,
    ReprovisionPolicy,
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


def get_state(connection_string: str, registration_id: str) -> Any:
    return client(connection_string).get_registration_state(registration_id).serialize(keep_readonly=True)


def delete_state(connection_string: str, registration_id: str, etag: str | None = None) -> None:
    client(connection_string).delete_registration_state_by_param(registration_id, etag)


def plain(model: IndividualEnrollment) -> Any:
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
            "get_state": get_state,
            "delete_state": delete_state,
        }
    )
