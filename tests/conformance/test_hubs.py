"""Several hubs in one Muster: made and removed while it runs, each on an address of its own."""

import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient
from tests.support.fix_server import (
    DEVELOPMENT_KEY,
    ID_SCOPE,
    MusterServer,
    StartServer,
    clean_environment,
    free_address,
)

KEYS = {"primaryKey": DEVELOPMENT_KEY, "secondaryKey": DEVELOPMENT_KEY}


def refusal(server: MusterServer, *arguments: str) -> str:
    result = server.cli(*arguments, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def add(server: MusterServer, name: str, *options: str) -> str:
    """A hub on an address of its own."""
    address = free_address()
    server.cli("hub", "add", name, "--host", address, *options)
    return address


def is_open(address: str, port: int = 8883) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def enroll(https: HttpsClient, registration_id: str, hub: str) -> None:
    """An enrollment by the well-known key that names its one hub."""
    https.enroll_by(
        registration_id,
        attestation={"type": "symmetricKey", "symmetricKey": KEYS},
        allocationPolicy="static",
        iotHubs=[hub],
    )


def register(device: SdkClient, registration_id: str) -> Any:
    return device.call("register", registration_id=registration_id, id_scope=ID_SCOPE, symmetric_key=DEVELOPMENT_KEY)[
        "assignedHub"
    ]


def connect(device: SdkClient, hub: str, device_id: str) -> None:
    string = f"HostName={hub};DeviceId={device_id};SharedAccessKey={DEVELOPMENT_KEY}"
    device.call("connect", connection=device_id, connection_string=string)


def bodies(https: HttpsClient, hub: str, device_id: str) -> list[Any]:
    answer = https.request("GET", f"/muster/v1/events?hub={hub}&deviceId={device_id}")
    assert answer.status == 200, answer
    return [event["body"] for event in answer.json]


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


def test_a_device_is_assigned_to_a_new_hub_and_sends_to_it(
    muster: MusterServer, device: SdkClient, https: HttpsClient
) -> None:
    east = add(muster, "east")
    enroll(https, "hubs-1", east)
    assert register(device, "hubs-1") == east
    connect(device, east, "hubs-1")
    device.call("send", connection="hubs-1", messages=[{"body": "42", "contentType": "application/json"}])
    device.call("close", connection="hubs-1")
    assert bodies(https, "east", "hubs-1") == [42]
    assert bodies(https, muster.address, "hubs-1") == []
    string = muster.cli_json("hub", "show", "east")["connectionString"]
    listed = json.loads(muster.cli("device", "list", "--connection-string", string, "-o", "json").stdout)
    assert [item["deviceId"] for item in listed] == ["hubs-1"]
    muster.cli("hub", "remove", "east", "--force")


def test_the_certificate_names_it_at_once(muster: MusterServer) -> None:
    address = add(muster, "named")
    context = ssl.create_default_context(cafile=str(muster.ca_file))
    connection = http.client.HTTPSConnection(address, context=context, timeout=60)
    connection.request("GET", "/muster/v1/status")
    hubs = json.loads(connection.getresponse().read())["hubs"]
    connection.close()
    assert {"name": "named", "host": address} in hubs
    assert {"name": "named", "host": address} in [
        {name: hub[name] for name in ("name", "host")} for hub in muster.status["hubs"]
    ]
    assert address in muster.status["addresses"]
    muster.cli("hub", "remove", "named")


def test_removal_ends_connections_and_closes_the_address(
    muster: MusterServer, device: SdkClient, https: HttpsClient
) -> None:
    west = add(muster, "west")
    enroll(https, "hubs-2", west)
    assert register(device, "hubs-2") == west
    connect(device, west, "hubs-2")
    assert "The hub west has devices, which would be lost with it: 1." in refusal(muster, "hub", "remove", "west")
    assert device.call("connected", connection="hubs-2")
    muster.cli("hub", "remove", "west", "--force")
    device.call("wait_until_closed", connection="hubs-2", seconds=60)
    device.call("close", connection="hubs-2")
    assert not any(is_open(west, port) for port in (8883, 5671, 443))
    assert is_open(muster.address)
    assert west not in json.dumps(muster.status)
    assert west not in json.dumps(muster.cli_json("linked-hub", "list"))


def test_hubs_outlive_a_restart(start_server: StartServer, clients: OpenClient) -> None:
    server = start_server()
    address = add(server, "east", "--partitions", "2")
    server.cli("linked-hub", "set", "east", "--weight", "9")
    before = server.cli_json("hub", "show", "east")
    server.stop()
    assert not is_open(address)
    server.start()
    assert server.cli_json("hub", "show", "east") == before
    assert [hub["name"] for hub in server.cli_json("hub", "list")] == [server.address, "east"]
    linked = {hub["name"]: hub.get("allocationWeight") for hub in server.cli_json("linked-hub", "list")}
    assert linked == {server.address: None, address: 9}
    https = HttpsClient(server)
    enroll(https, "hubs-3", address)
    with SdkClient(server, "device.py") as device:
        assert register(device, "hubs-3") == address
        connect(device, address, "hubs-3")


def test_unlinked_hubs_stay_so(start_server: StartServer) -> None:
    server = start_server()
    address = add(server, "aside", "--no-link")
    assert [hub["name"] for hub in server.cli_json("linked-hub", "list")] == [server.address]
    server.cli("linked-hub", "add", "aside")
    server.cli("linked-hub", "remove", server.address)
    server.stop()
    server.start()
    assert [hub["name"] for hub in server.cli_json("linked-hub", "list")] == [address]
    assert "is not linked" in refusal(server, "linked-hub", "set", server.address, "--weight", "2")
    assert "there is no hub nowhere" in refusal(server, "linked-hub", "add", "nowhere")


def test_what_cannot_be_is_told(muster: MusterServer) -> None:
    taken = free_address()
    with socket.socket() as other:
        other.bind((taken, 443))
        other.listen()
        assert f"{taken} port 443 is taken" in refusal(muster, "hub", "add", "taken", "--host", taken)
    assert not is_open(taken)
    assert "is not a loopback address" in refusal(muster, "hub", "add", "outside", "--host", "192.0.2.1")
    assert "stays" in refusal(muster, "hub", "remove", muster.address, "--force")
    assert "there is no hub nothing" in refusal(muster, "hub", "remove", "nothing")
    assert "there is no hub nothing" in refusal(muster, "hub", "show", "nothing")
    assert muster.cli_json("hub", "list")[0]["name"] == muster.address


def test_a_start_does_not_take_the_address_of_a_hub(start_server: StartServer) -> None:
    server = start_server()
    address = add(server, "east")
    server.stop()
    result = subprocess.run(
        [sys.executable, "-m", "muster", "up", "--address", address, "--data-dir", str(server.data_directory)],
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment(),
        check=False,
    )
    assert result.returncode == 1
    assert f"{address} is where this Muster serves its hub east" in result.stderr
    assert "Traceback" not in result.stderr


def test_on_a_network_a_hub_has_a_name_and_keys_of_its_own(tmp_path: Path) -> None:
    server = NamedServer(tmp_path, free_address())
    server.start()
    try:
        hub = server.cli_json("hub", "add", "east", "--host", "east.plant.invalid")
        key = hub["connectionString"].partition("SharedAccessKey=")[2]
        assert key != DEVELOPMENT_KEY
        assert len({hub["connectionString"] for hub in server.status["hubs"]}) == 2
        assert server.status["addresses"] == [server.address]
        context = ssl.create_default_context(cafile=str(server.ca_file))
        with (
            socket.create_connection((server.address, 443), 60) as plain,
            context.wrap_socket(plain, server_hostname="east.plant.invalid"),
        ):
            pass
        string = hub["connectionString"]
        assert json.loads(server.cli("device", "list", "--connection-string", string, "-o", "json").stdout) == []
        message = refusal(server, "hub", "add", "other", "--host", "other.example")
        assert "Possible is a name such as other.plant.invalid" in message
        assert key not in server.output
    finally:
        assert server.stop() == 0


class NamedServer(MusterServer):
    """One for a network, with a name that no resolver knows."""

    def start(self) -> "NamedServer":
        command = [sys.executable, "-m", "muster", "up", "--host-name", "plant.invalid", "--listen", self.address]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--data-dir", str(self.data_directory)],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=clean_environment(),
            )
        self._wait_until_ready(time.monotonic())
        return self
