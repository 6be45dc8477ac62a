"""The flow of docs/ca.md about revocation, with the unmodified SDK: and a fleet of ``muster ca``."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_checks import Explain, provokes
from tests.support.fix_clients import SdkClient, SdkError
from tests.support.fix_server import ID_SCOPE, MusterServer, free_address

_NOTICED_SECONDS = 90.0
"""Two until the server looks, and what the SDK needs to notice on a busy machine."""


REVOKED = ("dev-01", "dev-02")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterServer]:
    """Devices below ``line-a``, and one below ``line-b``; nobody is revoked yet."""
    server = MusterServer(tmp_path_factory.mktemp("muster"), free_address(), "--crl", "ca")
    for command in (
        "init plant-root",
        "intermediate line-a",
        "intermediate line-b --issuer plant-root",
        "issue --issuer line-a --prefix dev- --count 3 --out devices",
        "issue --issuer line-b dev-05 --out devices",
        "export plant-root --out root.pem",
        "export line-a --out line-a.pem",
        "export line-b --out line-b.pem",
    ):
        server.cli("ca", *command.split())
    server.start()
    server.cli("certificate", "upload", "root.pem", "--verify", "--key", "ca/plant-root/private.key")
    for line in ("line-a", "line-b"):
        server.cli("group", "create", line, "--certificate", f"{line}.pem")
    yield server
    assert server.stop() == 0, server.output
    assert "Traceback" not in server.output, server.output


@pytest.fixture(scope="module")
def device(fleet: MusterServer) -> Iterator[SdkClient]:
    with SdkClient(fleet, "device.py") as client:
        yield client


def files(fleet: MusterServer, name: str, form: str = "fullchain.pem") -> dict[str, Any]:
    directory: Path = fleet.directory / "devices"
    return {"certificate": str(directory / f"{name}.{form}"), "key": str(directory / f"{name}.key")}


def register(fleet: MusterServer, device: SdkClient, *names: str) -> list[str]:
    """All at once."""
    requests = [{"registration_id": name, "id_scope": ID_SCOPE, **files(fleet, name)} for name in names]
    return [result["status"] for result in device.values("register", requests)]


def connect(fleet: MusterServer, device: SdkClient, name: str, **options: Any) -> None:
    arguments = {**files(fleet, name), "websockets": name == "dev-02", **options}
    device.call("connect", connection=name, device_id=name, **arguments)


def refusals(fleet: MusterServer, name: str) -> list[tuple[str, str, str]]:
    """Operation, answer and refusing check of each report, the newest first."""
    return [
        (report["operation"], report["answer"], check["id"])
        for report in fleet.cli_json("why", name)
        for check in report["checks"]
        if check["outcome"] == "refused"
    ]


@provokes("x509.revocation", "device.revocation")
def test_devices_are_taken_back_and_let_in_again(fleet: MusterServer, device: SdkClient, explain: Explain) -> None:
    """``dev-01`` over MQTT, ``dev-02`` over WebSocket; nobody revokes ``dev-03``."""
    assert register(fleet, device, "dev-01", "dev-02", "dev-03") == ["assigned"] * 3
    for name in ("dev-01", "dev-02", "dev-03"):
        connect(fleet, device, name)
    for name in REVOKED:
        fleet.cli("ca", "revoke", name, "--reason", "certificateHold")
    fleet.cli("ca", "crl", "--issuer", "line-a")
    for name in REVOKED:
        device.call("wait_until_closed", connection=name, seconds=_NOTICED_SECONDS)
        device.call("close", connection=name)

    for name in REVOKED:
        with pytest.raises(SdkError, match=r"(?i)not authori[sz]ed"):
            connect(fleet, device, name)
        # The certificate alone is enough for the thumbprint: a thief sends nothing else.
        with pytest.raises(SdkError, match=r"(?i)not authori[sz]ed"):
            connect(fleet, device, name, **files(fleet, name, "pem"))
        with pytest.raises(SdkError, match="service error status code 401"):
            register(fleet, device, name)
        registering = ("register", "401002 Invalid certificate.", "x509.revocation")
        connecting = ("connect", "CONNACK 5 over MQTT, 401003 elsewhere", "device.revocation")
        staying = ("stay connected", "the connection was closed", "device.revocation")
        assert refusals(fleet, name) == [registering, connecting, connecting, staying]
    explain(fleet, "dev-01", "x509.revocation")
    explain(fleet, fleet.cli_json("why", "dev-01")[1]["trackingId"], "device.revocation")
    told = fleet.cli("why", "dev-01").stdout
    assert "reason certificateHold, by list 1 of " in told
    assert "line-a/crl.pem" in told
    assert "muster ca unhold" in told

    for name in REVOKED:
        fleet.cli("ca", "unhold", name)
    fleet.cli("ca", "crl", "--issuer", "line-a")
    until_it_is_let_in(fleet, "dev-01")
    assert register(fleet, device, *REVOKED) == ["assigned"] * 2
    for name in REVOKED:
        connect(fleet, device, name)
        device.call("send", connection=name, messages=[{"body": "here again"}])
    assert device.call("connected", connection="dev-03"), "who is not on the list is left alone"


def until_it_is_let_in(fleet: MusterServer, name: str) -> None:
    """The dry run of the server itself, with its own lists."""

    deadline = time.monotonic() + _NOTICED_SECONDS
    while fleet.cli("cert", "doctor", f"devices/{name}.fullchain.pem", check=False).returncode:
        assert time.monotonic() < deadline, fleet.output
        time.sleep(0.2)


def test_a_revoked_ca_takes_its_devices_with_it(fleet: MusterServer, device: SdkClient) -> None:
    register(fleet, device, "dev-05")
    connect(fleet, device, "dev-05")
    fleet.cli("ca", "revoke", "line-b", "--reason", "cACompromise")
    fleet.cli("ca", "crl", "--issuer", "plant-root")
    device.call("wait_until_closed", connection="dev-05", seconds=_NOTICED_SECONDS)
    with pytest.raises(SdkError, match="status code 401"):
        register(fleet, device, "dev-05")
    doctor = fleet.cli("cert", "doctor", "devices/dev-05.fullchain.pem", "--crl", "ca", check=False)
    assert (doctor.returncode, "x509.revocation" in doctor.stdout) == (1, True)
    assert "reason cACompromise" in doctor.stdout


@provokes("x509.revocation-list")
def test_a_list_that_is_overdue_warns(tmp_path_factory: pytest.TempPathFactory, explain: Explain) -> None:
    """The operator made one for a day, two days ago: the device gets in, and the report says so."""
    server = MusterServer(tmp_path_factory.mktemp("overdue"), free_address(), "--crl", "ca", "--clock", "+2d")
    for command in (
        "init plant-root",
        "intermediate line-a",
        "issue --issuer line-a dev-07 --out devices",
        "export plant-root --out root.pem",
        "export line-a --out line-a.pem",
        "crl --issuer line-a --days 1",
    ):
        server.cli("ca", *command.split())
    server.start()
    server.cli("certificate", "upload", "root.pem", "--verify", "--key", "ca/plant-root/private.key")
    server.cli("group", "create", "line-a", "--certificate", "line-a.pem")
    with SdkClient(server, "device.py") as client:
        assert register(server, client, "dev-07") == ["assigned"]
    explain(server, "dev-07", "x509.revocation-list", verdict="warned")
    assert "a newer list is overdue" in server.output
    assert server.stop() == 0, server.output
