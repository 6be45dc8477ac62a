"""A CA of ``muster ca`` enrolls a group and provisions a fleet: the flow of docs/ca.md, with the unmodified SDK."""

import re
import shlex
from typing import Any

import pytest
from tests.support.fix_clients import OpenClient, SdkClient, SdkError
from tests.support.fix_server import ID_SCOPE, REPOSITORY, MusterServer

FLEET = [f"dev-{number:02}" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def fleet(muster: MusterServer) -> MusterServer:
    """After the documented commands, in their order."""
    text = (REPOSITORY / "docs" / "ca.md").read_text(encoding="utf-8")
    flow = text.split("\n## From nothing to a provisioned fleet\n")[1].split("\n## ")[0]
    commands = re.findall(r"^    muster (.*)$", flow, re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        muster.cli(*shlex.split(command))
    return muster


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


def identity(fleet: MusterServer, name: str, certificate: str = "fullchain.pem") -> dict[str, Any]:
    files = fleet.directory / "devices"
    return {
        "registration_id": name,
        "id_scope": ID_SCOPE,
        "certificate": str(files / f"{name}.{certificate}"),
        "key": str(files / f"{name}.key"),
    }


def test_the_fleet_is_provisioned(fleet: MusterServer, device: SdkClient) -> None:
    results = device.values("register", [identity(fleet, name) for name in FLEET])
    assert [(result["status"], result["deviceId"]) for result in results] == [("assigned", name) for name in FLEET]
    assert {record["registrationId"] for record in fleet.cli_json("group", "registrations", "line-a")} >= set(FLEET)


def test_a_device_without_the_intermediate_is_told_so(fleet: MusterServer, device: SdkClient) -> None:
    fleet.cli("ca", "issue", "dev-short", "--out", "devices")
    with pytest.raises(SdkError):
        device.call("register", **identity(fleet, "dev-short", "pem"))
    (report, *_) = fleet.cli_json("why", "dev-short")
    assert [one["id"] for one in report["checks"] if one["outcome"] == "refused"] == ["x509.issuer-known"]
    assert fleet.cli("ca", "verify", "devices/dev-short.pem", check=False).returncode == 1


def test_another_certificate_is_the_same_device(fleet: MusterServer, device: SdkClient) -> None:
    fleet.cli("ca", "issue", "dev-again", "--out", "devices")
    first = device.call("register", **identity(fleet, "dev-again"))
    fleet.cli("ca", "issue", "dev-again", "--out", "devices", "--force", "--key", "rsa-2048")
    second = device.call("register", **identity(fleet, "dev-again"))
    assert (second["deviceId"], second["assignedHub"]) == (first["deviceId"], first["assignedHub"])
    assert second["created"] == first["created"]


def test_an_intermediate_that_was_renewed_stays_that_of_the_group(fleet: MusterServer, device: SdkClient) -> None:
    """Its devices send the new certificate, and the group has it as its secondary."""
    fleet.cli("ca", "intermediate", "line-a", "--renew")
    fleet.cli("ca", "issue", "dev-renewed", "--out", "devices")
    fleet.cli("group", "update", "line-a", "--secondary-certificate", "ca/line-a/line-a.pem")
    results = device.values("register", [identity(fleet, name) for name in ("dev-renewed", *FLEET[:1])])
    assert [result["status"] for result in results] == ["assigned", "assigned"]
