"""The options that ``muster device`` and ``muster module`` have in common."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from muster.cli.identity_document import Authentication, IdentityChanges, thumbprint


class WhichKey(StrEnum):
    """The choices of ``--key`` (hub-service.md 2.7)."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    SWAP = "swap"


DeviceId = Annotated[str, typer.Argument(help="Device id.", show_default=False)]
ModuleId = Annotated[str, typer.Argument(help="Module id.", show_default=False)]
Auth = Annotated[
    Authentication | None,
    typer.Option(help="How it proves itself; sas for a new one, if no certificate is given.", show_default=False),
]
Certificate = Annotated[
    list[Path] | None,
    typer.Option(
        help="File with its certificate, for selfSigned; given again: the secondary one.",
        show_default=False,
    ),
]
PrimaryKey = Annotated[
    str | None,
    typer.Option(help="Primary symmetric key: base64 of 16 to 64 bytes.", show_default=False),
]
SecondaryKey = Annotated[str | None, typer.Option(help="Secondary symmetric key.", show_default=False)]
StatusReason = Annotated[
    str | None, typer.Option(help="Why it has its status; up to 128 characters.", show_default=False)
]
Parent = Annotated[
    str | None,
    typer.Option(help="Device id of the IoT Edge device below which it is; '' for none.", show_default=False),
]
ManagedBy = Annotated[str | None, typer.Option(help="Who manages the module; '' for nobody.", show_default=False)]
Etag = Annotated[str, typer.Option(help="Go on only if the identity still has this ETag; * is any.", metavar="ETAG")]
UpdateEtag = Annotated[
    str | None, typer.Option(help="Go on only if the identity still has this ETag.", metavar="ETAG", show_default=False)
]
Key = Annotated[WhichKey, typer.Option(help="Which key is made anew; swap lets them change places.")]
Secondary = Annotated[bool, typer.Option("--secondary", help="With the secondary key.")]


@dataclass(frozen=True)
class CredentialOptions:
    """How an identity proves itself, for ``cli/option_records.py``."""

    auth: Auth = None
    certificate: Certificate = None
    primary_key: PrimaryKey = None
    secondary_key: SecondaryKey = None

    @property
    def says_something(self) -> bool:
        return bool(self.certificate) or any(
            value is not None for value in (self.auth, self.primary_key, self.secondary_key)
        )

    def changes(self, **others: Any) -> IdentityChanges:
        """These and ``others``. Raises CommandError for a file with no certificate."""
        return IdentityChanges(
            auth=self.auth,
            thumbprints=[thumbprint(file) for file in self.certificate or ()],
            primary_key=self.primary_key,
            secondary_key=self.secondary_key,
            **others,
        )
