"""``muster registration``: the registration records of the provisioning service (dps.md 6.4)."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, json_text, print_json, printable, record_text, short_time

if TYPE_CHECKING:
    from muster.cli.client import Client

app = typer.Typer(
    help="Show and delete registration records.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

RegistrationId = Annotated[str, typer.Argument(help="Registration id of the device.", show_default=False)]


def registration_rows(record: dict[str, Any]) -> list[tuple[str, object]]:
    """The rows of the cmdlet ``Get-AzIoTDeviceProvisioningServiceRegistration``, and what it leaves out."""
    payload = record.get("payload")
    return [
        ("RegistrationId", record.get("registrationId")),
        ("DeviceId", record.get("deviceId")),
        ("AssignedHub", record.get("assignedHub")),
        ("Status", record.get("status")),
        ("Substatus", record.get("substatus")),
        ("Created", short_time(record.get("createdDateTimeUtc"))),
        ("Last Updated", short_time(record.get("lastUpdatedDateTimeUtc"))),
        ("ErrorCode", record.get("errorCode")),
        ("ErrorMessage", record.get("errorMessage")),
        ("ETag", record.get("etag")),
        ("Payload", None if payload is None else json_text(payload, indent=None)),
    ]


@app.command()
def show(
    registration_id: RegistrationId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Show whether and to which hub a device is assigned."""
    record = _request(connect(connection_string, data_directory), "GET", registration_id)
    if output is Format.JSON:
        print_json(record)
    else:
        print(record_text(registration_rows(record)))


@app.command()
def delete(
    registration_id: RegistrationId,
    *,
    etag: Annotated[
        str | None, typer.Option(help="Go on only if the record still has this ETag.", show_default=False)
    ] = None,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Delete a registration record; the next registration of the device is again its first."""
    client = connect(connection_string, data_directory)
    _request(client, "DELETE", registration_id, headers={"If-Match": etag} if etag else {})
    print(f"deleted registration {printable(registration_id)}")


def _request(client: "Client", method: str, registration_id: str, headers: dict[str, str] | None = None) -> Any:
    from muster.cli.client import DPS_API_VERSION, path

    return client.request(
        client.target.provisioning,
        method,
        path("registrations", registration_id),
        query={"api-version": DPS_API_VERSION},
        headers=headers,
    ).document
