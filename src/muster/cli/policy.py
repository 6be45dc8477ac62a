"""``muster policy``: the shared access policies of the provisioning service or of a hub (dps.md 6.8, 7.4,
hub-service.md 1.2).

Not here: what a policy grants.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.failure import CommandError
from muster.cli.options import DataDirectory, Output
from muster.cli.output import Format, print_json, printable, record_text, table_text

if TYPE_CHECKING:
    from muster.cli.management import Management, Owner, Resource

app = typer.Typer(
    help="Manage the policies of the provisioning service or of a hub.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Name = Annotated[str, typer.Argument(help="Name of the policy.", show_default=False)]
HubName = Annotated[
    str | None,
    typer.Option("--hub", help="Name of the hub, for its policies and not the service's.", show_default=False),
]


@app.command(name="list")
def list_policies(*, output: Output = Format.TABLE, hub: HubName = None, data_directory: DataDirectory = None) -> None:
    """List the policies and their rights, without keys."""
    policies = _Policies.connect(data_directory, hub).all()
    if output is Format.JSON:
        print_json([{"keyName": policy["keyName"], "rights": policy["rights"]} for policy in policies])
    else:
        print(table_text(("Name", "Rights"), [(policy["keyName"], policy["rights"]) for policy in policies]))


@app.command()
def show(
    name: Name, *, output: Output = Format.TABLE, hub: HubName = None, data_directory: DataDirectory = None
) -> None:
    """Show a policy with its keys and its connection string."""
    policies = _Policies.connect(data_directory, hub)
    policies.show(_require(policies.all(), name), output)


@app.command()
def create(
    name: Name,
    *,
    right: Annotated[
        list[str],
        typer.Option(
            help="ServiceConfig, EnrollmentRead, EnrollmentWrite, DeviceConnect, RegistrationStatusRead or"
            " RegistrationStatusWrite; of a hub RegistryRead, RegistryWrite, ServiceConnect or DeviceConnect; may be"
            " given again.",
            show_default=False,
        ),
    ],
    output: Output = Format.TABLE,
    hub: HubName = None,
    data_directory: DataDirectory = None,
) -> None:
    """Make a policy with new keys."""
    policies = _Policies.connect(data_directory, hub)
    before = policies.all()
    if any(policy["keyName"] == name for policy in before):
        raise CommandError(f"there is a policy {printable(name)}", "`muster policy show` shows it")
    changed = policies.replace([*before, {"keyName": name, "rights": ", ".join(right)}])
    policies.show(_require(changed, name), output)


@app.command()
def renew(
    name: Name,
    *,
    secondary: Annotated[bool, typer.Option("--secondary", help="The secondary key, not the primary one.")] = False,
    output: Output = Format.TABLE,
    hub: HubName = None,
    data_directory: DataDirectory = None,
) -> None:
    """Give a policy a new key. Whoever signs with the old one is refused from then on.

    Devices that are connected to a hub on the old key are disconnected.
    """
    policies = _Policies.connect(data_directory, hub)
    before = policies.all()
    _require(before, name)
    member = "secondaryKey" if secondary else "primaryKey"
    wanted = [{**policy, member: None} if policy["keyName"] == name else policy for policy in before]
    policies.show(_require(policies.replace(wanted), name), output)


@app.command()
def delete(name: Name, *, hub: HubName = None, data_directory: DataDirectory = None) -> None:
    """Delete a policy. provisioningserviceowner and iothubowner stay: Muster's own commands sign with them."""
    policies = _Policies.connect(data_directory, hub)
    before = policies.all()
    _require(before, name)
    policies.replace([policy for policy in before if policy["keyName"] != name])
    print(f"deleted policy {printable(name)}")


@dataclass(frozen=True, slots=True)
class _Policies:
    """The policies of one resource, the provisioning service or a hub. ``host`` is what clients dial."""

    management: "Management"
    owner: "Owner"
    resource: "Resource"
    host: str

    @classmethod
    def connect(cls, data_directory: Path | None, hub: str | None) -> "_Policies":
        """Raises CommandError."""
        from muster.cli.management import connect_management, hub_owner, service_owner

        management = connect_management(data_directory)
        if hub is None:
            service = management.service()
            host = str(service["properties"]["serviceOperationsHostName"])
            return cls(management, service_owner(str(service["name"])), service, host)
        resource = management.require_hub(hub)
        return cls(management, hub_owner(str(resource["name"])), resource, str(resource["properties"]["hostName"]))

    def all(self) -> list["Resource"]:
        return self.management.policies(self.owner)

    def replace(self, policies: list["Resource"]) -> list["Resource"]:
        """Replace all of them; gives them with their keys."""
        properties = {**self.resource["properties"], "authorizationPolicies": policies}
        stored = self.management.put(self.owner, {**self.resource, "properties": properties})
        rules: list[Resource] = stored["properties"]["authorizationPolicies"]
        return rules

    def show(self, policy: "Resource", output: Format) -> None:
        string = f"HostName={self.host};SharedAccessKeyName={policy['keyName']};SharedAccessKey={policy['primaryKey']}"
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


def _require(policies: list["Resource"], name: str) -> "Resource":
    for policy in policies:
        if policy["keyName"] == name:
            return policy
    names = ", ".join(str(policy["keyName"]) for policy in policies)
    raise CommandError(f"there is no policy {printable(name)}; there are {names}")
