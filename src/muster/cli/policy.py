"""``muster policy``: the shared access policies of the provisioning service (dps.md 6.8, 7.4).

Not here: policies of hubs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.failure import CommandError
from muster.cli.options import DataDirectory, Output
from muster.cli.output import Format, print_json, printable, record_text, table_text

if TYPE_CHECKING:
    from muster.cli.management import Management, Resource

app = typer.Typer(
    help="Manage the policies of the provisioning service.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Name = Annotated[str, typer.Argument(help="Name of the policy.", show_default=False)]


@app.command(name="list")
def list_policies(*, output: Output = Format.TABLE, data_directory: DataDirectory = None) -> None:
    """List the policies and their rights, without keys."""
    management = _connect(data_directory)
    policies = management.policies(management.service()["name"])
    if output is Format.JSON:
        print_json([{"keyName": policy["keyName"], "rights": policy["rights"]} for policy in policies])
    else:
        print(table_text(("Name", "Rights"), [(policy["keyName"], policy["rights"]) for policy in policies]))


@app.command()
def show(name: Name, *, output: Output = Format.TABLE, data_directory: DataDirectory = None) -> None:
    """Show a policy with its keys and its connection string."""
    management = _connect(data_directory)
    service = management.service()
    _show(service, _require(management.policies(service["name"]), name), output)


@app.command()
def create(
    name: Name,
    *,
    right: Annotated[
        list[str],
        typer.Option(
            help="ServiceConfig, EnrollmentRead, EnrollmentWrite, DeviceConnect, RegistrationStatusRead or"
            " RegistrationStatusWrite; may be given again.",
            show_default=False,
        ),
    ],
    output: Output = Format.TABLE,
    data_directory: DataDirectory = None,
) -> None:
    """Make a policy with new keys."""
    management = _connect(data_directory)
    service = management.service()
    policies = management.policies(service["name"])
    if any(policy["keyName"] == name for policy in policies):
        raise CommandError(f"there is a policy {printable(name)}", "`muster policy show` shows it")
    changed = _put(management, service, [*policies, {"keyName": name, "rights": ", ".join(right)}])
    _show(service, _require(changed, name), output)


@app.command()
def renew(
    name: Name,
    *,
    secondary: Annotated[bool, typer.Option("--secondary", help="The secondary key, not the primary one.")] = False,
    output: Output = Format.TABLE,
    data_directory: DataDirectory = None,
) -> None:
    """Give a policy a new key. Whoever signs with the old one is refused from then on."""
    management = _connect(data_directory)
    service = management.service()
    policies = management.policies(service["name"])
    _require(policies, name)
    member = "secondaryKey" if secondary else "primaryKey"
    wanted = [{**policy, member: None} if policy["keyName"] == name else policy for policy in policies]
    _show(service, _require(_put(management, service, wanted), name), output)


@app.command()
def delete(name: Name, *, data_directory: DataDirectory = None) -> None:
    """Delete a policy. provisioningserviceowner stays: Muster's own commands sign with it."""
    management = _connect(data_directory)
    service = management.service()
    policies = management.policies(service["name"])
    _require(policies, name)
    _put(management, service, [policy for policy in policies if policy["keyName"] != name])
    print(f"deleted policy {printable(name)}")


def _connect(data_directory: Path | None) -> "Management":
    from muster.cli.management import connect_management

    return connect_management(data_directory)


def _require(policies: list["Resource"], name: str) -> "Resource":
    for policy in policies:
        if policy["keyName"] == name:
            return policy
    names = ", ".join(str(policy["keyName"]) for policy in policies)
    raise CommandError(f"there is no policy {printable(name)}; there are {names}")


def _put(management: "Management", service: "Resource", policies: list["Resource"]) -> list["Resource"]:
    """Replace all policies; gives them with their keys."""
    properties = {**service["properties"], "authorizationPolicies": policies}
    stored = management.put_service({**service, "properties": properties})
    rules: list[Resource] = stored["properties"]["authorizationPolicies"]
    return rules


def _show(service: "Resource", policy: "Resource", output: Format) -> None:
    host = service["properties"]["serviceOperationsHostName"]
    string = f"HostName={host};SharedAccessKeyName={policy['keyName']};SharedAccessKey={policy['primaryKey']}"
    if output is Format.JSON:
        print_json({**policy, "connectionString": string})
        return
    rows = [
        ("Name", policy["keyName"]),
        ("Rights", policy["rights"]),
        ("Primary key", policy["primaryKey"]),
        ("Secondary key", policy["secondaryKey"]),
        ("Connection string", string),
    ]
    print(record_text(rows))
