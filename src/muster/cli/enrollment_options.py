"""The options that individual enrollments and enrollment groups share, one by one and as records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from muster.cli.attestation_document import AttestationChanges, read_certificate, read_endorsement_key
from muster.cli.enrollment_document import AllocationPolicy, Changes, ReprovisionPolicy

SecondaryCertificate = Annotated[
    Path | None,
    typer.Option(help="File with a second certificate, for a change of certificates.", show_default=False),
]
Ca = Annotated[
    str | None,
    typer.Option("--ca", help="Name of a CA certificate of the service that issues.", show_default=False),
]
SecondaryCa = Annotated[
    str | None,
    typer.Option("--secondary-ca", help="Name of a second one.", show_default=False),
]
SymmetricKey = Annotated[
    bool,
    typer.Option("--symmetric-key", help="Attest by symmetric keys; the service makes those that are not given."),
]
PrimaryKey = Annotated[
    str | None,
    typer.Option(help="Primary symmetric key: base64 of 16 to 64 bytes.", show_default=False),
]
SecondaryKey = Annotated[
    str | None,
    typer.Option(help="Secondary symmetric key.", show_default=False),
]
InitialTwin = Annotated[
    str | None,
    typer.Option(help="Initial twin as JSON, or @FILE with it.", metavar="JSON|@FILE", show_default=False),
]
Tag = Annotated[
    list[str] | None,
    typer.Option(help="Tag of the initial twin; may be given again.", metavar="NAME=VALUE", show_default=False),
]
Desired = Annotated[
    list[str] | None,
    typer.Option(
        help="Desired property of the initial twin; may be given again.",
        metavar="NAME=VALUE",
        show_default=False,
    ),
]
Disabled = Annotated[bool, typer.Option("--disabled", help="Create it disabled.")]
Enable = Annotated[
    bool | None,
    typer.Option("--enable/--disable", help="Let devices register by it, or not.", show_default=False),
]
Reprovision = Annotated[
    ReprovisionPolicy | None,
    typer.Option(help="What a new registration does to the device's data.", show_default=False),
]
IsEdge = Annotated[bool, typer.Option("--edge", help="It is for IoT Edge devices.")]
Edge = Annotated[
    bool | None,
    typer.Option("--edge/--no-edge", help="Whether it is for IoT Edge devices.", show_default=False),
]
Allocation = Annotated[AllocationPolicy | None, typer.Option(help="How a hub is chosen.", show_default=False)]
IotHub = Annotated[
    list[str] | None,
    typer.Option(help="Host name of a hub to choose from; may be given again.", show_default=False),
]
WebhookUrl = Annotated[
    str | None,
    typer.Option(help="Webhook that chooses the hub; implies the custom allocation policy.", show_default=False),
]
WebhookApiVersion = Annotated[
    str | None,
    typer.Option(help="API version that the webhook speaks.", show_default=False),
]
IssuingCa = Annotated[
    str | None,
    typer.Option(
        "--issuing-ca",
        help='Name of a CA of the server that issues a certificate for a csr; "" for none.',
        show_default=False,
    ),
]
CertificatePolicy = Annotated[
    str | None,
    typer.Option(help="Profile of those certificates; device if not given.", show_default=False),
]
Replace = Annotated[bool, typer.Option("--update", help="Replace one that exists already.")]
Etag = Annotated[
    str | None,
    typer.Option(help="Go on only if it still has this ETag.", show_default=False),
]
Top = Annotated[int, typer.Option(help="Print at most this many.", min=1)]


@dataclass(frozen=True)
class AttestationOptions:
    """Those that all kinds have; which certificate stands first is said by each command."""

    secondary_certificate: SecondaryCertificate = None
    ca: Ca = None
    secondary_ca: SecondaryCa = None
    symmetric_key: SymmetricKey = False
    primary_key: PrimaryKey = None
    secondary_key: SecondaryKey = None

    def changes(self, certificate: Path | None, endorsement_key: str | None = None) -> AttestationChanges:
        """What they ask for. Raises CommandError for files that cannot be read."""
        return AttestationChanges(
            certificate=read_certificate(certificate) if certificate else None,
            secondary=read_certificate(self.secondary_certificate) if self.secondary_certificate else None,
            ca=self.ca,
            secondary_ca=self.secondary_ca,
            symmetric_key=self.symmetric_key,
            primary_key=self.primary_key,
            secondary_key=self.secondary_key,
            endorsement_key=read_endorsement_key(endorsement_key) if endorsement_key else None,
        )


@dataclass(frozen=True)
class TwinOptions:
    initial_twin: InitialTwin = None
    tag: Tag = None
    desired: Desired = None


@dataclass(frozen=True)
class AllocationOptions:
    """What a registration gives the device: a hub, and a certificate if it asks for one."""

    allocation_policy: Allocation = None
    iot_hub: IotHub = None
    webhook_url: WebhookUrl = None
    webhook_api_version: WebhookApiVersion = None
    issuing_ca: IssuingCa = None
    certificate_policy: CertificatePolicy = None


def changes_of(
    attestation: AttestationChanges,
    twin: TwinOptions,
    allocation: AllocationOptions,
    *,
    enabled: bool | None,
    edge: bool | None,
    reprovision_policy: ReprovisionPolicy | None,
    device_id: str | None = None,
) -> Changes:
    """What the options of one command ask for."""
    return Changes(
        attestation=attestation,
        device_id=device_id,
        initial_twin=twin.initial_twin,
        tags=twin.tag or (),
        desired=twin.desired or (),
        enabled=enabled,
        reprovision_policy=reprovision_policy,
        edge=edge,
        allocation_policy=allocation.allocation_policy,
        iot_hubs=allocation.iot_hub or (),
        webhook_url=allocation.webhook_url,
        webhook_api_version=allocation.webhook_api_version,
        issuing_ca=allocation.issuing_ca,
        certificate_policy=allocation.certificate_policy,
    )
