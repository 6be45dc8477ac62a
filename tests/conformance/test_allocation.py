"""Where devices go: every policy with the unmodified azure-iot-device, three hubs, and ``muster allocation preview``,
which has to say the same before a device registers as what it then gets.
"""

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.fix_checks import Explain, Wire, provokes
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_server import ID_SCOPE, MusterServer, free_address

from muster.domain.sas import derive_device_key

KEY = base64.b64encode(bytes(range(32))).decode()
BY_KEY = ("--symmetric-key", "--primary-key", KEY, "--secondary-key", KEY)
FAILED = "ServiceError: Query Status operation returned a failed registration status with a status code of 200"


@dataclass(frozen=True)
class Hubs:
    """The host names of two hubs beside the first; ``latencies`` sets those of both."""

    server: MusterServer
    east: str
    west: str

    def latencies(self, east: int, west: int) -> None:
        for name, milliseconds in (("east", east), ("west", west)):
            self.server.cli("linked-hub", "set", name, "--latency", str(milliseconds))


@pytest.fixture(scope="module")
def muster(traced_muster: MusterServer) -> MusterServer:
    return traced_muster


@pytest.fixture(scope="module")
def hubs(muster: MusterServer) -> Hubs:
    hosts = {}
    for name in ("east", "west"):
        hosts[name] = free_address()
        muster.cli("hub", "add", name, "--host", hosts[name])
    muster.cli("linked-hub", "set", muster.address, "--latency", "500")
    return Hubs(muster, **hosts)


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


def arguments(registration_id: str, key: str = KEY, **more: Any) -> dict[str, Any]:
    return {"registration_id": registration_id, "id_scope": ID_SCOPE, "symmetric_key": key, **more}


def preview(server: MusterServer, registration_id: str, *options: str) -> str:
    """The hub that is announced, with a reason."""
    found = server.cli_json("allocation", "preview", registration_id, *options)
    assert found["reason"]
    return str(found["hub"]["hostName"])


def test_static(hubs: Hubs, device: SdkClient) -> None:
    """The device lands where its enrollment says, and works there."""
    server = hubs.server
    for name, host in (("static-e", hubs.east), ("static-w", hubs.west)):
        options = ("--allocation-policy", "static", "--iot-hub", host)
        server.cli("enrollment", "create", "--registration-id", name, *BY_KEY, *options)
        assert preview(server, name) == host
    results = device.values("register", [arguments("static-e"), arguments("static-w")])
    assert [result["assignedHub"] for result in results] == [hubs.east, hubs.west]
    string = f"HostName={hubs.west};DeviceId=static-w;SharedAccessKey={KEY}"
    device.call("connect", connection="static-w", connection_string=string)
    device.call("send", connection="static-w", messages=[{"body": "here"}])
    device.call("close", connection="static-w")
    answer = HttpsClient(server).request("GET", "/muster/v1/events?hub=west&deviceId=static-w")
    assert [event["body"] for event in answer.json] == ["here"]


def test_the_lowest_latency(hubs: Hubs, device: SdkClient) -> None:
    """And after the latencies changed the device moves, with its twin, when it registers again."""
    server = hubs.server
    hubs.latencies(east=5, west=80)
    options = ("--allocation-policy", "geoLatency", "--tag", "line=7")
    server.cli("group", "create", "near", *BY_KEY, *options)
    registration = arguments("near-1", derive_device_key(KEY, "near-1"))
    assert preview(server, "near-1", "--group", "near") == hubs.east
    first = device.call("register", **registration)
    assert (first["assignedHub"], first["subStatus"]) == (hubs.east, "initialAssignment")

    hubs.latencies(east=80, west=5)
    assert preview(server, "near-1") == hubs.west
    second = device.call("register", **registration)
    assert (second["assignedHub"], second["subStatus"]) == (hubs.west, "deviceDataMigrated")
    string = server.cli_json("hub", "show", "west")["connectionString"]
    listed = json.loads(server.cli("device", "list", "--connection-string", string, "-o", "json").stdout)
    assert "near-1" in [item["deviceId"] for item in listed]


def test_hashed(hubs: Hubs, device: SdkClient) -> None:
    server = hubs.server
    server.cli("group", "create", "spread", *("--iot-hub", hubs.east, "--iot-hub", hubs.west), "--symmetric-key")
    keys = HttpsClient(server).request("POST", "/enrollmentGroups/spread/attestationmechanism?api-version=2021-10-01")
    key = keys.json["symmetricKey"]["primaryKey"]
    ids = [f"spread-{number}" for number in range(5)]
    announced = [preview(server, one, "--group", "spread") for one in ids]
    results = device.values("register", [arguments(one, derive_device_key(key, one)) for one in ids])
    assert [result["assignedHub"] for result in results] == announced
    assert set(announced) == {hubs.east, hubs.west}


# A webhook of our own


@dataclass
class Webhook:
    """Answers every request with ``status`` and ``answer``, and keeps what it was asked."""

    url: str
    status: int = 200
    answer: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps(made.answer).encode()
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Webhook(f"http://127.0.0.1:{server.server_port}/allocate?code=secret")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def test_a_webhook(hubs: Hubs, device: SdkClient, webhook: Webhook) -> None:
    server = hubs.server
    webhook.answer = {"iotHubHostName": hubs.west, "payload": {"site": "north"}}
    server.cli("enrollment", "create", "--registration-id", "hooked", *BY_KEY, "--webhook-url", webhook.url)
    assert preview(server, "hooked", "--ask") == hubs.west
    result = device.call("register", **arguments("hooked", payload={"model": "m3"}))
    assert (result["assignedHub"], json.loads(result["payload"])) == (hubs.west, {"site": "north"})
    asked = webhook.asked[-1]
    assert asked["deviceRuntimeContext"]["payload"] == {"model": "m3"}
    assert asked["individualEnrollment"]["customAllocationDefinition"]["webhookUrl"].endswith("?****")
    assert sorted(asked["linkedHubs"]) == sorted([server.address, hubs.east, hubs.west])


# What fails


def require_failed(
    server: MusterServer, device: SdkClient, explain: Explain, name: str, check_id: str, code: int, message: str
) -> None:
    """The registration fails: so says the SDK, the wire, the record and the report."""
    with pytest.raises(SdkError) as caught:
        device.call("register", **arguments(name))
    assert caught.value.causes[0] == FAILED
    final = Wire(server).provisioning(name)[-1]
    state = final.body["registrationState"]
    assert (final.status, final.body["status"], state["status"]) == (200, "failed", "failed")
    assert state["errorCode"] == code
    assert state["errorMessage"].startswith(message)
    record = HttpsClient(server).request("GET", f"/registrations/{name}?api-version=2021-10-01").json
    assert (record["status"], record["errorCode"]) == ("failed", code)
    report = explain(server, name, check_id, verdict="failed")
    assert report["answer"] == f"200 with status failed, {code} {state['errorMessage']}"


@provokes("allocation.hub-available")
def test_a_hub_that_is_not_linked(hubs: Hubs, device: SdkClient, explain: Explain) -> None:
    server = hubs.server
    options = ("--allocation-policy", "static", "--iot-hub", hubs.east)
    server.cli("enrollment", "create", "--registration-id", "unlinked", *BY_KEY, *options)
    server.cli("linked-hub", "remove", "east")
    try:
        message = f"No IoT hubs available: the enrollment names {hubs.east}, which is not linked."
        require_failed(server, device, explain, "unlinked", "allocation.hub-available", 400210, message)
        told = server.cli("allocation", "preview", "unlinked", check=False)
        assert (told.returncode, message in told.stdout) == (1, True)
    finally:
        server.cli("linked-hub", "add", "east")


@provokes("allocation.webhook-answer")
@pytest.mark.parametrize(
    ("status", "answer", "code", "message"),
    [
        (418, {}, 400207, "Custom allocation failed with status code: 418"),
        (401, {}, 400209, "The custom allocation webhook answered 401."),
        (
            200,
            {"iotHubHostName": "elsewhere.example"},
            400208,
            "The custom allocation webhook named 'elsewhere.example'; linked are ",
        ),
    ],
)
def test_a_webhook_that_does_not_choose(
    hubs: Hubs,
    device: SdkClient,
    explain: Explain,
    webhook: Webhook,
    status: int,
    answer: dict[str, Any],
    code: int,
    message: str,
) -> None:
    server, name = hubs.server, f"hooked-{code}"
    webhook.status, webhook.answer = status, answer
    server.cli("enrollment", "create", "--registration-id", name, *BY_KEY, "--webhook-url", webhook.url)
    require_failed(server, device, explain, name, "allocation.webhook-answer", code, message)
    assert len(webhook.asked) == 1
